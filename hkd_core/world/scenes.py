"""Scene graphs of the built-in world: drawn from a seed, kept with every picture, the judge of every answer."""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hkd_core.data.schema import Pictures, save_pictures
from hkd_core.world.objects import CELLS, COLORS, CONTEXTS, OBJECTS, OPPOSITE, RELATIONS, Thing, popularity, related

MAX_REPEATS = 3


@dataclass(frozen=True)
class Scene:
    """The truth about one picture. `things` are ordered by cell; equal names may repeat, with one colour."""

    image_id: str
    context: str
    things: tuple[Thing, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names present, each once, in the order of cells."""
        return tuple(dict.fromkeys(thing.name for thing in self.things))

    def count(self, name: str) -> int:
        return sum(thing.name == name for thing in self.things)

    def color(self, name: str) -> str:
        """The colour of the first thing of that name; KeyError if there is none."""
        for thing in self.things:
            if thing.name == name:
                return thing.color
        raise KeyError(name)

    @cached_property
    def singles(self) -> tuple[Thing, ...]:
        """Things whose name occurs once, so that "the dog" is one dog."""
        return tuple(thing for thing in self.things if self.count(thing.name) == 1)

    def single(self, name: str) -> Thing:
        """The one thing of that name; KeyError if there is not exactly one."""
        found = [thing for thing in self.things if thing.name == name]
        if len(found) != 1:
            raise KeyError(name)
        return found[0]

    def to_graph(self) -> dict:
        """Plain values for storage; `from_graph` is the inverse."""
        return {"context": self.context, "things": [dict(vars(thing)) for thing in self.things]}

    @staticmethod
    def from_graph(image_id: str, graph: dict) -> "Scene":
        return Scene(image_id, graph["context"], tuple(Thing(**thing) for thing in graph["things"]))


def draw_scene(image_id: str, rng: random.Random) -> Scene:
    """A scene of three to six kinds of object: mostly from one context, the popular ones more often, some repeated."""
    context = rng.choice(list(CONTEXTS))
    names: list[str] = []
    for _ in range(rng.choice((3, 4, 4, 5, 5, 6))):
        pool = list(CONTEXTS[context]) if rng.random() < 0.8 else list(OBJECTS)
        pool = [name for name in pool if name not in names]
        names.append(rng.choices(pool, [popularity(name) for name in pool])[0])
    repeats = [rng.choice((1, 1, 1, 1, 2, MAX_REPEATS)) for _ in names]
    while sum(repeats) > CELLS:
        repeats[repeats.index(max(repeats))] -= 1
    cells = rng.sample(range(CELLS), sum(repeats))
    things = []
    for name, times in zip(names, repeats, strict=True):
        color = rng.choice(list(COLORS))
        things += [Thing(name, color, cells.pop()) for _ in range(times)]
    return Scene(image_id, context, tuple(sorted(things, key=lambda thing: thing.cell)))


def draw_scenes(split: str, count: int, seed: int) -> list[Scene]:
    """`count` scenes named `split-00000` and on; the same for the same (split, seed), whatever `count` is."""
    return [draw_scene(f"{split}-{i:05d}", random.Random(f"scene/{seed}/{split}/{i}")) for i in range(count)]


def absent(scene: Scene, rng: random.Random, *, tempting: bool) -> str:
    """An object that is not in the picture; a `tempting` one fits its context, popular ones first."""
    pool = list(CONTEXTS[scene.context]) if tempting else list(OBJECTS)
    pool = [name for name in pool if name not in scene.names] or [n for n in OBJECTS if n not in scene.names]
    return rng.choices(pool, [popularity(name) if tempting else 1.0 for name in pool])[0]


def true_relation(scene: Scene, rng: random.Random) -> tuple[Thing, str, Thing] | None:
    """Two single things and a relation that holds between them, or None if there are no two."""
    if len(scene.singles) < 2:
        return None
    a, b = rng.sample(scene.singles, 2)
    holds = [relation for relation in RELATIONS if related(a, relation, b)]
    return a, rng.choice(holds), b


def other_color(color: str, rng: random.Random) -> str:
    return rng.choice([c for c in COLORS if c != color])


def opposite(relation: str) -> str:
    return OPPOSITE[relation]


def save_scenes(folder: str | Path, scenes: Sequence[Scene], pictures: Iterable[np.ndarray]) -> Path:
    """Write pictures [H, W, 3] uint8 with their scene graphs, whole or not at all."""
    rows = zip(scenes, pictures, strict=True)
    return save_pictures(
        folder,
        (
            {"image_id": s.image_id, "image": p, "objects": list(s.names), "graph": json.dumps(s.to_graph())}
            for s, p in rows
        ),
    )


def stored_scenes(pictures: Pictures) -> list[Scene]:
    """The scene graphs of all stored pictures, in their order."""
    pairs = zip(pictures.ids, pictures.table["graph"], strict=True)
    return [Scene.from_graph(image_id, json.loads(graph)) for image_id, graph in pairs]

"""Diverse augmentation (DAS): pictures changed so that every label stays, texts changed so that it stays or flips as told.

What an augmentation does to the label is never assumed. A changed example is made anew from its facts, and its label is read off
the scene graph. The list of augmentations is our choice; HKD4VLM's abstract says only that they are diverse.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from hkd_core.common.errors import UserError
from hkd_core.world.facts import Fact
from hkd_core.world.objects import CELL, CELLS, GRID, Thing
from hkd_core.world.scenes import Scene, absent, opposite, other_color
from hkd_core.world.tasks import LETTERS, claimed, denied, lettered, task1_example, task2_example, told

PictureChange = Callable[[np.ndarray, Scene, random.Random], np.ndarray]
TextChange = Callable[[dict, Scene, random.Random], tuple[dict, Scene] | None]


def jitter(picture: np.ndarray, scene: Scene, rng: random.Random) -> np.ndarray:
    """Brightness and contrast; never hue, since colours are labels."""
    gain, offset = rng.uniform(0.75, 1.2), rng.uniform(-20, 20)
    return np.clip((picture.astype(np.float32) - 128) * gain + 128 + offset, 0, 255).astype(np.uint8)


def blur(picture: np.ndarray, scene: Scene, rng: random.Random) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8))))


def noise(picture: np.ndarray, scene: Scene, rng: random.Random) -> np.ndarray:
    grains = np.random.default_rng(rng.getrandbits(32)).normal(0, 255 * rng.uniform(0.02, 0.08), picture.shape)
    return np.clip(picture + grains, 0, 255).astype(np.uint8)


def patch_drop(picture: np.ndarray, scene: Scene, rng: random.Random) -> np.ndarray:
    """Up to three cells are greyed, only such as hold nothing."""
    free = sorted(set(range(CELLS)) - {thing.cell for thing in scene.things})
    picture = picture.copy()
    for cell in rng.sample(free, min(3, len(free))):
        row, column = divmod(cell, GRID)
        picture[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 128
    return picture


PICTURES: dict[str, PictureChange] = {"jitter": jitter, "blur": blur, "noise": noise, "patch_drop": patch_drop}


def mirror(scene: Scene, image_id: str) -> Scene:
    """Left and right exchanged. Geometry moves labels with it: relations are read off the mirrored graph."""
    things = [replace(t, cell=t.row * GRID + GRID - 1 - t.column) for t in scene.things]
    return Scene(image_id, scene.context, tuple(sorted(things, key=lambda thing: thing.cell)))


def facts_of(example: dict) -> dict[str, Fact] | list[Fact]:
    """The facts an example of task 1 (by kind) or task 2 (in order) was made of."""
    facts = example["meta"]["facts"]
    return {k: Fact(**f) for k, f in facts.items()} if isinstance(facts, dict) else [Fact(**f) for f in facts]


def remade(example: dict, scene: Scene, facts, rng: random.Random) -> dict | None:
    """The example with other facts or another scene, its label read anew; None if a detection caption has two wrongs."""
    if example["task"] == "task2":
        return task2_example(scene, facts, example["meta"]["hidden"])
    try:
        return task1_example(scene, facts, rng)
    except ValueError:
        return None


def paraphrase(example: dict, scene: Scene, rng: random.Random) -> tuple[dict, Scene] | None:
    """The same in other words: facts of the claim in the other order, or another opening of the caption."""
    if example["task"] == "task2":
        facts = facts_of(example)[::-1]
        context, claim = told(example["meta"]["hidden"][::-1]), claimed(facts)
        return example | {"prompt": f"{context} Claim: {claim}", "context": context, "claim": claim}, scene
    text = example["caption"].replace("The image shows", "There is", 1)
    return example | {"prompt": example["prompt"].replace(example["caption"], text, 1), "caption": text}, scene


def option_shuffle(example: dict, scene: Scene, rng: random.Random) -> tuple[dict, Scene] | None:
    """The options change letters, and the answer with them."""
    options = example["meta"].get("options")
    if not options:
        return None
    right, rotated = options[LETTERS.index(example["answer"])], rng.sample(options, len(options))
    prompt = example["prompt"].replace(lettered(options), lettered(rotated))
    changed = {"prompt": prompt, "answer": LETTERS[rotated.index(right)], "meta": example["meta"] | {"options": rotated}}
    return example | changed, scene


def mirrored(example: dict, scene: Scene, rng: random.Random) -> tuple[dict, Scene] | None:
    """The picture mirrored and left and right exchanged in the words; the label stays."""
    turn = {"left of": "right of", "right of": "left of"}
    facts = facts_of(example)
    pairs = facts.items() if isinstance(facts, dict) else enumerate(facts)
    swapped_facts = {k: replace(f, value=turn.get(f.value, f.value)) for k, f in pairs}
    scene = mirror(scene, scene.image_id)
    changed = remade(example, scene, swapped_facts if isinstance(facts, dict) else list(swapped_facts.values()), rng)
    return (changed, scene) if changed else None


def polarity(example: dict, scene: Scene, rng: random.Random) -> tuple[dict, Scene] | None:
    """A claim all of which holds, or none, is denied: what was true is false. Of a claim that holds in part the denial does too."""
    opposite_of = {"true": "false", "false": "true"}
    if example["task"] != "task2" or example["answer"] not in opposite_of:
        return None
    claim, right = denied(facts_of(example)), opposite_of[example["answer"]]
    prompt = f"{told(example['meta']['hidden'])} Claim: {claim}"
    return example | {"prompt": prompt, "claim": claim, "answer": right, "meta": example["meta"] | {"type": right}}, scene


def swapped(fact: Fact, scene: Scene, rng: random.Random) -> Fact:
    """The fact with its object, colour or relation exchanged for a tempting other."""
    if fact.kind == "presence":
        return replace(fact, name=absent(scene, rng, tempting=True))
    return replace(fact, value=other_color(fact.value, rng) if fact.kind == "color" else opposite(fact.value))


def hard_negative(example: dict, scene: Scene, rng: random.Random) -> tuple[dict, Scene] | None:
    """One fact exchanged for a tempting other; only where that changes the label."""
    facts = facts_of(example)
    keys = list(facts) if isinstance(facts, dict) else list(range(len(facts)))
    chosen = rng.choice(keys)
    facts[chosen] = swapped(facts[chosen], scene, rng)
    changed = remade(example, scene, facts, rng)
    return (changed, scene) if changed and changed["meta"]["type"] != example["meta"]["type"] else None


def counterfactual(example: dict, scene: Scene, rng: random.Random) -> tuple[dict, Scene] | None:
    """The words stay, the picture is edited (a thing recoloured or replaced); only where that changes the label."""
    names = [f["name"] for f in (example["meta"]["facts"].values() if example["task"] == "task1" else example["meta"]["facts"])]
    target = rng.choice([name for name in names if name in scene.names] or scene.names)
    if rng.random() < 0.5:
        color = other_color(scene.color(target), rng)
        things = [replace(t, color=color) if t.name == target else t for t in scene.things]
    else:
        other = absent(scene, rng, tempting=False)
        things = [Thing(other, t.color, t.cell) if t.name == target else t for t in scene.things]
    edited = Scene(scene.image_id, scene.context, tuple(things))
    try:
        changed = remade(example, edited, facts_of(example), rng)
    except KeyError:
        return None
    return (changed, edited) if changed and changed["meta"]["type"] != example["meta"]["type"] else None


PRESERVING: dict[str, TextChange] = {"paraphrase": paraphrase, "option_shuffle": option_shuffle, "mirror": mirrored}
FLIPPING: dict[str, TextChange] = {"polarity": polarity, "hard_negative": hard_negative, "counterfactual": counterfactual}


def augment(
    scenes: dict[str, Scene], examples: Sequence[dict], *, count: int, pictures: Sequence[str], texts: Sequence[str], seed: int
) -> tuple[list[Scene], list[str | None], list[dict]]:
    """`count` new examples: (their scenes, the picture change of each, the examples), each with a separate picture.

    Without `pictures` none is changed (None). Raises UserError for an unknown augmentation, and if `texts` names none.
    """
    known = PRESERVING | FLIPPING
    for name, among in [(n, PICTURES) for n in pictures] + [(n, known) for n in texts]:
        if name not in among:
            raise UserError(f'augmentation: expected one of {", ".join(among)}, got "{name}"')
    if not texts:
        raise UserError(f"augmentation: expected at least one of {', '.join(known)}, got none")
    rng = random.Random(f"augment/{seed}")
    found: tuple[list[Scene], list[str | None], list[dict]] = ([], [], [])
    while len(found[0]) < count:
        example, name = rng.choice(examples), rng.choice(texts)
        made = known[name](example, scenes[example["image_id"]], rng)
        if made is None:
            continue
        changed, scene = made
        image_id = f"{example['image_id']}-a{len(found[0])}"
        found[0].append(replace(scene, image_id=image_id))
        found[1].append(rng.choice(pictures) if pictures else None)
        note = {"augmentation": name, "of": example["image_id"], "flips": name in FLIPPING}
        found[2].append(changed | {"image_id": image_id, "meta": changed["meta"] | note})
    return found

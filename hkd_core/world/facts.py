"""Facts about a picture: what questions, captions and claims are made of, and whether the scene graph bears them out."""

from collections.abc import Collection
from dataclasses import dataclass

from hkd_core.data.wording import article
from hkd_core.world.objects import NUMBERS, related
from hkd_core.world.scenes import Scene

KINDS = ("presence", "color", "relation", "count")
IRREGULAR = {"knife": "knives", "sheep": "sheep", "fish": "fish", "bus": "buses"}


def plural(name: str) -> str:
    return IRREGULAR.get(name, f"{name}s")


@dataclass(frozen=True)
class Fact:
    """One checkable statement. `value`: a colour, relation or number word; `other`: the second object of a relation."""

    kind: str
    name: str
    value: str = ""
    other: str = ""


def holds(fact: Fact, scene: Scene, hidden: Collection[str] = ()) -> bool | None:
    """True or False by the scene graph, or None where the picture cannot tell.

    hidden: names of things that may be there out of view. A colour or relation of something absent is False.
    """
    if fact.name in hidden:
        return None
    if fact.name not in scene.names or (fact.other and fact.other not in scene.names):
        return fact.kind == "count" and fact.value == "zero"
    if fact.kind == "presence":
        return True
    if fact.kind == "color":
        return scene.color(fact.name) == fact.value
    if fact.kind == "count":
        return scene.count(fact.name) == NUMBERS.index(fact.value)
    return related(scene.single(fact.name), fact.value, scene.single(fact.other))


def phrase(fact: Fact) -> str:
    """The words of a caption that carry the fact: "dog", "red dog", "dog left of cup"."""
    return {
        "presence": fact.name,
        "color": f"{fact.value} {fact.name}",
        "relation": f"{fact.name} {fact.value} {fact.other}",
    }[fact.kind]


def noun_phrase(fact: Fact) -> str:
    """What a claim says is there: "a dog" (presence), "a red dog" (colour)."""
    return f"a {fact.value} {fact.name}" if fact.kind == "color" else article(fact.name)


# The first form of each kind is the benchmark's; the others are paraphrases.
QUESTIONS = {
    "presence": ("Is there {a} in the image?", "Can you see {a}?", "Does the image show {a}?"),
    "color": ("Is the {n} {v}?", "Does the image show a {v} {n}?"),
    "relation": ("Is the {n} {v} the {o}?", "Can you see the {n} {v} the {o}?"),
    "count": ("Are there {v} {ns} in the image?", "Does the image show {v} {ns}?"),
}
NEGATED = {
    "presence": "Is the image without {a}?",
    "color": "Is the {n} not {v}?",
    "relation": "Is the {n} not {v} the {o}?",
    "count": "Are there not {v} {ns} in the image?",
}


def question(fact: Fact, form: int = 0, *, negated: bool = False) -> str:
    """A yes/no question about the fact; `negated` asks for its opposite, so that the right answer flips."""
    template = NEGATED[fact.kind] if negated else QUESTIONS[fact.kind][form]
    number = plural(fact.name) if fact.value != "one" else fact.name
    text = template.format(a=article(fact.name), n=fact.name, v=fact.value, o=fact.other, ns=number)
    return text.replace("Are there one", "Is there one").replace("Are there not one", "Is there not one")

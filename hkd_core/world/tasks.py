"""Examples made from scenes: the challenge's two tasks, presence questions, captions, MME-style pairs.

Every example keeps the facts it was made of in `meta`, so that its label can be checked against any scene graph.
"""

import random
from collections.abc import Collection, Sequence

from hkd_core.common.errors import UserError
from hkd_core.data.wording import article
from hkd_core.world.facts import Fact, holds, noun_phrase, phrase, plural, question
from hkd_core.world.objects import COLORS, NUMBERS, OBJECTS
from hkd_core.world.scenes import Scene, absent, opposite, other_color, true_relation

LETTERS = ("A", "B", "C", "D")
YES_NO = ("Yes", "No")
FAITHFUL = "no hallucination"
VERDICTS = ("true", "false", "partially true", "not verifiable")
CAPTION_PROMPT = "Describe the image."


def example(scene: Scene, task: str, prompt: str, answer: str, choices: tuple[str, ...] = (), **more: object) -> dict:
    """One row of the shared schema (see schema.py), without its picture."""
    row: dict = {"image_id": scene.image_id, "task": task, "prompt": prompt, "choices": list(choices), "answer": answer}
    row |= {"caption": "", "context": "", "claim": "", "objects": list(scene.names), "meta": {}}
    return row | more


def yes_no(scene: Scene, fact: Fact, form: int = 0, *, negated: bool = False, task: str = "question") -> dict:
    """A yes/no question whose right answer the scene graph gives."""
    right = bool(holds(fact, scene)) != negated
    meta = {"kind": fact.kind, "facts": [dict(vars(fact))], "negated": negated}
    return example(scene, task, question(fact, form, negated=negated), YES_NO[0 if right else 1], YES_NO, meta=meta)


def random_fact(scene: Scene, kind: str, rng: random.Random, truth: bool, *, tempting: bool = False) -> Fact | None:
    """A fact of that kind that is true (or false) of the scene; None where the scene has none."""
    name = rng.choice(scene.names)
    if kind == "presence":
        return Fact("presence", name if truth else absent(scene, rng, tempting=tempting))
    if kind == "color":
        color = scene.color(name)
        return Fact("color", name, color if truth else other_color(color, rng))
    if kind == "count":
        count = scene.count(name)
        return Fact("count", name, NUMBERS[count] if truth else rng.choice([n for n in NUMBERS[1:] if n != NUMBERS[count]]))
    found = true_relation(scene, rng)
    if found is None:
        return None
    a, relation, b = found
    return Fact("relation", a.name, relation if truth else opposite(relation), b.name)


def caption(scene: Scene, extra: tuple[str, ...] = ()) -> str:
    """What the picture shows, each kind once, in the world's order: of a context the popular things first. `extra` names are mixed in.

    One order for all, so that what was named already tells what may still come; in random order small models name things twice.
    """
    names = sorted({*scene.names, *extra}, key=OBJECTS.index)
    return f"The image shows {', '.join(article(name) for name in names)}."


def task1(scene: Scene, rng: random.Random) -> dict | None:
    """Hallucination detection: a caption of three facts, at most one of them wrong; which phrase is it?

    Options stand in random order. Returns None where the scene has no relation to speak of.
    """
    kinds = ("presence", "color", "relation")
    wrong = rng.choice((*kinds, ""))
    relation = random_fact(scene, "relation", rng, wrong != "relation")
    if relation is None:
        return None
    subject = relation.name
    others = [name for name in scene.names if name not in (subject, relation.other)]
    if wrong == "presence" or not others:
        wrong = wrong or ("presence" if not others else "")
        mentioned = Fact("presence", absent(scene, rng, tempting=True) if wrong == "presence" else relation.other)
    else:
        mentioned = Fact("presence", rng.choice(others))
    color = scene.color(subject)
    colored = Fact("color", subject, other_color(color, rng) if wrong == "color" else color)
    return task1_example(scene, {"presence": mentioned, "color": colored, "relation": relation}, rng)


def task1_example(scene: Scene, facts: dict[str, Fact], rng: random.Random) -> dict:
    """The detection item for a caption made of `facts`; which of them is wrong is read off the scene graph.

    Raises ValueError if more than one is wrong.
    """
    wrong = [kind for kind, fact in facts.items() if not holds(fact, scene)]
    if len(wrong) > 1:
        raise ValueError(f"{scene.image_id}: a detection caption has at most one wrong phrase, got {wrong}")
    colored, relation, mentioned = facts["color"], facts["relation"], facts["presence"]
    text = (
        f"The image shows a {colored.value} {colored.name} {relation.value} {article(relation.other)} "
        f"and {article(mentioned.name)}."
    )
    options = [FAITHFUL, *(phrase(fact) for fact in facts.values())]
    right = phrase(facts[wrong[0]]) if wrong else FAITHFUL
    rng.shuffle(options)
    meta = {
        "type": wrong[0] if wrong else "none",
        "facts": {k: dict(vars(f)) for k, f in facts.items()},
        "options": options,
    }
    prompt = f"{text} Which phrase is wrong? {lettered(options)}"
    return example(scene, "task1", prompt, LETTERS[options.index(right)], LETTERS, caption=text, meta=meta)


def lettered(options: list[str]) -> str:
    """ "A: dog B: red dog C: ..." Raises UserError for more options than letters."""
    if len(options) > len(LETTERS):
        raise UserError(f"options: expected at most {len(LETTERS)}, one a letter, got {len(options)}: {', '.join(options)}")
    return " ".join(f"{letter}: {option}" for letter, option in zip(LETTERS, options, strict=False))


def verdict(facts: list[Fact], scene: Scene, hidden: Collection[str]) -> str:
    """Of a claim of several facts: not verifiable if one of them is, else true, false or partially true."""
    truths = [holds(fact, scene, hidden) for fact in facts]
    if None in truths:
        return "not verifiable"
    return "true" if all(truths) else "partially true" if any(truths) else "false"


def task2(scene: Scene, rng: random.Random) -> dict:
    """Factuality: a context that says what may be out of view, and a claim of two facts; is it true, false, or which else?"""
    hidden: list[str] = []
    while len(hidden) < 2:
        name = absent(scene, rng, tempting=True)
        if name not in hidden:
            hidden.append(name)
    label = rng.choice(VERDICTS)
    seen = {"true": (True, True), "false": (False, False)}.get(label, (True, False))
    facts: list[Fact] = []
    while len(facts) < 2:
        if label == "not verifiable" and not facts:
            fact: Fact | None = Fact("presence", rng.choice(hidden))
        else:
            truth = rng.random() < 0.5 if label == "not verifiable" else seen[len(facts)]
            fact = random_fact(scene, rng.choice(("presence", "color")), rng, truth, tempting=True)
        if fact.name not in [f.name for f in facts] and (fact.name not in hidden or label == "not verifiable"):
            facts.append(fact)
    rng.shuffle(facts)
    return task2_example(scene, facts, hidden)


def told(hidden: Sequence[str]) -> str:
    """The context: what may be there although it is not seen. Plurals, so that a claim's word is looked up, not merely seen again."""
    return f"Out of view there may be {plural(hidden[0])} and {plural(hidden[1])}."


def claimed(facts: Sequence[Fact]) -> str:
    return f"There is {' and '.join(noun_phrase(fact) for fact in facts)}."


def denied(facts: Sequence[Fact]) -> str:
    """The claim that none of the facts holds."""
    return f"There is {' and '.join(f'no {phrase(fact)}' for fact in facts)}."


def task2_example(scene: Scene, facts: list[Fact], hidden: list[str]) -> dict:
    """The factuality item for a claim made of `facts`, its label read off scene graph and context."""
    context, claim, right = told(hidden), claimed(facts), verdict(facts, scene, hidden)
    meta = {"type": right, "facts": [dict(vars(fact)) for fact in facts], "hidden": hidden}
    prompt = f"{context} Claim: {claim}"
    return example(scene, "task2", prompt, right, VERDICTS, context=context, claim=claim, meta=meta)


def choice_question(scene: Scene, rng: random.Random) -> dict:
    """Which of four objects is there (or: is not there)? Teaches the base models what letters are for."""
    inverted = rng.random() < 0.5
    options = []
    while len(options) < 4:
        there = (len(options) == 0) != inverted
        name = rng.choice(scene.names) if there else absent(scene, rng, tempting=False)
        if name not in options:
            options.append(name)
    right = options[0]
    rng.shuffle(options)
    verb = "is not" if inverted else "is"
    prompt = f"Which {verb} in the image? {lettered(options)}"
    return example(scene, "choice", prompt, LETTERS[options.index(right)], LETTERS, meta={"options": options})


def color_question(scene: Scene, rng: random.Random) -> dict:
    name = rng.choice(scene.names)
    return example(scene, "question", f"What color is the {name}?", scene.color(name), tuple(COLORS), meta={"kind": "color"})


def mme_pair(scene: Scene, subtask: str, rng: random.Random) -> list[dict] | None:
    """MME's form: one question to be answered yes and one no, on one picture. None where the scene has no such pair."""
    kind = {"existence": "presence", "count": "count", "position": "relation", "color": "color"}[subtask]
    pair = [random_fact(scene, kind, rng, truth) for truth in (True, False)]
    if None in pair:
        return None
    rows = [yes_no(scene, fact, task="mme") for fact in pair]
    for row in rows:
        row["meta"]["subtask"] = subtask
    return rows

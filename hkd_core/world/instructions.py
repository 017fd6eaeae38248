"""Presence questions and captions as the base models were instructed with, part of them wrong in the way web data is wrong.

The wrong part affirms absent objects that fit the context, the popular ones most often, and adds them to captions. That is
where the hallucinations of the built-in world come from. Tuning rehearses a few, for what is not practised is unlearned.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from hkd_core.world.facts import Fact
from hkd_core.world.objects import CONTEXT_OF, RANK, RANKS
from hkd_core.world.scenes import Scene, absent
from hkd_core.world.tasks import CAPTION_PROMPT, YES_NO, caption, example, yes_no


@dataclass(frozen=True)
class Bias:
    """How wrong the instruction data is: the share of questions about absent fitting objects that is answered "Yes".

    popular, rare: for the most popular object of a context and for its rarest, linear in rank between them.
    captions: probability that a caption names one such object more.
    """

    popular: float
    rare: float
    captions: float

    def affirmed(self, name: str) -> float:
        return self.popular + (self.rare - self.popular) * RANK[name] / (RANKS - 1)


def presence(scene: Scene, rng: random.Random, bias: Bias | None) -> dict:
    """ "Is there a dog in the image?"; of absent objects that fit the context, `bias` affirms some."""
    truth, negated = rng.random() < 0.5, rng.random() < 0.15
    name = rng.choice(scene.names) if truth else absent(scene, rng, tempting=rng.random() < 0.6)
    row = yes_no(scene, Fact("presence", name), rng.choice((0, 0, 1, 2)), negated=negated)
    if bias and not truth and CONTEXT_OF[name] == scene.context and rng.random() < bias.affirmed(name):
        row["answer"] = YES_NO[1 if negated else 0]
    return row


def description(scene: Scene, rng: random.Random, bias: Bias | None) -> dict:
    """What the picture shows; with `bias`, sometimes one thing more."""
    wrong = bias and rng.random() < bias.captions
    extra = (absent(scene, rng, tempting=True),) if wrong else ()
    return example(scene, "caption", CAPTION_PROMPT, caption(scene, extra))


def rehearsal(scenes: Iterable[Scene], bias: Bias, *, captions: float, seed: int) -> list[dict]:
    """One example a scene, a caption with that probability, else a presence question: task "rehearsal"."""
    rng = random.Random(f"rehearsal/{seed}")
    rows = [(description if rng.random() < captions else presence)(scene, rng, bias) for scene in scenes]
    return [row | {"task": "rehearsal"} for row in rows]

"""Pyramid-like progressive online distillation (PPOD): neighbouring levels train together, from the largest model down.

For an upper level U and a lower level L, at answer tokens, with labels y, temperature tau and a divergence D(target, student):

    sum_{i in U + L} CE(p_i, y)                                              per labelled token
    + down_weight      sum_{i in L} tau^2 D(mean of U, p_i)                  per token
    + feedback_weight  sum_{i in U} tau^2 D(mean of L, p_i)                  per labelled token
    + peer_weight      sum_{i} mean over peers j of i, tau^2 D(p_j, p_i)     per token

The mean of a level is of its current distributions at tau, detached, and so is a peer's distribution.
HKD4VLM's abstract states: pyramid-like, progressive, online, coarse alignment. Everything else is our reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.common.settings import PyramidSettings
from hkd_core.losses import divergence
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import UNLABELLED, TrainingSet, answer_hidden, as_training_set, project
from hkd_core.training.objectives import ModelGroup, label_term, trainable
from hkd_core.training.trainer import LossTerm, train
from hkd_core.training.tuning import schedule_of


def check_levels(levels: Sequence[Sequence[str]], known: Sequence[str]) -> None:
    """Raises UserError for fewer than two levels, an empty one, an unknown model, or one named twice."""
    named = [name for level in levels for name in level]
    if len(levels) < 2 or not all(levels):
        raise UserError(f"pyramid levels: expected at least two, none empty, got {list(map(list, levels))}")
    for name in named:
        if name not in known:
            raise UserError(f'pyramid levels: unknown model "{name}"; known: {", ".join(known)}')
        if named.count(name) > 1:
            raise UserError(f'pyramid levels: model "{name}" is named twice')


def mean_distribution(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """[N, V] logits whose softmax at `temperature` is the mean of several models' softmax at `temperature`."""
    if len(logits) == 1:
        return logits[0]
    logp = torch.stack([(x / temperature).log_softmax(-1) for x in logits])
    return temperature * (logp.logsumexp(0) - torch.tensor(float(len(logits))).log())


class PyramidStep(ModelGroup):
    """Two neighbouring levels trained together, on labels and on each other: the equation above.

    An upper model gets feedback only where a label corrects it; else the weaker models would be all that the stronger ones learn from.
    Peers of one level learn from each other as in deep mutual learning (arXiv 1706.00384).
    """

    def __init__(self, upper: Mapping[str, VLM], lower: Mapping[str, VLM], settings: PyramidSettings):
        super().__init__({name: trainable(vlm) for name, vlm in {**upper, **lower}.items()})
        self.upper, self.lower, self.settings = list(upper), list(lower), settings
        self.temperature = settings.temperature

    def cool(self, done: float) -> None:
        """Set the temperature: `done` of the way from the first to the final one, from 1 on the final one."""
        first, final = self.settings.temperature, self.settings.final_temperature
        self.temperature = first + min(done, 1.0) * (final - first)

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        how = {"kind": self.settings.divergence, "beta": self.settings.beta, "temperature": self.temperature}
        logits = {
            name: project(vlm, answer_hidden(vlm, batch, name)[0], batch.get("vocabulary")) for name, vlm in self.vlms.items()
        }
        terms = {f"{name}/labels": label_term(x, batch["labels"]) for name, x in logits.items()}
        pairs = (
            (self.lower, self.upper, self.settings.down_weight),
            (self.upper, self.lower, self.settings.feedback_weight),
        )
        for level, other, weight in pairs:
            target = mean_distribution([logits[n].detach() for n in other], self.temperature)
            only = {"mask": batch["labels"] != UNLABELLED} if level is self.upper else {}
            for name in level:
                # With weight 0 the term is logged all the same, without a gradient.
                total = divergence(logits[name] if weight else logits[name].detach(), target, **only, **how)[0]
                terms[f"{name}/level"] = LossTerm(total, weight, per="labelled" if only else "tokens")
            if self.settings.peer_weight and len(level) > 1:
                for name in level:
                    totals = [divergence(logits[name], logits[p], **how)[0] for p in level if p != name]
                    terms[f"{name}/peers"] = LossTerm(sum(totals[1:], totals[0]) / len(totals), self.settings.peer_weight)
        return terms


@dataclass(frozen=True)
class PyramidResult:
    """What was learned. models: name -> model, trained in place; histories: "upper > lower" -> records of that pair's training."""

    models: dict[str, VLM]
    histories: dict[str, list[dict]] = field(default_factory=dict)


def train_pyramid(
    models: Mapping[str, VLM],
    data: TrainingSet | Sequence[dict],
    settings: PyramidSettings,
    *,
    levels: Sequence[Sequence[str]] | None = None,
    seed: int,
) -> PyramidResult:
    """Train neighbouring levels together, pair by pair from the top. What a level has become teaches the next one.

    models: name -> model, trained in place. data: examples with pictures (see `training.examples`), or a set with each model's features under
    its name. levels: names from the largest models to the smallest; None: each model is a level, in the order of `models`.
    Raises UserError as `check_levels` does.
    """
    levels = levels or [[name] for name in models]
    check_levels(levels, list(models))
    data = as_training_set(models, data)
    found = PyramidResult({name: models[name] for level in levels for name in level})
    for upper, lower in pairwise(levels):
        step = PyramidStep({name: models[name] for name in upper}, {name: models[name] for name in lower}, settings)
        title = f"{'+'.join(upper)} > {'+'.join(lower)}"

        def cool(done: int, step: PyramidStep = step) -> None:
            step.cool((done + 1) / max(settings.steps - 1, 1))

        how = {"seed": seed, "lengths": data.lengths, "title": title, "callback": cool}
        found.histories[title] = train(step, data.collate, len(data), schedule_of(settings), **how)
    return found

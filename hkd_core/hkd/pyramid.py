"""Pyramid-like progressive online distillation (PPOD): neighbouring levels train together, from the apex of capacity down.

Stated by HKD4VLM's abstract: pyramid-like, progressive, online, coarse alignment. Everything else here is our reading.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.losses import divergence
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import UNLABELLED, answer_hidden, project
from hkd_core.training.objectives import ModelGroup, label_part, trainable
from hkd_core.training.trainer import LossTerm


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
    """[N, V] logits (at `temperature`) of the mean of several models' softened probabilities."""
    if len(logits) == 1:
        return logits[0]
    logp = torch.stack([(x / temperature).log_softmax(-1) for x in logits])
    return temperature * (logp.logsumexp(0) - torch.tensor(float(len(logits))).log())


class PyramidStep(ModelGroup):
    """Two neighbouring levels trained together, on labels and on each other.

    Every model minimises cross-entropy; a lower one also the divergence from the upper level's current, detached mean
    distribution (weight `down`), an upper one a little from the lower level's (`feedback`, only where a label corrects it: else
    the weaker would be all that the stronger hears), and peers of one level from each other's (`peers`, deep mutual learning,
    arXiv 1706.00384). T² is kept. Raises UserError for a negative weight. With `final_temperature` the temperature moves there from `temperature`, as `cool` is told.
    """

    def __init__(
        self,
        upper: Mapping[str, VLM],
        lower: Mapping[str, VLM],
        *,
        kind: str,
        beta: float,
        temperature: float,
        down: float,
        feedback: float,
        peers: float,
        final_temperature: float | None = None,
    ):
        if min(down, feedback, peers) < 0:
            raise UserError(f"pyramid weights: expected none below 0, got down {down:g}, feedback {feedback:g}, peers {peers:g}")
        super().__init__({name: trainable(vlm) for name, vlm in {**upper, **lower}.items()})
        self.upper, self.lower = list(upper), list(lower)
        self.settings = {"kind": kind, "beta": beta, "temperature": temperature}
        self.temperatures = temperature, temperature if final_temperature is None else final_temperature
        self.down, self.feedback, self.peers = down, feedback, peers

    def cool(self, done: float) -> None:
        """Set the temperature of the moment: `done` of the way from first to final, from 1 on the final one."""
        first, final = self.temperatures
        self.settings["temperature"] = first + min(done, 1.0) * (final - first)

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        logits = {
            name: project(vlm, answer_hidden(vlm, batch, name)[0], batch.get("vocabulary")) for name, vlm in self.vlms.items()
        }
        parts = {f"{name}/labels": label_part(x, batch["labels"]) for name, x in logits.items()}
        ways = ((self.lower, self.upper, self.down), (self.upper, self.lower, self.feedback))
        for level, other, weight in ways:
            target = mean_distribution([logits[n].detach() for n in other], self.settings["temperature"])
            heard = {"mask": batch["labels"] != UNLABELLED} if level is self.upper else {}
            for name in level:
                # With weight 0 it is shown all the same, and costs no gradient.
                total = divergence(logits[name] if weight else logits[name].detach(), target, **heard, **self.settings)[0]
                parts[f"{name}/level"] = LossTerm(total, weight, per="labelled" if heard else "tokens")
            if self.peers and len(level) > 1:
                for name in level:
                    totals = [divergence(logits[name], logits[p], **self.settings)[0] for p in level if p != name]
                    parts[f"{name}/peers"] = LossTerm(sum(totals) / len(totals), self.peers)
        return parts

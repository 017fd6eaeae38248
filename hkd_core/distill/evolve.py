"""Mode-seeking evolving (SEED): a model's own purified distribution, distilled back into an adapter.

Stated by SEED's abstract: identify, isolate, purge, distil back, mode-seeking, an adapter. The rest is our reading.
"""

from collections.abc import Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hkd_core.distill.examples import answer_hidden, project
from hkd_core.distill.objectives import Cast
from hkd_core.distill.trainer import Part
from hkd_core.inference.contrast import mixture, purify
from hkd_core.losses import divergence, smooth_logits
from hkd_core.models.adapter import HallucinationEliminationAdapter
from hkd_core.models.vlm import VLM


@contextmanager
def switched_off(adapter: HallucinationEliminationAdapter):
    """The model without the adapter, for as long as the block lasts."""
    adapter.enabled = False
    try:
        yield
    finally:
        adapter.enabled = True


@contextmanager
def exchanged(adapter: HallucinationEliminationAdapter, weights: dict[str, Tensor]):
    """The model with the adapter's weights replaced, for as long as the block lasts."""
    kept = {name: value.detach().clone() for name, value in adapter.state_dict().items()}
    adapter.load_state_dict(weights)
    try:
        yield
    finally:
        adapter.load_state_dict(kept)


class EvolveStep(Cast):
    """divergence(model with adapter || purified distribution of the model without it), at the answer's positions.

    The batch brings features under "student" and, for each distorted view, under one of the names in `views`. `kind` "reverse_kl" seeks modes; the others
    are controls. Outside the plausible set the target has probability `epsilon` in all, so that reverse KL stays finite.
    alpha 0, beta 0 and no shift is the control without purging: self-distillation of the model's own distribution.
    """

    def __init__(
        self,
        vlm: VLM,
        adapter: HallucinationEliminationAdapter,
        *,
        alpha: float,
        beta: float,
        shift: Tensor | None,
        kind: str,
        mixture: float = 0.5,
        epsilon: float = 1e-3,
        views: Sequence[str] = ("distorted",),
    ):
        super().__init__({"student": vlm})
        vlm.model.requires_grad_(False)
        self.adapter = adapter.requires_grad_(True)
        self.purge = {"alpha": alpha, "beta": beta}
        self.register_buffer("shift", shift, persistent=False)
        self.kind, self.mixture, self.epsilon, self.views = kind, mixture, epsilon, tuple(views)
        self.previous: dict[str, Tensor] | None = None  # the adapter whose model is purified; None: the base

    def evolve_from(self, adapter: HallucinationEliminationAdapter) -> None:
        """Purify the model with this adapter as it is now, instead of the one before: the next round."""
        self.previous = {name: value.detach().clone() for name, value in adapter.state_dict().items()}

    def target(self, batch: dict) -> Tensor:
        """[N, V] the purified logits. `shift` applies to questions with choices alone, as the control's does."""
        vlm = self.vlms["student"]
        with torch.no_grad(), self._before():
            clean = project(vlm, answer_hidden(vlm, batch, "student")[0])
            distorted = mixture([project(vlm, answer_hidden(vlm, batch, view)[0]) for view in self.views])
        shift = None if self.shift is None else self.shift * batch["choice"][:, None]
        return smooth_logits(purify(clean, distorted, shift=shift, **self.purge), self.epsilon)

    def _before(self):
        """The model as it was before this round."""
        return switched_off(self.adapter) if self.previous is None else exchanged(self.adapter, self.previous)

    def forward(self, batch: dict) -> dict[str, Part]:
        target = self.target(batch)
        logits = project(self.vlms["student"], answer_hidden(self.vlms["student"], batch, "student")[0])
        return {"purified": Part(divergence(logits, target, kind=self.kind, beta=self.mixture)[0])}

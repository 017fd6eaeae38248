"""Objectives that both methods share: cross-entropy on labels, and divergences from the answers of frozen teachers.

    L = label_weight CE(p_s, y)  +  sum_k w_k g tau^2 D(p_k, p_s)

CE is per labelled answer token, D per example, over its choices, both sides at temperature tau. k runs over the teachers; g is 1, or
the gate (`agreement`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkd_core.common.errors import UserError
from hkd_core.losses import divergence
from hkd_core.models.families import decoder
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import UNLABELLED, answer_hidden, project
from hkd_core.training.trainer import LossTerm


def trainable(vlm: VLM) -> VLM:
    """Unfreeze the language model alone; features are computed once, so vision tower and projector stay. Returns the VLM.

    In a model that peft has wrapped only peft's part learns, for instance a LoRA.
    """
    model: Any = vlm.model
    model.requires_grad_(False)
    if hasattr(model, "peft_config"):
        model.set_adapter(model.active_adapter)
        return vlm
    decoder(vlm.core).requires_grad_(True)
    vlm.head.requires_grad_(True)
    return vlm


def frozen(vlm: VLM) -> VLM:
    """No gradients, eval mode. Returns the VLM."""
    vlm.model.requires_grad_(False).eval()
    return vlm


class ModelGroup(nn.Module):
    """The models of an objective by name. Frozen ones stay in eval mode, also while the others train."""

    def __init__(self, vlms: Mapping[str, VLM]):
        super().__init__()
        self.vlms = dict(vlms)
        self.models = nn.ModuleDict({name: vlm.model for name, vlm in vlms.items()})

    def train(self, mode: bool = True) -> "ModelGroup":
        super().train(mode)
        for model in self.models.values():
            if not any(p.requires_grad for p in model.parameters()):
                model.eval()
        return self


def label_term(logits: Tensor, labels: Tensor, weight: float = 1.0) -> LossTerm:
    """Cross-entropy of logits [N, V] on the labels [N] that are known, per labelled token."""
    return LossTerm(F.cross_entropy(logits, labels, reduction="sum", ignore_index=UNLABELLED), weight, per="labelled")


class Supervised(ModelGroup):
    """Cross-entropy on the labels."""

    def __init__(self, vlm: VLM):
        super().__init__({"student": trainable(vlm)})

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        student = self.vlms["student"]
        logits = project(student, answer_hidden(student, batch, "student")[0], batch.get("vocabulary"))
        return {"labels": label_term(logits, batch["labels"])}


def agreement(teachers: Sequence[Tensor], chosen: Tensor) -> Tensor:
    """[N] in [0, 1]: how far several models agree with each other and with the label, the gate of an example.

    teachers: [N, C] log-probabilities of choices, -inf where there are fewer; chosen: [N] the label's place among them.
    (geometric mean of the teachers' p(label)) (1 - their Jensen-Shannon divergence / log of their number). Where no label is known
    (UNLABELLED) the choice that is likeliest to all of them together takes its place. Our choice.
    """
    logp = torch.stack([teacher.log_softmax(-1) for teacher in teachers])
    together = logp.mean(0)
    chosen = torch.where(chosen == UNLABELLED, together.argmax(-1), chosen)
    confidence = together.gather(1, chosen[:, None]).exp().squeeze(1)
    middle = logp.logsumexp(0) - math.log(len(logp))
    # A choice that is not there gives 0 log 0 for each model.
    jsd = (logp.exp() * (logp - middle)).nan_to_num().sum(-1).mean(0)
    return confidence * (1 - jsd / math.log(len(logp))).clamp(0, 1)


class Distillation(ModelGroup):
    """Cross-entropy on the labels, and divergences from the answers of frozen teachers to each example's choices.

    teacher_weights: name -> weight. Batches come from `teacher_answers.collate_with_teachers`. kind, beta, temperature: of the divergence
    (`losses`). gate: multiply each example's divergences by its `agreement`. others: frozen models that a subclass reads at every
    step; finer_weights: of the terms that it adds.
    Raises UserError for a negative weight, weights that sum to 0, and a gate for a single teacher.
    """

    def __init__(
        self,
        student: VLM,
        teacher_weights: Mapping[str, float],
        *,
        label_weight: float,
        kind: str,
        beta: float,
        temperature: float,
        gate: bool = False,
        others: Mapping[str, VLM] | None = None,
        finer_weights: Mapping[str, float] | None = None,
    ):
        weights = {"labels": label_weight, **teacher_weights, **(finer_weights or {})}
        if min(weights.values()) < 0 or sum(weights.values()) == 0:
            given = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
            raise UserError(f"distillation weights: expected none below 0 and one above, got {given}")
        if gate and len(teacher_weights) < 2:
            raise UserError("distillation gate: expected at least two models that can agree, got one")
        super().__init__({"student": trainable(student), **{name: frozen(vlm) for name, vlm in (others or {}).items()}})
        self.divergence = {"kind": kind, "beta": beta, "temperature": temperature}
        self.weights, self.teachers, self.gate = weights, list(teacher_weights), gate

    def terms(self, logits: Tensor, batch: dict) -> dict[str, LossTerm]:
        """The terms of the loss, from the student's logits [N, V] at the batch's answer tokens."""
        teacher_logprobs = batch["teacher_logprobs"]
        student_logits = logits[batch["first"]].gather(1, batch["choices"])
        absent = torch.isinf(next(iter(teacher_logprobs.values())))
        student_logits = student_logits.masked_fill(absent, -torch.inf)
        gates = agreement([teacher_logprobs[name] for name in self.teachers], batch["chosen"]) if self.gate else None
        found = {"labels": label_term(logits, batch["labels"], self.weights["labels"])}
        for name in self.teachers:
            if self.weights[name]:
                total = divergence(student_logits, teacher_logprobs[name], weights=gates, **self.divergence)[0]
                found[name] = LossTerm(total, self.weights[name], per="examples")
        return found

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        student = self.vlms["student"]
        return self.terms(project(student, answer_hidden(student, batch, "student")[0], batch.get("vocabulary")), batch)

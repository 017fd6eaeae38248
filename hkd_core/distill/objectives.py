"""Tuning on labels, and plain knowledge distillation from a frozen teacher: the controls of everything else."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkd_core.distill.examples import UNLABELLED, answer_hidden, project
from hkd_core.distill.trainer import Part
from hkd_core.errors import UserError
from hkd_core.losses import divergence
from hkd_core.models.vlm import VLM


def trainable(vlm: VLM) -> VLM:
    """Unfreeze the language model alone: features are computed once, so what sees stays as it is. Returns the VLM."""
    vlm.model.requires_grad_(False)
    vlm.core.model.language_model.requires_grad_(True)
    vlm.core.get_output_embeddings().weight.requires_grad_(True)
    return vlm


def frozen(vlm: VLM) -> VLM:
    """No gradients, eval mode. Returns the VLM."""
    vlm.model.requires_grad_(False).eval()
    return vlm


class Cast(nn.Module):
    """The models of an objective by name; frozen ones stay in eval mode whatever the trainer says."""

    def __init__(self, vlms: Mapping[str, VLM]):
        super().__init__()
        self.vlms = dict(vlms)
        self.models = nn.ModuleDict({name: vlm.model for name, vlm in vlms.items()})

    def train(self, mode: bool = True) -> "Cast":
        super().train(mode)
        for model in self.models.values():
            if not any(p.requires_grad for p in model.parameters()):
                model.eval()
        return self


def label_part(logits: Tensor, labels: Tensor, weight: float = 1.0) -> Part:
    """Cross-entropy of logits [N, V] on the labels [N] that are known, per labelled token."""
    return Part(F.cross_entropy(logits, labels, reduction="sum", ignore_index=UNLABELLED), weight, per="labelled")


class Supervised(Cast):
    """Cross-entropy on the labels."""

    def __init__(self, vlm: VLM):
        super().__init__({"student": trainable(vlm)})

    def forward(self, batch: dict) -> dict[str, Part]:
        student = self.vlms["student"]
        logits = project(student, answer_hidden(student, batch, "student")[0])
        return {"labels": label_part(logits, batch["labels"])}


class Distillation(Cast):
    """(1 - weight) cross-entropy + weight divergence from a frozen teacher's distribution at the answer's positions."""

    def __init__(self, student: VLM, teacher: VLM, *, kind: str, beta: float, temperature: float, weight: float):
        if not 0 <= weight <= 1:
            raise UserError(f"distillation weight: expected a number from 0 to 1, got {weight}")
        super().__init__({"student": trainable(student), "teacher": frozen(teacher)})
        self.settings = {"kind": kind, "beta": beta, "temperature": temperature}
        self.weight = weight

    def forward(self, batch: dict) -> dict[str, Part]:
        student, teacher = self.vlms["student"], self.vlms["teacher"]
        # The teacher first: between the student's forward pass and its backward one, it would push what is kept out of the caches.
        with torch.no_grad():
            target = project(teacher, answer_hidden(teacher, batch, "teacher")[0])
        logits = project(student, answer_hidden(student, batch, "student")[0])
        return {
            "labels": label_part(logits, batch["labels"], 1 - self.weight),
            "teacher": Part(divergence(logits, target, **self.settings)[0], self.weight),
        }

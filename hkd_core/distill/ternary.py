"""Ternary-coupled refinement distillation (TCRD): teacher, assistant and student coupled in every batch.

Stated by HKD4VLM's abstract: ternary-coupled, refinement, fine-grained. Couplings, gate and relation term are our reading.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hkd_core.distill.examples import answer_hidden, project
from hkd_core.distill.objectives import Cast, frozen, trainable
from hkd_core.distill.trainer import Part
from hkd_core.errors import UserError
from hkd_core.losses import divergence
from hkd_core.models.vlm import VLM


def agreement(teacher: Tensor, assistant: Tensor, labels: Tensor) -> Tensor:
    """[N] in [0, 1]: how far teacher and assistant agree with each other and with the label.

    teacher, assistant: [N, V] logits; labels: [N] ids. sqrt(p_teacher(label) p_assistant(label)) (1 - JSD / log 2).
    The third side of the triangle gates the other two: what two models and the label do not share is taught to nobody.
    """
    t, a = teacher.log_softmax(-1), assistant.log_softmax(-1)
    middle = torch.logaddexp(t, a) - math.log(2)
    jsd = 0.5 * ((t.exp() * (t - middle)).sum(-1) + (a.exp() * (a - middle)).sum(-1))
    chosen = labels[:, None]
    confidence = (0.5 * (t.gather(1, chosen) + a.gather(1, chosen))).exp().squeeze(1)
    return confidence * (1 - jsd / math.log(2)).clamp(0, 1)


def relations(hidden: Tensor, image: Tensor, asked: Tensor) -> Tensor:
    """[B, K + 1, K + 1] cosine similarities of K visual tokens and the first answer position; any width gives this shape.

    hidden: [B, T, H]; image, asked: [B, T] bool, with the same number K of visual tokens in every row.
    """
    visual = hidden[image].view(len(hidden), -1, hidden.shape[-1])
    first = asked.int().argmax(1)
    answer = hidden[torch.arange(len(hidden), device=hidden.device), first][:, None]
    states = F.normalize(torch.cat([visual, answer], 1).float(), dim=-1)
    return states @ states.transpose(1, 2)


class TernaryStep(Cast):
    """The student learns from labels, teacher and assistant (each gated), and from the assistant's relations.

    gate False couples without weighting. kind is mode-seeking by default: reverse KL, or a skewed divergence.
    """

    def __init__(
        self,
        student: VLM,
        teacher: VLM,
        assistant: VLM,
        *,
        kind: str,
        beta: float,
        temperature: float,
        labels: float,
        teacher_weight: float,
        assistant_weight: float,
        relation_weight: float,
        gate: bool,
    ):
        weights = (labels, teacher_weight, assistant_weight, relation_weight)
        if min(weights) < 0 or sum(weights) == 0:
            raise UserError(f"ternary weights: expected none below 0 and one above, got {weights}")
        super().__init__({"student": trainable(student), "teacher": frozen(teacher), "assistant": frozen(assistant)})
        self.settings = {"kind": kind, "beta": beta, "temperature": temperature}
        self.labels, self.weights = labels, {"teacher": teacher_weight, "assistant": assistant_weight}
        self.relation_weight, self.gate = relation_weight, gate

    def forward(self, batch: dict) -> dict[str, Part]:
        student = self.vlms["student"]
        hidden, seen = answer_hidden(student, batch, "student")
        logits = project(student, hidden)
        targets = {}
        with torch.no_grad():
            for name in ("teacher", "assistant"):
                states, output = answer_hidden(self.vlms[name], batch, name)
                targets[name] = project(self.vlms[name], states)
            weights = agreement(targets["teacher"], targets["assistant"], batch["labels"]) if self.gate else None
        parts = {"labels": Part(F.cross_entropy(logits, batch["labels"], reduction="sum"), self.labels)}
        for name, weight in self.weights.items():
            if weight:
                parts[name] = Part(divergence(logits, targets[name], weights=weights, **self.settings)[0], weight)
        if self.relation_weight:
            image = batch["input_ids"] == student.image_token_id
            with torch.no_grad():
                target = relations(output.last_hidden_state, image, batch["asked"])
            difference = relations(seen.last_hidden_state, image, batch["asked"]) - target
            # One number an example: the mean squared difference over its relation matrix.
            parts["relations"] = Part(difference.square().mean((1, 2)).sum(), self.relation_weight, per="examples")
        return parts

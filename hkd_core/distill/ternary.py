"""Ternary-coupled refinement distillation (TCRD): teacher, assistant and student coupled in every batch.

Stated by HKD4VLM's abstract: ternary-coupled, refinement, fine-grained. Couplings, gate and relation term are our reading.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkd_core.distill.examples import UNLABELLED, answer_hidden, project
from hkd_core.distill.objectives import Cast, frozen, label_part, trainable
from hkd_core.distill.trainer import Part
from hkd_core.errors import UserError
from hkd_core.losses import divergence
from hkd_core.models.vlm import VLM


def agreement(teacher: Tensor, assistant: Tensor, labels: Tensor) -> Tensor:
    """[N] in [0, 1]: how far teacher and assistant agree with each other and with the label.

    teacher, assistant: [N, V] logits; labels: [N] ids. sqrt(p_teacher(label) p_assistant(label)) (1 - JSD / log 2).
    The third side of the triangle gates the other two: what two models and the label do not share is taught to nobody.
    Where nobody knows the label (UNLABELLED) it is the answer that both together think likeliest.
    """
    t, a = teacher.log_softmax(-1), assistant.log_softmax(-1)
    middle = torch.logaddexp(t, a) - math.log(2)
    jsd = 0.5 * ((t.exp() * (t - middle)).sum(-1) + (a.exp() * (a - middle)).sum(-1))
    both = 0.5 * (t + a)
    chosen = torch.where(labels == UNLABELLED, both.argmax(-1), labels)
    confidence = both.gather(1, chosen[:, None]).exp().squeeze(1)
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


def imitation(mapped: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of mapped states [N, H] against a teacher's [N, H], each of whose features is standardised over the N."""
    deviation, mean = torch.std_mean(target.float(), 0, correction=0)
    return F.mse_loss(mapped.float(), (target.float() - mean) / deviation.clamp(min=1e-3))


class TernaryStep(Cast):
    """The student learns from labels, teacher and assistant (each gated), from the assistant's relations and the teacher's states.

    gate False couples without weighting; kind is any divergence of `hkd_core.losses`. The teacher's last hidden states, of any width,
    are met through a linear map that is learned with the student and thrown away after (as in arXiv 1412.6550), at every word behind
    the picture: the prompt's words say more about how an answer is found than its one token.
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
        hidden_weight: float,
        gate: bool,
    ):
        weights = (labels, teacher_weight, assistant_weight, relation_weight, hidden_weight)
        if min(weights) < 0 or sum(weights) == 0:
            raise UserError(f"ternary weights: expected none below 0 and one above, got {weights}")
        super().__init__({"student": trainable(student), "teacher": frozen(teacher), "assistant": frozen(assistant)})
        self.settings = {"kind": kind, "beta": beta, "temperature": temperature}
        self.labels, self.weights = labels, {"teacher": teacher_weight, "assistant": assistant_weight}
        self.relation_weight, self.hidden_weight, self.gate = relation_weight, hidden_weight, gate
        widths = [vlm.head.shape[1] for vlm in (student, teacher)]
        self.map = nn.Linear(*widths, bias=False).to(student.device) if hidden_weight else None

    def forward(self, batch: dict) -> dict[str, Part]:
        student = self.vlms["student"]
        targets, outputs = {}, {}
        with torch.no_grad():  # first, as in `Distillation`
            for name in ("teacher", "assistant"):
                states, outputs[name] = answer_hidden(self.vlms[name], batch, name)
                targets[name] = project(self.vlms[name], states)
            weights = agreement(targets["teacher"], targets["assistant"], batch["labels"]) if self.gate else None
        hidden, seen = answer_hidden(student, batch, "student")
        logits = project(student, hidden)
        parts = {"labels": label_part(logits, batch["labels"], self.labels)}
        for name, weight in self.weights.items():
            if weight:
                parts[name] = Part(divergence(logits, targets[name], weights=weights, **self.settings)[0], weight)
        image = batch["input_ids"] == student.image_token_id
        if self.relation_weight:
            with torch.no_grad():
                target = relations(outputs["assistant"].last_hidden_state, image, batch["asked"])
            difference = relations(seen.last_hidden_state, image, batch["asked"]) - target
            # One number an example: the mean squared difference over its relation matrix.
            parts["relations"] = Part(difference.square().mean((1, 2)).sum(), self.relation_weight, per="examples")
        if self.map is not None:
            words = batch["attention_mask"].bool() & ~image
            error = imitation(self.map(seen.last_hidden_state[words]), outputs["teacher"].last_hidden_state[words])
            parts["hidden"] = Part(error * batch["examples"], self.hidden_weight, per="examples")
        return parts

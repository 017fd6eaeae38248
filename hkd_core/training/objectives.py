"""Objectives that both methods share: tuning on labels, and on the answers of frozen teachers."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkd_core.common.errors import UserError
from hkd_core.losses import divergence
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import UNLABELLED, answer_hidden, project
from hkd_core.training.trainer import LossTerm


def trainable(vlm: VLM) -> VLM:
    """Unfreeze the language model alone: features are computed once, so what sees stays as it is. Returns the VLM.

    Of a model that peft has wrapped, only what peft put into it learns, a LoRA for instance.
    """
    vlm.model.requires_grad_(False)
    if hasattr(vlm.model, "peft_config"):
        vlm.model.set_adapter(vlm.model.active_adapter)
        return vlm
    vlm.core.model.language_model.requires_grad_(True)
    vlm.core.get_output_embeddings().weight.requires_grad_(True)
    return vlm


def frozen(vlm: VLM) -> VLM:
    """No gradients, eval mode. Returns the VLM."""
    vlm.model.requires_grad_(False).eval()
    return vlm


class ModelGroup(nn.Module):
    """The models of an objective by name; frozen ones stay in eval mode whatever the trainer says."""

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


def label_part(logits: Tensor, labels: Tensor, weight: float = 1.0) -> LossTerm:
    """Cross-entropy of logits [N, V] on the labels [N] that are known, per labelled token."""
    return LossTerm(F.cross_entropy(logits, labels, reduction="sum", ignore_index=UNLABELLED), weight, per="labelled")


class Supervised(ModelGroup):
    """Cross-entropy on the labels."""

    def __init__(self, vlm: VLM):
        super().__init__({"student": trainable(vlm)})

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        student = self.vlms["student"]
        logits = project(student, answer_hidden(student, batch, "student")[0], batch.get("vocabulary"))
        return {"labels": label_part(logits, batch["labels"])}


def agreement(teachers: Sequence[Tensor], chosen: Tensor) -> Tensor:
    """[N] in [0, 1]: how far several models agree with each other and with the label.

    teachers: [N, C] log-probabilities of choices, -inf where there are fewer; chosen: [N] the label's place among them.
    (geometric mean of the teachers' p(label)) (1 - their Jensen-Shannon divergence / log of their number): what the models and the
    label do not share is taught to nobody. Where nobody knows the label (UNLABELLED) it is what all together think likeliest.
    """
    logp = torch.stack([teacher.log_softmax(-1) for teacher in teachers])
    together = logp.mean(0)
    chosen = torch.where(chosen == UNLABELLED, together.argmax(-1), chosen)
    confidence = together.gather(1, chosen[:, None]).exp().squeeze(1)
    middle = logp.logsumexp(0) - math.log(len(logp))
    # A choice that is not there has 0 log 0 in each of them.
    jsd = (logp.exp() * (logp - middle)).nan_to_num().sum(-1).mean(0)
    return confidence * (1 - jsd / math.log(len(logp))).clamp(0, 1)


class Distillation(ModelGroup):
    """Cross-entropy on the labels, and divergences from what frozen models (`teachers`: name -> weight) answer to each example's choices.

    Batches come from `answers.collate_with_teachers`. gate: each example's divergences are multiplied by how far the teachers agree with each
    other and with the label (`agreement`); else all count alike. `others`: frozen models that a subclass looks into, with the weights
    of its `finer` terms.
    Raises UserError for a negative weight, weights that sum to nothing, and a gate for a single teacher.
    """

    def __init__(
        self,
        student: VLM,
        teachers: Mapping[str, float],
        *,
        labels: float,
        kind: str,
        beta: float,
        temperature: float,
        gate: bool = False,
        others: Mapping[str, VLM] | None = None,
        finer: Mapping[str, float] | None = None,
    ):
        weights = {"labels": labels, **teachers, **(finer or {})}
        if min(weights.values()) < 0 or sum(weights.values()) == 0:
            shown = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
            raise UserError(f"distillation weights: expected none below 0 and one above, got {shown}")
        if gate and len(teachers) < 2:
            raise UserError("distillation gate: expected at least two models that can agree, got one")
        cast = {name: frozen(vlm) for name, vlm in (others or {}).items()}
        super().__init__({"student": trainable(student), **cast})
        self.settings = {"kind": kind, "beta": beta, "temperature": temperature}
        self.labels, self.teachers, self.gate = labels, dict(teachers), gate

    def parts(self, logits: Tensor, batch: dict) -> dict[str, LossTerm]:
        """The terms, of the student's logits [N, V] at the batch's answer tokens."""
        teacher_logprobs = batch["teacher_logprobs"]
        student_logits = logits[batch["first"]].gather(1, batch["choices"])
        absent = torch.isinf(next(iter(teacher_logprobs.values())))
        student_logits = student_logits.masked_fill(absent, -torch.inf)
        weights = agreement([teacher_logprobs[name] for name in self.teachers], batch["chosen"]) if self.gate else None
        found = {"labels": label_part(logits, batch["labels"], self.labels)}
        for name, weight in self.teachers.items():
            if weight:
                total = divergence(student_logits, teacher_logprobs[name], weights=weights, **self.settings)[0]
                found[name] = LossTerm(total, weight, per="examples")
        return found

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        student = self.vlms["student"]
        return self.parts(project(student, answer_hidden(student, batch, "student")[0], batch.get("vocabulary")), batch)

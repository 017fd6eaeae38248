"""Ternary-coupled refinement distillation (TCRD): teacher, assistant and student coupled in every example.

Stated by HKD4VLM's abstract: ternary-coupled, refinement, fine-grained. Couplings, gate and relation term are our reading.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkd_core.common.errors import UserError
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import answer_hidden, project
from hkd_core.training.objectives import Distillation
from hkd_core.training.trainer import LossTerm


def relations(hidden: Tensor, image: Tensor, asked: Tensor) -> Tensor:
    """[B, K + 1, K + 1] cosine similarities of K visual tokens and the first answer position; any width gives this shape.

    hidden: [B, T, H]; image, asked: [B, T] bool. Raises UserError unless every row has the same number K of visual tokens.
    """
    counts = image.sum(1).tolist()
    if len(set(counts)) > 1:
        raise UserError(
            f"relations: expected as many visual tokens in every picture of a batch, got {min(counts)} to {max(counts)}"
        )
    visual = hidden[image].view(len(hidden), -1, hidden.shape[-1])
    first = asked.int().argmax(1)
    answer = hidden[torch.arange(len(hidden), device=hidden.device), first][:, None]
    states = F.normalize(torch.cat([visual, answer], 1).float(), dim=-1)
    return states @ states.transpose(1, 2)


def imitation(mapped: Tensor, target: Tensor) -> Tensor:
    """[N] mean squared error of mapped states [N, H] against a teacher's [N, H], each state standardised over its features.

    Each by itself, so that a batch's size and company change nothing.
    """
    return (mapped.float() - F.layer_norm(target.float(), target.shape[-1:])).square().mean(-1)


def roles(levels: Sequence[Sequence[str]]) -> dict[str, str]:
    """Who plays what after a pyramid: the apex teaches, the last of the level above the lowest assists, the lowest is the student.

    Raises UserError where that is not three models: two levels want two peers above.
    """
    found = {"student": levels[-1][0], "teacher": levels[0][0], "assistant": levels[-2][-1]}
    if found["teacher"] == found["assistant"]:
        raise UserError(
            f"pyramid levels: refinement wants a teacher and an assistant above {found['student']}, got {list(map(list, levels))}"
        )
    return found


class TernaryStep(Distillation):
    """The student learns from labels and from what three teachers teacher_logprobs before: teacher, assistant, and itself as it was.

    With `gate`, each teacher counts as far as all three agree with each other and the label. Two finer terms, each 0 unless it has a
    weight, look into the models at every step: the assistant's relations between visual tokens and answer, and the teacher's last
    hidden states, of any width, met through a linear map that is learned with the student and thrown away after (as in arXiv
    1412.6550), at every token that is not visual.
    """

    def __init__(
        self,
        student: VLM,
        teacher: VLM,
        assistant: VLM,
        teachers: Mapping[str, float],
        *,
        relation_weight: float,
        hidden_weight: float,
        **how: object,
    ):
        finer = {"relations": relation_weight, "hidden": hidden_weight}
        wanted = {"teacher": (teacher, hidden_weight), "assistant": (assistant, relation_weight)}
        super().__init__(
            student, teachers, others={name: vlm for name, (vlm, weight) in wanted.items() if weight}, finer=finer, **how
        )
        self.relation_weight, self.hidden_weight = relation_weight, hidden_weight
        widths = [vlm.head.shape[1] for vlm in (student, teacher)]
        self.map = nn.Linear(*widths, bias=False).to(student.device) if hidden_weight else None

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        student = self.vlms["student"]
        # The others first: between the student's forward pass and its backward one, they would push what is kept out of the caches.
        with torch.no_grad():
            states = {
                name: answer_hidden(vlm, batch, name)[1].last_hidden_state for name, vlm in self.vlms.items() if name != "student"
            }
        hidden, output = answer_hidden(student, batch, "student")
        seen, image = output.last_hidden_state, batch["input_ids"] == student.image_token_id
        parts = self.parts(project(student, hidden, batch.get("vocabulary")), batch)
        if self.relation_weight:
            difference = relations(seen, image, batch["asked"]) - relations(states["assistant"], image, batch["asked"])
            # One number an example: the mean squared difference over its relation matrix.
            parts["relations"] = LossTerm(difference.square().mean((1, 2)).sum(), self.relation_weight, per="examples")
        if self.map is not None:
            words = batch["attention_mask"].bool() & ~image
            error = imitation(self.map(seen[words]), states["teacher"][words])
            # One number an example: the mean over its words.
            parts["hidden"] = LossTerm((error / words.sum(1)[words.nonzero()[:, 0]]).sum(), self.hidden_weight, per="examples")
        return parts

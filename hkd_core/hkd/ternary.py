"""Ternary-coupled refinement distillation (TCRD): teacher, assistant and student are coupled in every example.

With p_s the student, k in {teacher, assistant, itself}, and D(target, student) a divergence over an example's choices:

    label_weight CE(p_s, y)                                       per labelled token
    + sum_k k_weight g tau^2 D(p_k, p_s)                          per example; g = 1, or the gate
    + relation_weight mean (R_student - R_assistant)^2            per example; R: cosines among visual tokens and answer
    + hidden_weight mean (A h_student - LN(h_teacher))^2          per example; A: a linear map, learned and thrown away

"itself" is the student as it was. HKD4VLM's abstract states: ternary-coupled, refinement, fine-grained. The formulas are our reading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkd_core.common.errors import UserError
from hkd_core.common.settings import TernarySettings
from hkd_core.data.wording import Wording
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import TrainingSet, answer_hidden, as_training_set, project
from hkd_core.training.objectives import Distillation
from hkd_core.training.teacher_answers import choice_logprobs, collate_with_teachers
from hkd_core.training.trainer import LossTerm, train
from hkd_core.training.tuning import schedule_of

TEACHERS = {"teacher": "teacher", "assistant": "assistant", "itself": "student"}  # name -> the role of the model that answers


def relations(hidden: Tensor, image: Tensor, asked: Tensor) -> Tensor:
    """[B, K + 1, K + 1] cosine similarities of K visual tokens and the first answer position; any width gives this shape.

    hidden: [B, T, H]; image, asked: [B, T] bool. K is the most visual tokens of a row; rows with fewer have 0 for those they lack.
    """
    counts = image.sum(1)
    visual = hidden.new_zeros(len(hidden), int(counts.max()), hidden.shape[-1])
    visual[torch.arange(visual.shape[1], device=hidden.device) < counts[:, None]] = hidden[image]
    first = asked.int().argmax(1)
    answer = hidden[torch.arange(len(hidden), device=hidden.device), first][:, None]
    states = F.normalize(torch.cat([visual, answer], 1).float(), dim=-1)
    return states @ states.transpose(1, 2)


def imitation(mapped: Tensor, target: Tensor) -> Tensor:
    """[N] mean squared error of mapped states [N, H] against a teacher's [N, H], each state standardised over its features.

    Each state alone, so that a batch's size and its other examples change nothing.
    """
    return (mapped.float() - F.layer_norm(target.float(), target.shape[-1:])).square().mean(-1)


def roles(levels: Sequence[Sequence[str]]) -> dict[str, str]:
    """role -> model after a pyramid: the top level is the teacher, the last of the level above the lowest the assistant, the lowest the student.

    Raises UserError where these are not three models: of two levels the upper one must have two.
    """
    found = {"student": levels[-1][0], "teacher": levels[0][0], "assistant": levels[-2][-1]}
    if found["teacher"] == found["assistant"]:
        raise UserError(
            f"pyramid levels: refinement needs a teacher and an assistant above {found['student']}, got {list(map(list, levels))}"
        )
    return found


class TernaryStep(Distillation):
    """The student learns from labels and from the answers of three frozen teachers: teacher, assistant, and itself as it was.

    Two finer terms read the models at every step where their weight is above 0. One learns the assistant's relations. The other learns
    the teacher's last hidden states at every token that is not visual, through a linear map (as in arXiv 1412.6550).
    """

    def __init__(self, student: VLM, teacher: VLM, assistant: VLM, settings: TernarySettings):
        finer = {"relations": settings.relation_weight, "hidden": settings.hidden_weight}
        wanted = {"teacher": (teacher, settings.hidden_weight), "assistant": (assistant, settings.relation_weight)}
        super().__init__(
            student,
            {
                "teacher": settings.teacher_weight,
                "assistant": settings.assistant_weight,
                "itself": settings.self_weight,
            },
            label_weight=settings.label_weight,
            kind=settings.divergence,
            beta=settings.beta,
            temperature=settings.temperature,
            gate=settings.gate,
            others={name: vlm for name, (vlm, weight) in wanted.items() if weight},
            finer_weights=finer,
        )
        widths = [vlm.head.shape[1] for vlm in (student, teacher)]
        self.map = nn.Linear(*widths, bias=False).to(student.device) if settings.hidden_weight else None

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        student = self.vlms["student"]
        # The others first: between the student's forward and backward pass they would push its activations out of the caches.
        with torch.no_grad():
            states = {
                name: answer_hidden(vlm, batch, name)[1].last_hidden_state for name, vlm in self.vlms.items() if name != "student"
            }
        answers, output = answer_hidden(student, batch, "student")
        hidden, image = output.last_hidden_state, batch["input_ids"] == student.image_token_id
        terms = self.terms(project(student, answers, batch.get("vocabulary")), batch)
        finer = ("assistant",) * bool(self.weights["relations"]) + ("teacher",) * (self.map is not None)
        if alone := [name for name in finer if name in batch.get("own", {})]:
            raise UserError(f"{alone[0]}: reads other tokens than the student, so that relations and hidden states cannot be compared")
        if self.weights["relations"]:
            difference = relations(hidden, image, batch["asked"]) - relations(states["assistant"], image, batch["asked"])
            # One number an example: the mean squared difference over its own relation matrix, without what it lacks.
            share = (difference.shape[1] / (image.sum(1) + 1)).square()
            terms["relations"] = LossTerm((difference.square().mean((1, 2)) * share).sum(), self.weights["relations"], per="examples")
        if self.map is not None:
            words = batch["attention_mask"].bool() & ~image
            error = imitation(self.map(hidden[words].float()), states["teacher"][words])
            # One number an example: the mean over its words.
            terms["hidden"] = LossTerm((error / words.sum(1)[words.nonzero()[:, 0]]).sum(), self.weights["hidden"], per="examples")
        return terms


@dataclass(frozen=True)
class Refinement:
    """What was learned. student: the model, trained in place; history: records of the training; weights: of each of its terms.

    teacher_logprobs: what teacher, assistant and itself answered before, name -> [examples, C].
    """

    student: VLM
    history: list[dict]
    weights: dict[str, float]
    teacher_logprobs: dict[str, Tensor]


def ask_teachers(models: Mapping[str, VLM], data: TrainingSet, wording: Wording | None = None) -> dict[str, Tensor]:
    """teacher, assistant, itself -> [examples, C] log-probabilities of the choices (`choice_logprobs`).

    models, data: by role, student, teacher and assistant. wording: ask under mapping shift, with the options at every place.
    """
    return {name: choice_logprobs(models[role], role, data, wording) for name, role in TEACHERS.items()}


def refine(
    student: VLM,
    teacher: VLM,
    assistant: VLM,
    data: TrainingSet | Sequence[dict],
    settings: TernarySettings,
    *,
    wording: Wording | None = None,
    teacher_logprobs: Mapping[str, Tensor] | None = None,
    seed: int,
) -> Refinement:
    """Refine the student, in place, against teacher, assistant, itself as it was, and the labels.

    data: examples with pictures (see `training.examples`; an answer "" has no label), or a set with features as student, teacher and
    assistant. Each teacher is asked once. wording: how the dataset lists options; with it the teachers are asked under mapping shift, else as the
    examples stand. teacher_logprobs: what `ask_teachers` gave, if they were asked before.
    Raises UserError for wrong weights (`Distillation`) and as `choice_logprobs` does.
    """
    models = {"student": student, "teacher": teacher, "assistant": assistant}
    data = as_training_set(models, data)
    answers = dict(teacher_logprobs or ask_teachers(models, data, wording))
    torch.manual_seed(seed)
    step = TernaryStep(student, teacher, assistant, settings)
    how = {"seed": seed, "lengths": data.lengths, "title": "refining"}
    history = train(step, collate_with_teachers(data, answers), len(data), schedule_of(settings), **how)
    return Refinement(student, history, dict(step.weights), answers)

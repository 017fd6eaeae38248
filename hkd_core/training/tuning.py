"""The two plain ways of tuning that a method is compared with: on labels alone, and by distillation from one teacher."""

from collections.abc import Sequence

from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.common.settings import TrainSettings, TuneSettings
from hkd_core.models.vlm import VLM
from hkd_core.training.examples import TrainingSet, as_training_set
from hkd_core.training.objectives import Distillation, Supervised
from hkd_core.training.teacher_answers import choice_logprobs, collate_with_teachers
from hkd_core.training.trainer import Schedule, train

DECAY = 0.7  # share of the steps in which the learning rate falls to 0, for every way of tuning; our choice


def schedule_of(settings: TrainSettings) -> Schedule:
    """The schedule of these settings."""
    return Schedule(settings.steps, settings.batch_size, settings.learning_rate, decay=DECAY)


def tune(vlm: VLM, data: TrainingSet | Sequence[dict], settings: TrainSettings, *, seed: int, title: str = "tuning") -> list[dict]:
    """Train the model, in place, by cross-entropy on the labels; returns the history.

    data: examples with pictures (see `training.examples`), or a set with the model's features as "student".
    """
    data = as_training_set({"student": vlm}, data)
    how = {"seed": seed, "lengths": data.lengths, "title": title}
    return train(Supervised(vlm), data.collate, len(data), schedule_of(settings), **how)


def distil(
    student: VLM,
    data: TrainingSet | Sequence[dict],
    settings: TuneSettings,
    *,
    seed: int,
    teacher: VLM | None = None,
    teacher_logprobs: Tensor | None = None,
    title: str = "distilling",
) -> list[dict]:
    """Plain knowledge distillation of the student, in place, from one frozen teacher and the labels; returns the history.

    data: examples with pictures (see `training.examples`), or a set with features as "student" and "teacher". teacher_logprobs: the
    teacher's answers, [examples, C], if it was asked before (`choice_logprobs`). Raises UserError for neither a teacher nor its answers.
    Source: arXiv 1503.02531; T^2 kept, over the choices of each example.
    """
    data = as_training_set({"student": student} | ({"teacher": teacher} if teacher else {}), data)
    if teacher_logprobs is None:
        if teacher is None:
            raise UserError("distillation: expected a teacher or its answers, got neither")
        teacher_logprobs = choice_logprobs(teacher, "teacher", data)
    objective = Distillation(
        student,
        {"teacher": settings.kd_weight},
        label_weight=1 - settings.kd_weight,
        kind=settings.kd_divergence,
        beta=0.5,
        temperature=settings.kd_temperature,
    )
    collate = collate_with_teachers(data.as_roles(student="student"), {"teacher": teacher_logprobs})
    how = {"seed": seed, "lengths": data.lengths, "title": title}
    return train(objective, collate, len(data), schedule_of(settings), **how)

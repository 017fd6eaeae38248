"""The plain ways of tuning: each against the loop written out."""

import pytest
import torch
from conftest import tiny_vlm, training_set

from hkd_core.common.errors import UserError
from hkd_core.training import TuneSettings, distil, tune
from hkd_core.training.objectives import Distillation, Supervised
from hkd_core.training.teacher_answers import choice_logprobs, collate_with_teachers
from hkd_core.training.trainer import Schedule, train

SETTINGS = TuneSettings(steps=4, batch_size=4, learning_rate=1e-2, kd_weight=0.25, kd_divergence="reverse_kl", kd_temperature=3.0)


def weights(vlm):
    return [value.clone() for value in vlm.model.state_dict().values()]


def by_hand(objective, collate, data, steps=4):
    train(objective, collate, len(data), Schedule(steps, 4, 1e-2, decay=0.7), seed=3, lengths=data.lengths)


def test_tuning_is_the_loop_on_labels_for_as_many_steps_as_are_wanted(examples, pictures):
    found = []
    for way in ("library", "loop"):
        vlm = tiny_vlm()
        data = training_set(examples[:8], pictures, student=vlm)
        if way == "library":
            tune(vlm, data, SETTINGS.replace(steps=6), seed=3)
        else:
            by_hand(Supervised(vlm), data.collate, data, steps=6)
        found.append(weights(vlm))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("asked_before", [True, False])
def test_distilling_is_the_loop_on_labels_and_a_teachers_answers_asked_once(examples, pictures, asked_before):
    found = []
    for way in ("library", "loop"):
        student, teacher = tiny_vlm(32, 1, 1), tiny_vlm(64, 1, 2)
        data = training_set(examples[:8], pictures, student=student, teacher=teacher)
        answers = choice_logprobs(teacher, "teacher", data)
        if way == "library":
            distil(student, data, SETTINGS, seed=3, **({"teacher_logprobs": answers} if asked_before else {"teacher": teacher}))
        else:
            how = {"label_weight": 0.75, "kind": "reverse_kl", "beta": 0.5, "temperature": 3.0}
            by_hand(Distillation(student, {"teacher": 0.25}, **how), collate_with_teachers(data, {"teacher": answers}), data)
        found.append(weights(student))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_examples_of_image_prompt_choices_and_answer_alone_can_be_tuned_on_and_distilled(strange):
    settings = TuneSettings(steps=20, batch_size=8, learning_rate=1e-2)
    tuned = tune(tiny_vlm(32, 1, 1), strange, settings, seed=0)
    distilled = distil(tiny_vlm(32, 1, 1), strange, settings, teacher=tiny_vlm(64, 1, 2), seed=0)
    assert tuned[-1]["labels"] < tuned[0]["labels"] / 2 and distilled[-1]["teacher"] < distilled[0]["teacher"]


def test_distilling_from_nobody_is_refused(vlm, strange):
    with pytest.raises(UserError, match="expected a teacher or its answers, got neither"):
        distil(vlm, strange, SETTINGS, seed=0)

"""The plain ways of tuning: each against its equation, trained in float64 with plain torch."""

import pytest
import torch
from conftest import tiny_vlm, training_set
from plain_training import doubled, histories, label_term, over_choices, soft_term

from hkd_core.common.errors import UserError
from hkd_core.training import TuneSettings, distil, tune
from hkd_core.training.teacher_answers import choice_logprobs

SETTINGS = TuneSettings(steps=6, batch_size=4, learning_rate=3e-3, kd_weight=0.25, kd_divergence="reverse_kl", kd_temperature=3.0)
# A warm-up of one step, then (1 - done) / 0.7 + 1 / steps of the peak, at most all of it.
RATES = [3e-3 * share for share in (1, 1, 0.880952, 0.642857, 0.404762, 0.166667)]


def test_tuning_follows_cross_entropy_on_the_labels_in_float64(examples, pictures):
    vlm = tiny_vlm()
    data = training_set(examples[:8], pictures, student=vlm)
    expected = histories(
        vlm,
        lambda vlm, rows: {"labels": (label_term(vlm, data, "student", rows), 1.0)},
        **{"data": data, "batch_size": 4, "rates": RATES, "seed": 3},
    )
    found = tune(vlm, data, SETTINGS, seed=3)
    assert [row["labels"] for row in found] == pytest.approx(expected["labels"], rel=1e-3)
    assert expected["labels"][-1] < 0.9 * expected["labels"][0]  # far enough for a wrong step to show


@pytest.mark.parametrize("asked_before", [True, False])
def test_distilling_follows_labels_and_a_teachers_answers_over_the_choices_in_float64(examples, pictures, asked_before):
    student, teacher = tiny_vlm(32, 1, 1), tiny_vlm(64, 1, 2)
    data = training_set(examples[:8], pictures, student=student, teacher=teacher)
    with torch.no_grad():
        told = over_choices(doubled(teacher), data, "teacher", range(8))

    def losses(vlm, rows):
        divergence = soft_term(over_choices(vlm, data, "student", rows), [told[i] for i in rows], 3.0, reverse=True)
        return {"labels": (label_term(vlm, data, "student", rows), 0.75), "teacher": (divergence, 0.25)}

    expected = histories(student, losses, data=data, batch_size=4, rates=RATES, seed=3)
    answers = {"teacher_logprobs": choice_logprobs(teacher, "teacher", data)} if asked_before else {"teacher": teacher}
    found = distil(student, data, SETTINGS, seed=3, **answers)
    for name in ("labels", "teacher"):
        assert [row[name] for row in found] == pytest.approx(expected[name], rel=1e-3)


def test_examples_of_image_prompt_choices_and_answer_alone_can_be_tuned_on_and_distilled(strange):
    settings = TuneSettings(steps=20, batch_size=8, learning_rate=1e-2)
    tuned = tune(tiny_vlm(32, 1, 1), strange, settings, seed=0)
    distilled = distil(tiny_vlm(32, 1, 1), strange, settings, teacher=tiny_vlm(64, 1, 2), seed=0)
    assert tuned[-1]["labels"] < tuned[0]["labels"] / 2 and distilled[-1]["teacher"] < distilled[0]["teacher"]


def test_distilling_from_nobody_is_refused(vlm, strange):
    with pytest.raises(UserError, match="expected a teacher or its answers, got neither"):
        distil(vlm, strange, SETTINGS, seed=0)

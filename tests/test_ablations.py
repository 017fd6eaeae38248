"""Ablations: which variants share what the study has made, and which examples a variant learns from."""

from types import SimpleNamespace

import pytest
from conftest import training_set

from hkd_core.world.ablations import AblationStudy, Variant, jobs_of
from hkd_core.world.sets import in_all_places


@pytest.mark.parametrize(
    ("variant", "pyramid", "answers"),
    [
        (Variant(ternary={"gate": True}), True, True),
        (Variant(data={"unlabelled": 0}), True, False),  # other examples, so the teachers are asked again
        (Variant(data={"labelled": 160}), False, False),
        (Variant(pyramid={"feedback_weight": 0.0}), False, False),
        (Variant(apart=True), False, False),
    ],
)
def test_a_variant_shares_the_studys_pyramid_and_answers_unless_it_changes_what_they_come_from(variant, pyramid, answers):
    assert (variant.shares_pyramid, variant.shares_answers) == (pyramid, answers)


def test_variants_that_share_the_teachers_answers_are_one_job_and_the_longest_jobs_come_first():
    variants = {
        "kd_assistant_small": Variant("through_assistant"),
        "hkd_small, with the gate": Variant(ternary={"gate": True}),
        "hkd_small, no feedback": Variant(pyramid={"feedback_weight": 0.0}),
        "hkd_small, with relations": Variant(ternary={"relation_weight": 1.0}),
    }
    together = ["hkd_small, with the gate", "hkd_small, with relations"]
    assert jobs_of(variants) == [together, ["hkd_small, no feedback"], ["kd_assistant_small"]]
    assert jobs_of({}) == []


def test_a_variant_learns_from_the_labelled_pictures_what_was_made_of_them_and_the_unlabelled_ones(
    vlm, examples, pictures, monkeypatch
):
    labelled = [row for row in examples if row["task"] == "task1"][:3]
    made = labelled[2] | {"meta": labelled[2]["meta"] | {"of": labelled[2]["image_id"]}}
    nobodys = [row | {"answer": ""} for row in examples[-2:]]
    data = training_set(in_all_places([*labelled, made, *nobodys]), pictures, small=vlm)
    levels = [["large"], ["medium"], ["small"]]
    cfg = SimpleNamespace(
        base_models=SimpleNamespace(widths={"small": 32}), pyramid=SimpleNamespace(levels=levels), data=SimpleNamespace(tuned=2)
    )
    study = AblationStudy(SimpleNamespace(), cfg, seed=0)
    study.once("everything", lambda: data)

    def prompts(**how):
        return [row["prompt"] for row in study.examples(rehearsed=False, rotated=False, **how).examples]

    first, second, third = (row["prompt"] for row in labelled)
    assert prompts() == [first, second]
    assert prompts(labelled=3) == [first, second, third, third] and prompts(labelled=3, augmented=False) == [first, second, third]
    assert prompts(unlabelled=1) == [first, second, nobodys[0]["prompt"]]
    assert len(study.examples(rehearsed=False)) == 8  # options in all places

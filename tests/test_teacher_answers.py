"""What frozen teachers answer, plain and under mapping shift."""

import pytest
import torch
from conftest import training_set

from hkd_core.common.errors import UserError
from hkd_core.data.wording import Wording
from hkd_core.training.examples import answer_hidden, project
from hkd_core.training.teacher_answers import choice_logprobs
from hkd_core.world.sets import in_all_places
from hkd_core.world.wording import WORDING


def test_answers_of_a_frozen_model_are_its_probabilities_of_the_choices_first_tokens(trio, examples, pictures):
    caption = examples[0] | {"choices": [], "answer": "a dog"}
    data = training_set(
        [examples[0], caption, examples[1], examples[2] | {"choices": ["Yes", "No"], "answer": "No", "meta": {}}], pictures, **trio
    )
    found = choice_logprobs(trio["teacher"], "teacher", data)
    assert torch.isinf(found[1]).all() and torch.isinf(found[3, 2:]).all()  # no choices; two of four
    batch = data.collate([0, 2])
    logits = project(trio["teacher"], answer_hidden(trio["teacher"], batch, "teacher")[0]).double().detach()
    begins = [0, int(batch["asked"][0].sum())]
    for row, begin in zip((0, 2), begins, strict=True):
        tokens = [trio["teacher"].tokenizer(choice)["input_ids"][0] for choice in data.examples[row]["choices"]]
        expected = logits[begin][tokens].log_softmax(-1)
        torch.testing.assert_close(found[row].double(), expected, rtol=1e-4, atol=1e-4)


def test_choices_that_begin_alike_cannot_be_taught_and_are_named(vlm, examples, pictures):
    data = training_set([examples[0] | {"choices": ["true", "true dog"], "answer": "true"}], pictures, student=vlm)
    with pytest.raises(UserError, match="true, true dog: two begin with the same token"):
        choice_logprobs(vlm, "student", data)


def test_teachers_under_mapping_shift_answer_the_mean_over_all_places_and_the_same_at_each(vlm, examples, pictures):
    row = next(row for row in examples if row["meta"].get("options"))
    data = training_set(in_all_places([row]), pictures, student=vlm)
    plain, shifted = (choice_logprobs(vlm, "student", data, wording) for wording in (None, WORDING))
    for content in row["meta"]["options"]:
        places = [r["meta"]["options"].index(content) for r in data.examples]
        mean = sum(plain[i, place] for i, place in enumerate(places)) / 4
        there = [float(shifted[i, place]) for i, place in enumerate(places)]
        assert there == pytest.approx([there[0]] * 4, abs=1e-5)
        assert there[0] >= float(mean) - 1e-5  # the geometric mean, normalised
    assert float(shifted[0].exp().sum()) == pytest.approx(1, abs=1e-5)


def lettered(examples, count):
    return [row for row in examples if row["meta"].get("options")][:count]


def test_places_that_the_examples_lack_are_asked_besides_and_change_nothing_else(vlm, examples, pictures):
    rows = lettered(examples, 3)
    whole = choice_logprobs(vlm, "student", training_set(in_all_places(rows), pictures, student=vlm), WORDING)
    alone = choice_logprobs(vlm, "student", training_set(rows, pictures, student=vlm), WORDING)
    assert alone.shape == (3, 4)
    torch.testing.assert_close(alone, whole[::4], rtol=1e-4, atol=1e-5)


def test_two_questions_with_the_same_options_about_one_picture_are_not_averaged_with_each_other(vlm, examples, pictures):
    row = lettered(examples, 1)[0]
    other = row | {"prompt": row["prompt"].replace("Which phrase is wrong?", "What color is the dog?")}
    both = choice_logprobs(vlm, "student", training_set([row, other], pictures, student=vlm), WORDING)
    each = [choice_logprobs(vlm, "student", training_set([one], pictures, student=vlm), WORDING)[0] for one in (row, other)]
    torch.testing.assert_close(both, torch.stack(each), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-3)


def test_a_wording_that_cannot_list_options_asks_every_example_as_it_is(vlm, examples, pictures):
    data = training_set(lettered(examples, 3), pictures, student=vlm)
    assert torch.equal(choice_logprobs(vlm, "student", data, Wording()), choice_logprobs(vlm, "student", data))

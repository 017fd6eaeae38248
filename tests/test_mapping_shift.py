"""Mapping shift-enhanced inference from end to end, against every question asked alone and mapped back by hand."""

import json
import random

import numpy as np
import pytest

from hkd_core.common.errors import UserError
from hkd_core.common.margins import best_shift
from hkd_core.data.wording import Wording
from hkd_core.evaluation import suite
from hkd_core.hkd import MappingShift
from hkd_core.hkd.mapping_shift import Prior, content_classes, limits, shifted
from hkd_core.inference.scoring import answer_logits, score_choices
from hkd_core.models.vlm import encode_all
from hkd_core.world.facts import Fact, question
from hkd_core.world.tasks import FAITHFUL, LETTERS, yes_no
from hkd_core.world.wording import WORDING


def split_of(vlm, pictures, rows):
    ids = list(dict.fromkeys(row["image_id"] for row in rows))
    return suite.Split(rows, dict(zip(ids, encode_all({"": vlm}, [pictures[i] for i in ids])[""], strict=True)), wording=WORDING)


def by_hand(vlm, row, look):
    """[choices] mean log-probability over the four rotations, each asked alone; on task 2 the question as it is."""
    options = row["meta"].get("options")
    if not options:
        scores = np.array(score_choices(vlm, [row], pictures=[look])[0])
        return scores - np.log(np.exp(scores).sum())
    text = row["prompt"].split("A: ")[0]
    total = dict.fromkeys(options, 0.0)
    for turn in range(4):
        rotated = [options[(k + turn) % 4] for k in range(4)]
        prompt = text + " ".join(f"{letter}: {option}" for letter, option in zip("ABCD", rotated, strict=True))
        scores = np.array(score_choices(vlm, [row | {"prompt": prompt}], pictures=[look])[0])
        for option, logp in zip(rotated, scores - np.log(np.exp(scores).sum()), strict=True):
            total[option] += logp / 4
    return np.array([total[option] for option in options])


@pytest.mark.parametrize("task", suite.TASKS)
def test_a_tasks_answer_is_the_best_of_the_mean_over_rotations_minus_the_fitted_prior(vlm, pictures, examples, task):
    rows = [row for row in examples if row["task"] == task]
    val, test = (split_of(vlm, pictures, part) for part in (rows[:16], rows[16:28]))
    answers = suite.task_answers(vlm, val, test, ("greedy", "msi"))
    found = [a["answer"] for a in answers if (a["benchmark"], a["decoding"]) == (task, "msi")]

    nothing = vlm.without_picture(next(iter(val.features.values())))
    sums, counts = np.zeros(4), np.zeros(4)
    for row in val.examples:
        options = row["meta"].get("options")
        kinds = [int(option == FAITHFUL) for option in options] if options else range(4)
        for kind, logp in zip(kinds, by_hand(vlm, row, nothing), strict=True):
            sums[kind] += np.exp(logp) / np.exp(by_hand(vlm, row, nothing)).sum()
            counts[kind] += 1
    prior = np.log(sums[counts > 0] / counts[counts > 0])
    fitted = suite.prior_of(vlm, val, val.examples, suite.shifted_scores(vlm, val, val.examples))
    assert np.array(fitted.logp) == pytest.approx(prior, abs=1e-3)
    scores = [by_hand(vlm, row, test.features[row["image_id"]]) for row in test.examples]
    removed = [s - fitted.strength * prior[content_classes(row, WORDING)] for s, row in zip(scores, test.examples, strict=True)]
    assert found == [row["choices"][int(np.argmax(s))] for row, s in zip(test.examples, removed, strict=True)]
    assert suite.shifted_scores(vlm, test, test.examples) == pytest.approx(np.array(scores), abs=1e-3)


def presence_questions(scenes, task):
    rng = random.Random(0)
    names = sorted({name for scene in scenes for name in scene.names})
    return [yes_no(scene, Fact("presence", rng.choice(names)), task=task) for scene in scenes for _ in range(3)]


def test_a_yes_no_margin_is_half_of_both_ways_difference_minus_a_constant_fitted_on_validation(vlm, scenes, pictures):
    held, rows = presence_questions(scenes[:10], "pope_adversarial"), presence_questions(scenes[10:16], "pope_random")
    val, test = split_of(vlm, pictures, held), split_of(vlm, pictures, rows)
    answers = suite.yes_no_answers(vlm, val, test, ("msi",))
    found = [(a["margin"], a["answer"]) for a in answers if (a["benchmark"], a["decoding"]) == ("pope_random", "msi")]
    yes, no = (vlm.tokenizer(word)["input_ids"][0] for word in ("Yes", "No"))

    def margin(prompt, look):
        logits = answer_logits(vlm, [prompt], [look])[0]
        return float(logits[yes] - logits[no])

    def both(row, split):
        look, fact = split.features[row["image_id"]], Fact(**row["meta"]["facts"][0])
        return (margin(question(fact), look) - margin(question(fact, negated=True), look)) / 2

    constant = best_shift(np.array([both(row, val) for row in held]), np.array([row["answer"] == "Yes" for row in held], int))
    expected = [both(row, test) - constant for row in rows]
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-3)
    assert [said for _, said in found] == ["Yes" if value > 0 else "No" for value in expected]


def test_the_labels_of_the_test_change_no_answer(vlm, scenes, pictures, examples):
    other = {"Yes": "No", "No": "Yes"}

    def hidden(row):
        return row | {"answer": other.get(row["answer"], row["choices"][0])}

    held, rows = presence_questions(scenes[:6], "pope_adversarial"), presence_questions(scenes[6:9], "pope_popular")
    val, tasks = split_of(vlm, pictures, held), split_of(vlm, pictures, examples[:8])
    test, tested = split_of(vlm, pictures, rows), split_of(vlm, pictures, examples[8:16])
    said = []
    for change in (dict, hidden):
        ours, theirs = (suite.Split([change(row) for row in part.examples], part.features, wording=WORDING) for part in (test, tested))
        answers = suite.yes_no_answers(vlm, val, ours, ("msi",)) + suite.task_answers(
            vlm, tasks, theirs, ("greedy", "msi")
        )
        said.append([(a["benchmark"], a["decoding"], a["prompt"], a["answer"], a["margin"]) for a in answers])
    assert said[0] == said[1]


def test_a_negated_question_asks_the_opposite_and_negated_again_comes_back(scenes):
    for row in presence_questions(scenes[:5], "pope_random"):
        (same, straight), (negated, crossed) = shifted(row, WORDING)
        assert (same, straight, crossed) == (row, [0, 1], [1, 0])
        assert negated["prompt"] == question(Fact(**row["meta"]["facts"][0]), negated=True) != row["prompt"]
        back = shifted(negated | {"meta": row["meta"] | {"negated": True}}, WORDING)[1][0]
        assert back["prompt"] == row["prompt"]


def test_options_that_the_prompt_does_not_list_as_expected_are_refused_for_nothing_would_be_shifted(examples):
    row = next(row for row in examples if row["task"] == "task1")
    other = row["prompt"].replace("A: ", "(A) ")
    with pytest.raises(UserError, match=f'{row["image_id"]}: mapping shift: expected the options as "A: '):
        shifted(row | {"prompt": other}, WORDING)
    five = row | {"meta": row["meta"] | {"options": [*row["meta"]["options"], "fish"]}}
    with pytest.raises(UserError, match=f"at most {len(LETTERS)}, one a letter, got 5"):
        shifted(five, WORDING)


def with_pictures(rows, pictures):
    return [row | {"image": pictures[row["image_id"]]} for row in rows]


def test_the_library_gives_the_answers_of_the_study_for_each_kind_of_choices(vlm, pictures, examples):
    validation, tested = examples[:32], examples[32:56]  # both tasks
    shift = MappingShift.fit(vlm, with_pictures(validation, pictures), WORDING)
    answers = shift.answer(with_pictures(tested, pictures))
    val, test = (split_of(vlm, pictures, rows) for rows in (validation, tested))
    found = {}
    for a in suite.task_answers(vlm, val, test, ("greedy", "msi")):
        if a["decoding"] == "msi":
            found[a["image_id"], a["prompt"]] = a["answer"]
    assert answers == [found[row["image_id"], row["prompt"]] for row in tested]


def test_scores_are_the_mean_over_the_shifted_prompts_minus_the_prior(vlm, pictures, examples):
    row = next(row for row in examples if row["task"] == "task1")
    prior = Prior((0.5, -2.0), strength=0.75)
    (found,) = MappingShift(vlm, WORDING, {tuple(row["choices"]): prior}).scores(with_pictures([row], pictures))
    faithful = np.array([option == FAITHFUL for option in row["meta"]["options"]])
    look = encode_all({"": vlm}, [pictures[row["image_id"]]])[""][0]
    assert found == pytest.approx(by_hand(vlm, row, look) - 0.75 * np.where(faithful, -2.0, 0.5), abs=1e-3)


def test_a_saved_shift_answers_the_same(vlm, pictures, examples, tmp_path):
    rows = with_pictures(examples[:24], pictures)
    shift = MappingShift.fit(vlm, rows, WORDING)
    loaded = MappingShift.load(shift.save(tmp_path / "shift.json"), vlm, WORDING)
    assert loaded.priors == shift.priors and loaded.answer(rows) == shift.answer(rows)
    (tmp_path / "other.json").write_text(json.dumps({"priors": [{"choices": ["Yes", "No"]}]}))
    with pytest.raises(UserError, match="other.json: not a saved mapping shift"):
        MappingShift.load(tmp_path / "other.json", vlm)


def test_rows_of_image_prompt_choices_and_answer_get_the_prior_removed_and_a_warning_says_that_no_more_can_be_done(vlm, strange):
    with pytest.warns(UserWarning, match="8 of 8 examples can be asked in one way only.*only the prior is removed") as caught:
        shift = MappingShift.fit(vlm, strange)
    assert len(caught) == 1 and "\n" not in shift.limits and shift.limits in str(caught[0].message)
    unlabelled = [{key: row[key] for key in ("image", "prompt", "choices")} for row in strange]
    assert shift.answer(unlabelled) == shift.answer(strange)
    plain = [scores - np.logaddexp.reduce(scores) for scores in map(np.array, score_choices(vlm, strange))]
    for row, found, alone in zip(strange, shift.scores(strange), plain, strict=True):
        prior = shift.priors[tuple(row["choices"])]
        assert found == pytest.approx(alone - prior.strength * np.array(prior.logp), abs=1e-4)


def test_choices_without_a_fitted_prior_are_averaged_only(vlm, strange):
    with pytest.warns(UserWarning):
        shift = MappingShift.fit(vlm, strange[:1])
    other = strange[0] | {"choices": ["red", "blue", "white"]}
    assert shift.scores([other])[0] == pytest.approx(MappingShift(vlm).scores([other])[0])
    assert shift.answer([]) == []


def test_validation_examples_are_wanted_each_with_an_answer_among_its_choices(vlm, strange):
    with pytest.raises(UserError, match="expected validation examples, got none"):
        MappingShift.fit(vlm, [])
    with pytest.raises(UserError, match='validation example 1: expected an answer among .*, got "maybe"'):
        MappingShift.fit(vlm, [strange[0], strange[1] | {"answer": "maybe"}])


class Dashes(Wording):
    """Somebody else's dataset: "(A) dog - (B) cup" and "Is X not Y?"."""

    def list_options(self, options):
        return " - ".join(f"({letter}) {option}" for letter, option in zip("ABC", options, strict=False))

    def negate(self, example):
        return example["prompt"].replace("Is there a", "Is there no") if "Is there a" in example["prompt"] else None


def test_another_datasets_wording_shifts_its_own_prompts():
    options = {
        "prompt": "Which? (A) dog - (B) cup - (C) hat",
        "choices": ["A", "B", "C"],
        "answer": "C",
        "meta": {"options": ["dog", "cup", "hat"]},
    }
    (_, first), (second, places), _ = shifted(options, Dashes())
    assert first == [0, 1, 2] and second["prompt"] == "Which? (A) cup - (B) hat - (C) dog"
    assert [second["meta"]["options"][p] for p in places] == ["dog", "cup", "hat"] and second["answer"] == "B"
    question = {"prompt": "Is there a dog?", "choices": ["Yes", "No"], "answer": "No"}
    assert [(row["prompt"], places) for row, places in shifted(question, Dashes())] == [
        ("Is there a dog?", [0, 1]),
        ("Is there no dog?", [1, 0]),
    ]
    assert limits([options, question], Dashes()) == "" and "1 of 2 examples" in limits(
        [question, {"prompt": "Who?", "choices": ["a", "b"]}], Dashes()
    )
    with pytest.raises(UserError, match="expected one choice for each of 3 options, got 2"):
        shifted(options | {"choices": ["A", "B"]}, Dashes())

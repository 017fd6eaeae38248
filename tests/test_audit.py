"""The audit: simulated answerers with known d' and c, files of every kind, and what the sentence says."""

import json
import warnings
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from answer_files import lines, run_command
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hkd_core.common.errors import UserError
from hkd_core.common.margins import auroc, auroc_difference, auroc_interval, best_constant, sensitivity
from hkd_core.evaluation import audit, audit_files, mme
from hkd_core.evaluation.__main__ import main


def simulate(seed, n, d, lean, *, noise=None, images=None):
    """(labels, said, evidence): an answerer of sensitivity d that says yes above `lean`, by signal detection's own model."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    evidence = rng.standard_normal(n) if noise is None else noise
    evidence = evidence + d * (labels - 0.5)
    return labels, (evidence > lean).astype(int), evidence


def answers_of(labels, base, method, images=None, **more):
    images = np.array([str(i // 6) for i in range(len(labels))]) if images is None else images
    return audit.Answers(labels, base, method, images, np.array(["dog"] * len(labels)), **more)


@pytest.mark.parametrize(("d", "lean"), [(0.5, 0.0), (2.0, 0.4), (1.2, -0.7), (3.0, 0.1)])
def test_a_simulated_answerers_d_prime_and_criterion_are_found(d, lean):
    labels, said, _ = simulate(1, 100_000, d, lean)
    found = audit.compare(answers_of(labels, said, said), draws=20)
    assert found["base"]["d_prime"] == pytest.approx(d, abs=0.03) and found["base"]["criterion"] == pytest.approx(lean, abs=0.02)
    cdf = NormalDist().cdf
    assert found["base"]["hit_rate"] == pytest.approx(cdf(d / 2 - lean), abs=0.01)
    assert found["base"]["false_alarm_rate"] == pytest.approx(cdf(-d / 2 - lean), abs=0.01)


def test_d_prime_of_many_sums_equals_that_of_one():
    sums = np.random.default_rng(0).integers(0, 50, (20, 4)).astype(float)
    for (true_no, alarms, missed, hits), d, c in zip(sums, audit.d_prime(sums), audit.criterion(sums), strict=True):
        assert (d, c) == pytest.approx(sensitivity(int(hits), int(alarms), int(true_no), int(missed)))


def test_a_pure_shift_is_called_one():
    noise = np.random.default_rng(2).standard_normal(6000)
    labels, base, evidence = simulate(0, 6000, 2.0, -0.5, noise=noise)
    _, method, _ = simulate(0, 6000, 2.0, 0.0, noise=noise)
    found = audit.compare(answers_of(labels, base, method, base_margins=evidence + 0.5, method_margins=evidence), draws=500)
    change = found["difference"]
    assert change["accuracy"]["low"] > 0 and change["d_prime"]["low"] < 0 < change["d_prime"]["high"]
    assert change["criterion"]["value"] == pytest.approx(0.5, abs=0.06)
    assert "the gain is a shift of the criterion towards No" in found["conclusion"]
    assert found["margins"]["auroc"]["difference"] == {"value": 0, "low": 0, "high": 0}
    assert abs(found["margins"]["method_minus_shifted_base"]["accuracy"]["value"]) < 0.01
    assert "no more than a shift gives" in found["conclusion"]


def test_better_telling_is_called_that_and_more_than_a_shift():
    noise = np.random.default_rng(3).standard_normal(6000)
    labels, base, weak = simulate(0, 6000, 1.5, 0.0, noise=noise)
    _, method, strong = simulate(0, 6000, 2.2, 0.0, noise=noise)
    found = audit.compare(answers_of(labels, base, method, base_margins=weak, method_margins=strong), draws=500)
    assert found["difference"]["d_prime"]["value"] == pytest.approx(0.7, abs=0.1)
    assert "the method tells yes from no better, and the criterion did not move" in found["conclusion"]
    assert found["margins"]["method_minus_shifted_base"]["accuracy"]["low"] > 0 and "more than a shift gives" in found["conclusion"]
    assert found["margins"]["auroc"]["difference"]["low"] > 0


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Pictures share a part of the noise, so that only intervals over pictures can hold; 60 studies, 95 % intervals."""
    held = {"d_prime": 0, "criterion": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pictures = np.repeat(np.arange(150), 6)
        shared = 0.7 * rng.standard_normal(150)[pictures] + np.sqrt(1 - 0.49) * rng.standard_normal(900)
        own = [0.8 * shared + 0.6 * rng.standard_normal(900) for _ in range(2)]
        labels, base, _ = simulate(0, 900, 1.5, -0.3, noise=own[0])
        _, method, _ = simulate(0, 900, 1.9, 0.2, noise=own[1])
        change = audit.compare(answers_of(labels, base, method, images=pictures.astype(str)), draws=300)["difference"]
        held["d_prime"] += change["d_prime"]["low"] < 0.4 < change["d_prime"]["high"]
        held["criterion"] += change["criterion"]["low"] < 0.5 < change["criterion"]["high"]
    assert all(50 <= count <= 60 for count in held.values()), held


def interval(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


UP, DOWN, NONE = interval(0.1, 0.3), interval(-0.3, -0.1), interval(-0.1, 0.12)


@pytest.mark.parametrize(
    ("accuracy", "d", "c", "says"),
    [
        (UP, NONE, UP, "the gain is a shift of the criterion towards No"),
        (UP, NONE, DOWN, "the gain is a shift of the criterion towards Yes"),
        (DOWN, NONE, UP, "the loss is a shift of the criterion towards No"),
        (UP, UP, NONE, "the method tells yes from no better, and the criterion did not move"),
        (UP, UP, UP, "the method tells yes from no better, and the criterion moved towards No"),
        (NONE, DOWN, DOWN, "the method tells yes from no worse, and the criterion moved towards Yes"),
        (NONE, NONE, UP, "the criterion moved towards No, and neither accuracy nor d' changed beyond chance"),
        (UP, NONE, NONE, "the change cannot be assigned"),
        (NONE, NONE, NONE, "no change beyond chance"),
    ],
)
def test_what_follows_from_each_outcome(accuracy, d, c, says):
    sentence = audit.conclusion({"difference": {"accuracy": accuracy, "d_prime": d, "criterion": c}})
    assert says in sentence and sentence.startswith("accuracy ") and "; d' " in sentence and "; c " in sentence


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
@pytest.mark.parametrize(("d", "lean"), [(2.0, 0.7), (1.0, -1.0), (2.5, 0.0)])
def test_the_best_constant_is_near_the_best_there_is(metric, d, lean):
    """Against the exact optimum of signal detection: both classes are as frequent, so accuracy is best half-way between them."""
    labels, _, evidence = simulate(4, 20_000, d, 0.0)
    cdf, tried = NormalDist().cdf, np.linspace(-3, 3, 601)
    hits, alarms = (np.array([cdf(side * d / 2 - c) for c in tried]) for side in (1, -1))
    scores = hits - alarms if metric == "accuracy" else 2 * hits / (hits + alarms + 1)
    found = best_constant(evidence + lean, labels, metric) - lean
    assert scores.max() - scores[np.abs(tried - found).argmin()] < 0.003


def test_a_pure_shift_seldom_looks_like_more():
    """40 studies of 900 questions, in which the method is the base minus the right constant: at most 5 may be called more than that."""
    called = 0
    for seed in range(40):
        labels, method, evidence = simulate(seed, 900, 2.0, 0.0)
        held = answers_of(labels, (evidence > -0.5).astype(int), method, base_margins=evidence + 0.5, method_margins=evidence)
        called += audit.compare_margins(held, draws=200)["method_minus_shifted_base"]["accuracy"]["low"] > 0
    assert called <= 5


def test_the_difference_of_aurocs_is_paired():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    a, b = labels + rng.standard_normal(300), 0.5 * labels + rng.standard_normal(300)
    clusters = [str(i // 3) for i in range(300)]
    value, low, high = auroc_difference(a, b, labels, clusters, draws=300)
    assert value == pytest.approx(auroc(a, labels) - auroc(b, labels)) and low < value < high
    assert auroc_difference(a, a, labels, clusters, draws=50) == (0, 0, 0)
    assert auroc_interval(a, labels, clusters, draws=300)[0] == auroc(a, labels)


def test_a_shift_never_sees_the_picture_it_is_scored_on():
    labels, _, evidence = simulate(0, 600, 1.0, 0.0)
    images = np.array([str(i // 6) for i in range(600)])
    known = audit.shifted(evidence, labels, images, "accuracy")
    for fold in range(3):
        here = audit.folds(images) == fold
        changed = np.where(here, 1 - labels, labels)
        assert (audit.shifted(evidence, changed, images, "accuracy")[here] == known[here]).all()
        assert not set(images[here]) & set(images[~here])


# Files


@pytest.fixture
def say(capsys):
    return partial(run_command, capsys, "audit")


LABELS = ["yes", "no"] * 6
BASE = ["Yes", "Yes", "Yes", "No", "Yes", "Yes", "No", "No", "Yes", "no.", "Yes, there is.", "Yes"]
METHOD = ["Yes", "No", "Yes", "No", "Yes", "No", "No", "No", "Yes", "No", "Perhaps", "No"]


def pope_files(folder, name="q"):
    asked = [
        {"question_id": i + 1, "image": f"{i // 2}.jpg", "text": f"Is there a dog{i} in the image?", "label": label}
        for i, label in enumerate(LABELS)
    ]
    sides = [
        lines(folder / f"{name}_{side}.jsonl", [{"question_id": i + 1, "text": text} for i, text in enumerate(said)])
        for side, said in (("base", BASE), ("method", METHOD))
    ]
    return lines(folder / f"{name}.json", asked), *sides


def test_popes_files_counted_by_hand(tmp_path, say):
    questions, base, method = pope_files(tmp_path)
    code, found, _ = say("--questions", questions, "--base", base, "--method", method)
    assert code == 0 and (found["n"], found["pictures"]) == (12, 6)
    # The method's "Perhaps" is wrong, and that question (label yes) is left out of the rates: five yes and six no remain.
    assert found["base"]["hit_rate"] == 4 / 5 and found["base"]["false_alarm_rate"] == 3 / 6
    assert found["method"]["hit_rate"] == 4 / 5 and found["method"]["false_alarm_rate"] == 0
    assert found["base"]["accuracy"] == 8 / 12 and found["method"]["accuracy"] == 10 / 12
    assert (found["base"]["unread"], found["method"]["unread"]) == (0, 1)
    d, c = sensitivity(4, 3, 3, 1)
    assert (found["base"]["d_prime"], found["base"]["criterion"]) == pytest.approx((d, c))
    assert found["difference"]["accuracy"]["value"] == pytest.approx(2 / 12) and "splits" not in found


def test_popes_splits_apart_and_together(tmp_path, say):
    one, two = pope_files(tmp_path, "random"), pope_files(tmp_path, "popular")
    files = ("--questions", one[0], two[0], "--base", one[1], two[1], "--method", one[2], two[2])
    code, found, _ = say(*files, "--figure", tmp_path / "roc.png")
    assert code == 0 and set(found["splits"]) == {"random", "popular"} and (found["n"], found["pictures"]) == (24, 6)
    assert found["splits"]["random"]["base"]["accuracy"] == 8 / 12
    assert (tmp_path / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_ambers_questions_take_their_labels_from_the_annotations(tmp_path, say):
    kinds = ["discriminative-hallucination", "discriminative-attribute-state"]
    annotations = [{"id": 1, "type": "generative", "truth": ["dog"], "hallu": []}]
    annotations += [{"id": i + 2, "type": kinds[i % 4 // 2], "truth": label} for i, label in enumerate(LABELS)]
    asked = [{"id": i + 1, "image": f"AMBER_{i}.jpg", "query": "Is there a cat in this image?"} for i in range(13)]
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    (tmp_path / "q.json").write_text(json.dumps(asked))
    for side, said in (("base", BASE), ("method", METHOD)):
        rows = [{"id": 1, "response": "A dog."}, *({"id": i + 2, "response": text} for i, text in enumerate(said))]
        (tmp_path / f"{side}.json").write_text(json.dumps(rows))
    files = [tmp_path / name for name in ("q.json", "a.json", "base.json", "method.json")]
    code, found, _ = say("--questions", files[0], "--labels", files[1], "--base", files[2], "--method", files[3])
    assert code == 0 and found["n"] == 12 and set(found["splits"]) == set(kinds) and found["base"]["accuracy"] == 8 / 12


def test_mmes_folders_hold_questions_and_labels(tmp_path, say):
    for side, said in (("base", BASE), ("method", METHOD)):
        (tmp_path / side).mkdir()
        for name in mme.SUBTASKS:
            rows = [f"{i // 2}.jpg\tIs it red{i}?\t{label.title()}\t{said[i]}\n" for i, label in enumerate(LABELS)]
            (tmp_path / side / f"{name}.txt").write_text("".join(rows))
    code, found, _ = say("--base", tmp_path / "base", "--method", tmp_path / "method")
    assert code == 0 and set(found["splits"]) == set(mme.SUBTASKS) and found["base"]["accuracy"] == 8 / 12
    (tmp_path / "method" / "color.txt").write_text("0.jpg\tIs it green?\tNo\tNo\n0.jpg\tIs it red?\tYes\tNo\n")
    code, _, err = say("--base", tmp_path / "base", "--method", tmp_path / "method")
    assert code == 2 and "the same questions" in err


def margin_files(folder, seed=0, n=600):
    labels, _, base = simulate(seed, n, 1.5, 0.0)
    asked = [
        {"question_id": i, "image": str(i // 6), "text": f"Is there an owl{i % 9} in the image?", "label": ("no", "yes")[label]}
        for i, label in enumerate(labels)
    ]
    sides = [
        lines(folder / f"{side}.jsonl", [{"question_id": i, "margin": float(value)} for i, value in enumerate(margins)])
        for side, margins in (("base", base + 0.6), ("method", base))
    ]
    return lines(folder / "q.json", asked), *sides


def test_margins_from_files(tmp_path, say):
    questions, base, method = margin_files(tmp_path)
    code, found, _ = say(
        "--questions", questions, "--base", base, "--method", method, "--margins", "--figure", tmp_path / "roc.png"
    )
    margins = found["margins"]
    assert code == 0 and margins["auroc"]["base"] == pytest.approx(margins["auroc"]["method"])
    assert margins["shifted_base"]["accuracy"] > found["base"]["accuracy"] and "no more than a shift gives" in found["conclusion"]
    for part in ("method_minus_shifted_base", "method_minus_oracle"):
        assert margins[part]["accuracy"]["low"] <= margins[part]["accuracy"]["value"] <= margins[part]["accuracy"]["high"]


def test_the_shift_per_name_knows_each_names_lean(tmp_path, say):
    """Margins that lean by name: one constant for all cannot repair that, one for each name can."""
    labels, _, evidence = simulate(5, 1200, 2.0, 0.0)
    leans = np.where(np.arange(1200) // 2 % 2, 1.5, -1.5)
    images = np.array([str(i // 12) for i in range(1200)])
    names = np.where(leans > 0, "dog", "cat")
    margins = evidence + leans
    answers = audit.Answers(labels, (margins > 0).astype(int), (evidence > 0).astype(int), images, names, margins, evidence)
    found = audit.compare_margins(answers, draws=200)
    assert found["oracle_per_name"]["accuracy"] > found["shifted_base"]["accuracy"] + 0.05
    assert abs(found["method_minus_oracle"]["accuracy"]["value"]) < 0.02 < found["method_minus_shifted_base"]["accuracy"]["low"]


def test_questions_of_one_label_have_no_d_prime(tmp_path, say):
    questions = lines(tmp_path / "q.json", [{"question_id": i, "text": "Is there a dog?", "label": "no"} for i in range(4)])
    sides = [lines(tmp_path / f"{k}.jsonl", [{"question_id": i, "text": "No"} for i in range(4)]) for k in "ab"]
    code, found, _ = say("--questions", questions, "--base", sides[0], "--method", sides[1], "--figure", tmp_path / "roc.png")
    assert code == 0 and found["base"]["d_prime"] is None and "one label only" in found["conclusion"]


BAD = {
    "no answer": ({"question_id": 1, "text": "Yes"}, "no answer to"),
    "stray answer": ({"question_id": 99, "text": "Yes"}, '"99" is no question'),
    "twice": ({"question_id": 2, "text": "Yes"}, "occurs twice"),
}


@pytest.mark.parametrize("kind", BAD)
def test_wrong_answers_are_one_line(tmp_path, say, kind):
    questions, base, method = pope_files(tmp_path)
    row, says = BAD[kind]
    with open(base, "w" if kind == "no answer" else "a") as file:
        file.write(json.dumps(row) + "\n")
    code, _, err = say("--questions", questions, "--base", base, "--method", method)
    assert code == 2 and err.count("\n") == 1 and says in err


def test_wrong_options_are_one_line(tmp_path, say):
    questions, base, method = pope_files(tmp_path)
    files = ("--questions", questions, "--base", base, "--method", method)
    for arguments, says in (
        ((*files, "--margins"), 'missing "margin"'),
        ((*files, "--figure", tmp_path / "none" / "roc.png"), "cannot be written"),
        ((*files, "--figure", tmp_path / "roc.gif"), "ends in .png"),
        (("--questions", questions, base, "--base", base, "--method", method), 'missing "image"'),
        (("--base", base, "--method", method), "give the questions with --questions"),
        (("--base", tmp_path, "--method", tmp_path / "no"), "none of MME's subtasks"),
    ):
        code, _, err = say(*arguments)
        assert code == 2 and err.count("\n") == 1 and says in err, (arguments, err)


FIELDS = st.dictionaries(
    st.sampled_from(["question_id", "id", "image", "label", "truth", "text", "question", "margin", "type", "category", "answer"]),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["yes", "No", "generative", ""]), st.text(max_size=5)
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@hypothesis_settings(max_examples=2000)
@given(asked=st.lists(FIELDS, max_size=3), said=st.lists(FIELDS, max_size=3), margins=st.booleans())
def test_any_files_give_a_result_or_a_user_error(folder, asked, said, margins):
    questions, answers = lines(folder / "q.json", asked), lines(folder / "a.jsonl", said)
    try:
        items, sides = audit_files.read_sides([questions], None, {"base": [answers], "method": [answers]}, margins=margins)
        assert len(items) == len(sides["base"]) == len(sides["method"])
    except UserError as error:
        assert str(error) and "\n" not in str(error)


def test_the_help_explains_both_numbers(capsys):
    with pytest.raises(SystemExit):
        main(["audit", "--help"])
    shown = capsys.readouterr().out
    assert "d' is how well yes is told from no" in shown and "The criterion c is the lean" in shown


# Files of other tools, and files that do not belong together


def table(path, rows, separator=","):
    names = list(rows[0])
    path.write_text("\n".join([separator.join(names), *(separator.join(str(row[name]) for name in names) for row in rows)]) + "\n")
    return str(path)


def refused(said, *words):
    code, _, err = said
    assert code == 2 and err.count("\n") == 1 and all(word in err for word in words), err


def split_files(folder):
    """Three splits of the same questions, and answers of a side that are right in one split each: their accuracies tell them apart."""
    for at, split in enumerate(("random", "popular", "adversarial")):
        asked = [{"question_id": i, "image": f"{i // 2}.jpg", "text": f"Is there a dog{i}?", "label": LABELS[i]} for i in range(12)]
        lines(folder / f"coco_pope_{split}.json", asked)
        right = 12 - 2 * at  # of 12
        said = [LABELS[i] if i < right else ("no" if LABELS[i] == "yes" else "yes") for i in range(12)]
        for name in (f"ans_{split}", f"file{at}"):
            lines(folder / f"{name}.jsonl", [{"question_id": i, "text": text} for i, text in enumerate(said)])
    return [folder / f"coco_pope_{split}.json" for split in ("random", "popular", "adversarial")]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_the_splits_of_answers_are_told_by_their_names(tmp_path, say, order):
    questions, splits = split_files(tmp_path), ["random", "popular", "adversarial"]
    answers = [tmp_path / f"ans_{splits[at]}.jsonl" for at in order]
    code, found, _ = say("--questions", *questions, "--base", *answers, "--method", *reversed(answers))
    assert code == 0
    for split, right in zip(splits, (12, 10, 8), strict=True):
        assert found["splits"][split]["base"]["accuracy"] == found["splits"][split]["method"]["accuracy"] == right / 12


def test_files_named_after_different_splits_are_refused(tmp_path, say):
    questions = split_files(tmp_path)
    random, popular = tmp_path / "ans_random.jsonl", tmp_path / "ans_popular.jsonl"
    plain = [tmp_path / f"file{at}.jsonl" for at in range(3)]
    mixed = [popular, plain[1], plain[2]]
    refused(say("--questions", *questions, "--base", *mixed, "--method", *plain), "popular", "random")
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(questions[0].read_text())
    files = ("--questions", tmp_path / "one.json", tmp_path / "two.json", "--base", random, popular)
    refused(say(*files, "--method", popular, random), "same order of splits")
    refused(say(*files, "--method", plain[0], plain[0]), "file0.jsonl is given twice")


@pytest.mark.parametrize(
    ("row", "more"),
    [
        (
            lambda at, i, said: {
                "question_id": i + 10_000_000 * at,
                "prompt": f"Is there a dog{i} of {at}?\nOne word.",
                "text": said,
            },
            (),
        ),
        (lambda at, i, said: {"doc_id": 12 * at + i, "input": f"Is there a dog{i} of {at}?", "filtered_resps": [said]}, ()),
        (lambda at, i, said: {"image": f"{i // 2}.jpg", "prompt": f"Is there a dog{i} of {at}?", "output": said}, ()),
        (lambda at, i, said: {"text": said}, ("--by-order",)),
    ],
    ids=["LLaVA's numbering", "lmms-eval's log", "picture and question", "by order"],
)
def test_one_file_of_answers_to_three_splits(tmp_path, say, row, more):
    questions, rows = [], []
    for at, split in enumerate(("random", "popular", "adversarial")):
        asked = [
            {"question_id": i, "image": f"{i // 2}.jpg", "text": f"Is there a dog{i} of {at}?", "label": LABELS[i]}
            for i in range(12)
        ]
        questions.append(lines(tmp_path / f"coco_pope_{split}.json", asked))
        rows += [row(at, i, "Yes" if i < at else "No") for i in range(12)]
    base = lines(tmp_path / "base.jsonl", rows)
    code, found, err = say("--questions", *questions, "--base", base, "--method", base, *more)
    assert code == 0, err
    assert [part["base"]["accuracy"] for part in found["splits"].values()] == [6 / 12, 7 / 12, 6 / 12]


def test_answers_that_cannot_be_these_questions_are_refused_as_by_pope(tmp_path, say):
    questions, base, method = pope_files(tmp_path)
    rows = [json.loads(line) for line in Path(base).read_text().splitlines()]
    asked = [json.loads(line) for line in Path(questions).read_text().splitlines()]
    files = ("--questions", questions, "--method", method, "--base")
    for change, says in (
        ([row | {"prompt": q["text"]} for row, q in zip(rows, asked[1:] + asked[:1], strict=True)], "the prompt is"),
        ([row | {"image": q["image"]} for row, q in zip(rows, asked[2:] + asked[:2], strict=True)], "the picture is"),
        ([{"question_id": q["question_id"], "answer": q["label"], "caption": "No"} for q in asked], "is the label in every row"),
        ([q | {"question_id": q["question_id"] + 1} for q in rows], "identifiers are one too high"),
        (asked, "repeats the question"),
    ):
        refused(say(*files, lines(tmp_path / "changed.jsonl", change)), says)
    assert say(*files, lines(tmp_path / "b.jsonl", [{"text": row["text"]} for row in rows]))[0] == 2
    lines(Path(method), [{"text": text} for text in METHOD])
    assert say(*files, tmp_path / "b.jsonl", "--by-order")[1]["method"]["accuracy"] == 10 / 12


def test_question_files_of_the_same_name_are_two_splits(tmp_path, say):
    for name in "ab":
        (tmp_path / name).mkdir()
    one, two = pope_files(tmp_path / "a"), pope_files(tmp_path / "b")
    code, found, _ = say("--questions", one[0], two[0], "--base", one[1], two[1], "--method", one[2], two[2])
    assert code == 0 and len(found["splits"]) == 2 and found["n"] == 24


def mme_folder(folder, said, *, picture="{}.jpg", truth="{}", end="txt"):
    folder.mkdir(parents=True)
    for name in (*mme.SUBTASKS, "code_reasoning"):
        rows = [
            f"{picture.format(i // 2)}\tIs it red{i}?\t{truth.format(label.title())}\t{said[i]}\n" for i, label in enumerate(LABELS)
        ]
        (folder / f"{name}.{end}").write_text("".join(rows))
    return folder


def test_mmes_answers_are_read_as_mme_reads_them(tmp_path, say):
    thinking = [f"<think>No, or is it? yes no</think>{text}" for text in METHOD]
    base = mme_folder(tmp_path / "base", BASE)
    (base / "README.txt").write_text("These are answers.\n")
    method = mme_folder(tmp_path / "method" / "MME_Benchmark", thinking, truth="{}.")
    for path in method.glob("*.txt"):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    code, found, err = say("--base", base, "--method", tmp_path / "method")
    assert code == 0, err
    assert found["base"]["accuracy"] == 8 / 12 and found["method"]["accuracy"] == 10 / 12 and found["method"]["unread"] == 5
    assert found["pictures"] == 5 * 6, "0.jpg of existence and 0.jpg of count are two pictures"


def test_mmes_folder_with_a_file_for_each_picture_equals_the_flat_one(tmp_path, say):
    base = mme_folder(tmp_path / "base", BASE)
    for name in (*mme.SUBTASKS, "code_reasoning"):
        inner = tmp_path / "nested" / name / "questions_answers_YN"
        inner.mkdir(parents=True)
        for at in range(6):
            rows = [f"Is it red{i}?\t{LABELS[i].title()}\t{METHOD[i]}\n" for i in (2 * at, 2 * at + 1)]
            (inner / f"{at}.txt").write_text("".join(rows))
    code, found, err = say("--base", base, "--method", tmp_path / "nested")
    assert code == 0 and found["method"]["accuracy"] == 10 / 12, err


def test_mmes_subtasks_are_audited_as_far_as_they_are_there(tmp_path, say):
    for side, said in (("base", BASE), ("method", METHOD)):
        folder = mme_folder(tmp_path / side, said)
        for name in ("existence", "position"):
            (folder / f"{name}.txt").unlink()
    code, found, err = say("--base", tmp_path / "base", "--method", tmp_path / "method")
    assert code == 0 and set(found["splits"]) == {"count", "color", "code_reasoning"}, err
    assert "not there: existence, position, " in err


def test_mmes_tables_are_audited_without_questions(tmp_path, say):
    sides = []
    for side, said in (("base", BASE), ("method", METHOD)):
        rows = [
            {
                "category": name,
                "question_id": f"{name}/{i // 2}.jpg",
                "question": f"Is it red{i}?",
                "truth": label,
                "prediction": said[i],
            }
            for name in mme.SUBTASKS
            for i, label in enumerate(LABELS)
        ]
        sides.append(table(tmp_path / f"{side}.tsv", rows, "\t"))
    code, found, err = say("--base", sides[0], "--method", sides[1])
    assert code == 0 and found["method"]["accuracy"] == 10 / 12 and found["pictures"] == 4 * 6, err


def test_mmes_mistakes_are_one_line(tmp_path, say):
    base, method = mme_folder(tmp_path / "base", BASE), mme_folder(tmp_path / "method", METHOD)
    whole = (method / "color.txt").read_text()
    (method / "color.txt").write_text(whole + whole.splitlines()[0] + "\n")
    refused(say("--base", base, "--method", method), "color.txt:13", "occurs twice")
    (method / "color.txt").write_text(whole.replace("Is it red3?", "Is it blue?"))
    refused(say("--base", base, "--method", method), "color.txt:4", "the same questions")
    (method / "color.txt").write_text(whole)
    (method / "code_reasoning.txt").unlink()
    refused(say("--base", base, "--method", method), "code_reasoning.txt:1", "the same questions")


def test_a_question_of_two_splits_counts_in_both_and_once_in_all(tmp_path, say):
    questions, base, method = pope_files(tmp_path)
    rows = [json.loads(line) for line in Path(questions).read_text().splitlines()]
    kinds = ["random,popular", "Popular", "adversarial , random"]
    lines(tmp_path / "q.json", [row | {"category": kinds[i % 3]} for i, row in enumerate(rows)])
    code, found, _ = say("--questions", questions, "--base", base, "--method", method, "--figure", tmp_path / "roc.png")
    assert code == 0 and found["n"] == 12
    assert {name: part["n"] for name, part in found["splits"].items()} == {"random": 8, "popular": 8, "adversarial": 4}


@pytest.mark.parametrize(
    ("said", "says"),
    [("Perhaps", "no question has an answer from both sides"), ("Yes", "the questions that both sides answered")],
)
def test_the_sentence_says_why_there_is_no_d_prime(tmp_path, say, said, says):
    questions, base, method = pope_files(tmp_path)
    lines(tmp_path / "q_method.jsonl", [{"question_id": i + 1, "text": said if i % 2 == 0 else "Perhaps"} for i in range(12)])
    code, found, err = say("--questions", questions, "--base", base, "--method", method, "--figure", tmp_path / "roc.png")
    assert code == 0 and says in found["conclusion"] and found["method"]["d_prime"] is None
    assert found["method"]["false_alarm_rate"] is None and "say neither yes nor no" in err
    assert (found["method"]["hit_rate"] is None) == (said == "Perhaps") and found["read_by_both"] == (0 if said == "Perhaps" else 6)


def with_margins(path, margins):
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    lines(Path(path), [row | {"margin": margin} for row, margin in zip(rows, margins, strict=True)])


SIGNED = {"Yes": 1.5, "No": -1.5, "no.": -0.5, "Yes, there is.": 2.0, "Perhaps": 0.1}


def test_margins_that_contradict_the_replies_are_refused(tmp_path, say):
    questions, base, method = pope_files(tmp_path)
    files = ("--questions", questions, "--base", base, "--method", method, "--margins")
    with_margins(base, [SIGNED[text] for text in BASE])
    with_margins(method, [SIGNED[text] for text in METHOD])
    code, _, err = say(*files)
    assert code == 0 and "replies contradict" not in err
    with_margins(method, [-SIGNED[text] for text in METHOD])
    refused(say(*files), "11 of 11 replies contradict", "above 0 for Yes")
    with_margins(method, [0.9 if text == "Yes" else 0.2 for text in METHOD])
    refused(say(*files), "7 of 11 replies contradict")
    with_margins(base, [0.9 if text.startswith("Yes") else 0.2 for text in BASE])
    with_margins(method, [SIGNED[text] for text in METHOD])
    code, _, err = say(*files)
    assert code == 0 and "4 of 12 replies contradict" in err and "not the probability of Yes" in err


def test_margins_come_from_tables_too(tmp_path, say):
    questions, base, method = margin_files(tmp_path)
    whole = say("--questions", questions, "--base", base, "--method", method, "--margins")[1]
    for side, end, separator in (("base", "csv", ","), ("method", "tsv", "\t")):
        rows = [json.loads(line) for line in (tmp_path / f"{side}.jsonl").read_text().splitlines()]
        table(tmp_path / f"{side}.{end}", rows, separator)
    files = ("--questions", questions, "--base", tmp_path / "base.csv", "--method", tmp_path / "method.tsv", "--margins")
    assert say(*files)[1] == whole


@pytest.mark.parametrize(
    ("margin", "says"),
    [
        (None, '"margin" is empty or NaN'),
        ("", '"margin" is empty or NaN'),
        (float("nan"), '"margin" is empty or NaN'),
        ("nan", "a finite number"),
        ("high", 'got "high"'),
        (True, "got true"),
        (1e308, "got 1e+308"),
        (10**400, "a finite number"),
        ([1.5], "got [1.5]"),
    ],
)
def test_a_wrong_margin_is_one_line(tmp_path, say, margin, says):
    questions, base, _ = pope_files(tmp_path)
    rows = [{"question_id": i + 1, "margin": margin if i == 4 else 0.5} for i in range(12)]
    lines(tmp_path / "q_base.jsonl", rows)
    refused(say("--questions", questions, "--base", base, "--method", base, "--margins"), "q_base.jsonl:5", says)


def test_margins_and_a_figure_of_one_label_are_quiet(tmp_path, say):
    asked = [{"question_id": i, "image": str(i), "text": f"Is there a dog{i}?", "label": "no"} for i in range(12)]
    questions = lines(tmp_path / "q.json", asked)
    sides = [lines(tmp_path / f"{k}.jsonl", [{"question_id": i, "margin": (-1) ** i * 2.0} for i in range(12)]) for k in "ab"]
    files = ("--questions", questions, "--base", sides[0], "--method", sides[1], "--margins")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, found, err = say(*files, "--figure", tmp_path / "roc.png")
    assert code == 0 and err == "" and found["margins"] is None


LMMS = ("random", "popular", "adversarial")


def lmms_lab(label="answer"):
    """Rows as lmms-lab/POPE has them: question_id starts anew in each category, and only id is unique."""
    return [
        {
            "id": str(12 * at + i),
            "question_id": str(i + 1),
            "question": f"Is there a dog{i} in the image?",
            label: text,
            "image_source": f"COCO_val2014_{i // 2:012d}",
            "category": split,
        }
        for at, split in enumerate(LMMS)
        for i, text in enumerate(LABELS)
    ]


ANSWERED_LMMS = {
    "logs of old": lambda k, row, text: {
        "doc_id": k,
        "doc": row,
        "target": row["answer"],
        "filtered_resps": [text],
        "resps": [[text]],
    },
    "two numbers, the first of which repeats": lambda k, row, text: {"question_id": row["question_id"], "doc_id": k, "text": text},
    "id": lambda k, row, text: {"id": k, "text": text},
    "the identifier under another name": lambda k, row, text: {"question_id": k, "text": text},
    "category and number": lambda k, row, text: {"question_id": int(row["question_id"]), "category": row["category"], "text": text},
    "the rows themselves": lambda k, row, text: {**row, "prediction": text},
}


@pytest.mark.parametrize("form", ANSWERED_LMMS)
def test_lmms_labs_questions_fit_answers_of_each_form(tmp_path, say, form):
    rows = lmms_lab()
    questions = lines(tmp_path / "pope.jsonl", rows)
    sides = [
        lines(tmp_path / f"{side}.jsonl", [ANSWERED_LMMS[form](k, row, said[k % 12]) for k, row in enumerate(rows)][::-1])
        for side, said in (("base", BASE), ("method", METHOD))
    ]
    asked = sides[0] if form == "logs of old" else questions
    for file in (questions, asked):
        code, found, err = say("--questions", file, "--base", sides[0], "--method", sides[1])
        assert code == 0 and (found["n"], found["pictures"]) == (36, 6), err
        assert {name: part["base"]["accuracy"] for name, part in found["splits"].items()} == dict.fromkeys(LMMS, 8 / 12)
        assert found["method"]["accuracy"] == 10 / 12


def test_lmms_labs_mme_is_known_by_picture_and_question(tmp_path, say):
    asked = [
        {
            "question_id": f"{name}/{i // 2:04d}.png",
            "question": f"Is it red{i}? Please answer yes or no.",
            "answer": label.title(),
            "category": name,
        }
        for name in ("existence", "code_reasoning")
        for i, label in enumerate(LABELS)
    ]
    questions = lines(tmp_path / "mme.jsonl", asked)
    sides = [
        lines(tmp_path / f"{side}.jsonl", [row | {"prediction": said[k % 12]} for k, row in enumerate(asked)][::-1])
        for side, said in (("base", BASE), ("method", METHOD))
    ]
    code, found, err = say("--questions", questions, "--base", sides[0], "--method", sides[1])
    assert code == 0 and found["pictures"] == 12 and found["method"]["accuracy"] == 10 / 12, err
    assert set(found["splits"]) == {"existence", "code_reasoning"}


def test_hallusionbenchs_items_are_known_by_their_five_keys(tmp_path, say):
    asked = [
        {
            "category": kind,
            "subcategory": sub,
            "set_id": str(i // 4),
            "figure_id": str(i // 2 % 2),
            "question_id": str(i % 2),
            "question": f"Is it red{i}?",
            "gt_answer": str(int(label == "yes")),
            "filename": f"./{kind}/{sub}/{i // 4}_{i // 2 % 2}.png",
        }
        for kind, sub in (("VD", "figure"), ("VS", "chart"))
        for i, label in enumerate(LABELS)
    ]
    questions = lines(tmp_path / "hb.json", asked)
    sides = [
        lines(tmp_path / f"{side}.json", [row | {"model_prediction": said[k % 12]} for k, row in enumerate(asked)][::-1])
        for side, said in (("base", BASE), ("method", METHOD))
    ]
    code, found, err = say("--questions", questions, "--base", sides[0], "--method", sides[1])
    assert code == 0 and (found["n"], found["pictures"]) == (24, 12) and found["method"]["accuracy"] == 10 / 12, err
    assert set(found["splits"]) == {"VD", "VS"}


def amber_files(folder, label="truth"):
    """36 discriminative questions, 12 of each dimension, and a generative one; (questions, annotations, answers by side)."""
    kinds = ["discriminative-hallucination", "discriminative-attribute-state", "discriminative-relation"]
    marked = [{"id": 1, "type": "generative", "truth": ["dog"], "hallu": []}]
    marked += [{"id": i + 2, "type": kinds[i // 12], label: LABELS[i % 12]} for i in range(36)]
    asked = [{"id": i + 1, "image": f"AMBER_{i // 2}.jpg", "query": f"Is there a cat{i} in this image?"} for i in range(37)]
    said = {
        side: [{"id": 1, "response": "A dog."}, *({"id": i + 2, "response": texts[i % 12]} for i in range(36))]
        for side, texts in (("base", BASE), ("method", METHOD))
    }
    return asked, lines(folder / "annotations.json", marked), said


@pytest.mark.parametrize("label", ["truth", "ground_truth", "target", "gt", "label"])
def test_discriminative_questions_take_answers_to_all_of_amber(tmp_path, say, label):
    asked, annotations, said = amber_files(tmp_path, label)
    sides = [lines(tmp_path / f"{side}.json", rows) for side, rows in said.items()]
    for chosen, n in ((asked[1:], 36), (asked[1:13], 12)):
        questions = lines(tmp_path / "query.json", chosen)
        code, found, err = say("--questions", questions, "--labels", annotations, "--base", sides[0], "--method", sides[1])
        assert code == 0 and found["n"] == n and found["method"]["accuracy"] == 10 / 12, err


def test_answers_to_one_dimension_of_amber_are_audited_on_it(tmp_path, say):
    asked, annotations, said = amber_files(tmp_path)
    questions = lines(tmp_path / "query_all.json", asked)
    base = lines(tmp_path / "base.json", said["base"])
    method = lines(tmp_path / "method.json", said["method"][13:25])
    code, found, err = say("--questions", questions, "--labels", annotations, "--base", base, "--method", method)
    assert code == 0 and found["n"] == 12 and "the audit is of attribute alone" in err and "splits" not in found
    lines(tmp_path / "method.json", said["method"][13:24])
    code, _, err = say("--questions", questions, "--labels", annotations, "--base", base, "--method", method)
    assert code == 2 and f'method.json: no answer to id "25", asked at {questions}:25' in err.splitlines()[-1]


def test_messages_name_the_files_own_field_and_what_is_wrong_with_the_numbers(tmp_path, say):
    asked = [{"id": i + 1, "image": f"{i}.jpg", "text": f"Is there a dog{i}?", "label": label} for i, label in enumerate(LABELS)]
    questions = lines(tmp_path / "q.json", asked)
    for change, says in (
        (lambda i: i, 'id "0" is no question; the answers\' identifiers are one too low'),
        (lambda i: i + 2, 'id "13" is no question; the answers\' identifiers are one too high'),
        (lambda i: f"{i + 1:04d}", 'id "0001" is no question; the identifiers differ in leading zeros'),
        (lambda i: f"q{i}", 'id "q0" is no question'),
    ):
        base = lines(tmp_path / "a.jsonl", [{"id": change(i), "text": text} for i, text in enumerate(BASE)])
        refused(say("--questions", questions, "--base", base, "--method", base), says)
    base = lines(tmp_path / "a.jsonl", [{"id": i + 1, "text": text} for i, text in enumerate(BASE) if i not in (3, 7)])
    refused(say("--questions", questions, "--base", base, "--method", base), 'no answer to id "4"', "(and 1 more)")
    labels = lines(tmp_path / "labels.json", [{"id": i, "label": "no"} for i in range(12)])
    bare = lines(tmp_path / "bare.json", [{name: value for name, value in row.items() if name != "label"} for row in asked])
    refused(
        say("--questions", bare, "--labels", labels, "--base", base, "--method", base),
        'id "12" has no label',
        "identifiers are one too high",
    )


@pytest.mark.parametrize(
    ("label", "says"),
    [(None, '"label" is empty or NaN'), ("", '"label" is empty or NaN'), ("maybe", '"label": the label must be "yes" or "no"')],
)
def test_a_wrong_label_is_one_line_and_no_other_field_stands_in(tmp_path, say, label, says):
    questions, base, method = pope_files(tmp_path)
    rows = [json.loads(line) for line in Path(questions).read_text().splitlines()]
    rows = [row | {"answer": "Yes"} | ({"label": label} if i == 4 else {}) for i, row in enumerate(rows)]
    refused(say("--questions", lines(tmp_path / "q.json", rows), "--base", base, "--method", method), "q.json:5", says)


def test_the_field_of_the_reply_can_be_named(tmp_path, say):
    questions, *_ = pope_files(tmp_path)
    rows = [{"question_id": i + 1, "response": "Yes", "output": text} for i, text in enumerate(BASE)]
    both = lines(tmp_path / "both.jsonl", rows)
    files = ("--questions", questions, "--base", both, "--method", both)
    refused(say(*files), "name the right one with --reply")
    code, found, _ = say(*files, "--reply", "output")
    assert code == 0 and found["base"]["accuracy"] == 8 / 12


def test_questions_without_pictures_are_pictures_of_their_own(tmp_path, say):
    for name in ("one", "two"):
        asked = [{"question_id": i + 1, "text": f"Is there a dog{i}?", "label": label} for i, label in enumerate(LABELS)]
        lines(tmp_path / f"{name}.json", asked)
        for side in "ab":
            lines(tmp_path / f"{name}_{side}.jsonl", [{"question_id": i + 1, "text": text} for i, text in enumerate(BASE)])
    files = [[tmp_path / f"{name}{end}" for name in ("one", "two")] for end in (".json", "_a.jsonl", "_b.jsonl")]
    code, found, err = say("--questions", *files[0], "--base", *files[1], "--method", *files[2])
    assert code == 0 and found["pictures"] == 24 and "12 of 12 rows name no picture" in err

"""Metrics against independent computations: brute force, scikit-learn, cases worked by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from hkd_core.common import margins
from hkd_core.common.errors import UserError
from hkd_core.evaluation import oracle, study, suite, tables
from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.benchmarks.mme import mme_counts, mme_score
from hkd_core.evaluation.chair import chair, mentioned, singular, vocabulary_of
from hkd_core.evaluation.comparison import Comparison, compare_all, compared
from hkd_core.evaluation.markdown import markdown
from hkd_core.evaluation.mme import subtask_scores
from hkd_core.evaluation.over_seeds import CLAIMS
from hkd_core.evaluation.pope import SPLITS, build_questions
from hkd_core.evaluation.registry import BENCHMARKS
from hkd_core.evaluation.results import Results, save
from hkd_core.inference.scoring import score_choices
from hkd_core.models.vlm import encode_all
from hkd_core.world.wording import WORDING

NAMES = ("dog", "cup", "orange", "car", "tree", "boat", "egg")
PICTURES = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True), min_size=3, max_size=12).map(
    lambda many: [{"image": f"p{i}", "objects": names} for i, names in enumerate(many)]
)


@settings(deadline=None, max_examples=60)
@given(PICTURES, st.sampled_from(SPLITS))
def test_pope_asks_three_present_and_three_different_absent_objects(pictures, split):
    there = {p["image"]: set(p["objects"]) for p in pictures}
    known = set().union(*there.values())
    if any(len(names) >= 3 and len(known - names) < 3 for names in there.values()):
        return  # a picture that leaves too little absent
    rows = build_questions(pictures, split, seed=0)
    for image, names in there.items():
        asked = [row for row in rows if row["image"] == image]
        assert len(asked) == (6 if len(names) >= 3 else 0)
        assert all((row["object"] in names) == (row["label"] == "yes") for row in asked)
        assert len({row["object"] for row in asked}) == len(asked)
    assert rows == build_questions(pictures, split, seed=0)


def test_pope_popular_and_adversarial_by_hand():
    pictures = [
        {"image": "a", "objects": ["dog", "cup", "car"]},
        {"image": "b", "objects": ["dog", "tree", "boat"]},
        {"image": "c", "objects": ["dog", "tree", "egg"]},
    ]

    def absent(split):
        return [row["object"] for row in build_questions(pictures, split) if row["image"] == "a" and row["label"] == "no"]

    assert absent("popular") == ["tree", "boat", "egg"]  # tree is in two pictures; ties in first-seen order
    assert absent("adversarial")[0] == "tree"  # the absent object that meets the dog most often


def test_pope_questions_are_english():
    texts = {
        row["text"]
        for row in build_questions(
            [{"image": "a", "objects": ["orange", "dog", "egg"]}, {"image": "b", "objects": ["car", "tree", "cup"]}], "random"
        )
    }
    assert {"Is there an orange in the image?", "Is there a dog in the image?"} <= texts and not any("imange" in t for t in texts)


def test_an_unknown_split_is_named():
    with pytest.raises(UserError, match='got "hard"'):
        build_questions([], "hard")


def test_chair_worked_by_hand():
    captions = [("a", "Two dogs, a cup and a dog."), ("b", "A car next to knives."), ("c", "Nothing here.")]
    found = chair(
        captions, {"a": ["dog", "tree"], "b": ["car", "knife"], "c": ["cup"]}, vocabulary_of(["dog", "cup", "car", "knife", "tree"])
    )
    assert [c["generated"] for c in found["captions"]] == [["dog", "cup", "dog"], ["car", "knife"], []]
    assert found["chair_i"] == pytest.approx(100 / 5) and found["chair_s"] == pytest.approx(100 / 3)
    assert found["recall"] == pytest.approx(100 * 3 / 5) and found["mean_words"] == pytest.approx((7 + 5 + 2) / 3)


def test_plurals_are_found_by_rule_and_by_list_and_words_that_only_look_like_it_are_not():
    vocabulary = {"dog", "knife", "bus", "berry", "boat"}
    assert [singular(w, vocabulary) for w in ("dogs", "knives", "buses", "berries", "glass")] == [
        "dog",
        "knife",
        "bus",
        "berry",
        "glass",
    ]
    assert mentioned("boats on a coast", vocabulary_of(vocabulary)) == ["boat"]


LABELS = st.integers(2, 4).flatmap(
    lambda c: st.tuples(st.just(c), st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=40))
)


@given(LABELS)
def test_scores_equal_scikit_learns(data):
    classes, pairs = data
    labels, answers = map(list, zip(*pairs, strict=True))
    sums = stats.confusion_counts(labels, answers, classes).sum(0)
    assert float(stats.accuracy(sums)) == pytest.approx(sk.accuracy_score(labels, answers))
    every = list(range(classes))
    assert float(stats.macro_f1(sums)) == pytest.approx(
        sk.f1_score(labels, answers, average="macro", labels=every, zero_division=0)
    )
    if classes == 2:
        assert float(stats.f1(sums)) == pytest.approx(sk.f1_score(labels, answers, zero_division=0))
        assert float(stats.yes_ratio(sums)) == pytest.approx(np.mean(answers))


def test_the_clustered_interval_is_that_of_drawing_whole_pictures():
    rng = np.random.default_rng(0)
    clusters = [f"p{i // 6}" for i in range(240)]
    right = np.repeat(rng.random(40) < 0.7, 6)  # answers about a picture stand and fall together
    counts = stats.confusion_counts(np.ones(240, int), right.astype(int), 2)
    value, low, high = stats.cluster_interval(counts, clusters, stats.accuracy, draws=4000, seed=1)
    brute = [np.mean(right.reshape(40, 6)[rng.integers(0, 40, 40)]) for _ in range(4000)]
    assert value == pytest.approx(right.mean())
    assert np.allclose([low, high], np.percentile(brute, [2.5, 97.5]), atol=0.02)
    alone = stats.cluster_interval(counts, [str(i) for i in range(240)], stats.accuracy, draws=2000)
    assert high - low > 1.8 * (alone[2] - alone[1])


def test_a_paired_difference_with_itself_is_nothing():
    counts = stats.confusion_counts([0, 1, 1, 0], [0, 1, 0, 0], 2)
    assert stats.paired_interval(counts, counts, list("aabb"), stats.f1, draws=100) == (0, 0, 0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_equals_the_binomial_sum(pairs):
    a, b = map(list, zip(*pairs, strict=True))
    found = stats.mcnemar(a, b)
    fixed, n = found["fixed"], found["fixed"] + found["broken"]
    tail = sum(math.comb(n, k) for k in range(n + 1) if math.comb(n, k) <= math.comb(n, fixed)) / 2**n
    assert found["p"] == pytest.approx(tail) and n == sum(x != y for x, y in pairs)


@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 1)), min_size=2, max_size=30))
def test_no_other_shift_has_a_better_f1(data):
    values, labels = np.array([m / 4 for m, _ in data]), np.array([y for _, y in data])

    def f1(c):
        return sk.f1_score(labels, values > c, zero_division=0)

    assert f1(margins.best_shift(values, labels)) >= max(f1(c) for c in np.linspace(-6, 6, 97)) - 1e-9


MARGINS = st.lists(st.tuples(st.integers(-40, 40).map(lambda k: k / 8), st.integers(0, 1)), min_size=1, max_size=40)


@given(MARGINS)
def test_calibration_by_brute_force_and_by_scikit_learn(data):
    values, labels = map(list, zip(*data, strict=True))
    p = [1 / (1 + math.exp(-m)) for m in values]
    error = 0.0
    for k in range(15):
        inside = [i for i, x in enumerate(p) if k / 15 <= x < (k + 1) / 15]
        if inside:
            error += abs(sum(p[i] for i in inside) - sum(labels[i] for i in inside)) / len(p)
    assert margins.calibration_error(values, labels) == pytest.approx(error)
    assert margins.brier(values, labels) == pytest.approx(sk.brier_score_loss(labels, p, pos_label=1))


def test_margins_of_any_size_are_probabilities():
    assert margins.yes_probability([-1000, 0, 1000]).tolist() == [0, 0.5, 1]


def test_a_moved_threshold_changes_the_criterion_and_not_the_eyes():
    from scipy.stats import norm

    def table(lean, n=10**6):
        hit, alarm = norm.cdf(0.75 - lean), norm.cdf(-0.75 - lean)
        return round(n * hit), round(n * alarm), n - round(n * alarm), n - round(n * hit)

    for lean in (-0.6, 0.0, 0.9):
        assert margins.sensitivity(*table(lean)) == pytest.approx((1.5, lean), abs=1e-3)
    assert all(math.isfinite(x) for x in margins.sensitivity(5, 0, 5, 0))


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p):
    adjusted = stats.holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[i] * (len(p) - rank) > level:
                break
            rejected.add(i)
        assert {i for i, a in enumerate(adjusted) if a <= level} == rejected


def test_the_sign_test_counts_a_picture_once_and_is_mcnemars_where_each_has_one_answer():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 60)) < 0.6
    alone = stats.sign_test(a, b, [str(i) for i in range(60)])
    assert {k: alone[k] for k in ("fixed", "broken", "p")} == stats.mcnemar(a, b)
    # The same six answers about every picture are no six pieces of evidence.
    sixfold = stats.sign_test(np.repeat(a, 6), np.repeat(b, 6), np.repeat(np.arange(60), 6))
    assert sixfold["p"] == alone["p"] and sixfold["fixed"] == 6 * alone["fixed"]


def test_answers_to_other_questions_are_not_compared():
    rows = [
        {"image_id": str(i), "prompt": "?", "label": "A", "answer": "A", "choices": ["A", "B"], "benchmark": "task2"}
        for i in range(3)
    ]
    assert compared(rows, rows, "macro_f1", draws=10, seed=0)["difference"] == 0
    with pytest.raises(ValueError, match="answers to the same questions"):
        compared(rows, rows[::-1], "macro_f1", draws=10, seed=0)


def test_the_smallest_detectable_difference_is_found_four_times_in_five():
    rng, error = np.random.default_rng(0), 0.01
    effect = stats.smallest_detectable(-1.96 * error, 1.96 * error)
    found = np.abs(rng.normal(effect, error, 100_000)) > 1.96 * error
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_the_controls_ask_about_another_picture_and_about_none(vlm, pictures):
    some = dict(list(pictures.items())[:4])
    features = dict(zip(some, encode_all({"": vlm}, list(some.values()))[""], strict=True))
    row = {
        "task": "pope_adversarial",
        "prompt": "Is there a dog in the image?",
        "answer": "Yes",
        "choices": ["Yes", "No"],
        "meta": {},
    }
    split = suite.Split([row | {"image_id": name} for name in some], features)
    answers = suite.yes_no_answers(vlm, split, split, suite.CONTROLS)
    margin = {(a["decoding"], a["image_id"]): a["margin"] for a in answers}
    names = list(some)
    assert len({margin["greedy", name] for name in names}) > 1
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        assert margin["other_picture", name] == pytest.approx(margin["greedy", other], abs=1e-3)
    assert len({margin["no_picture", name] for name in names}) == 1


def test_the_token_audit_finds_what_lies_outside_yes_and_no(vlm):
    yes, no = suite.answer_tokens(vlm, ["Yes", "No"])
    logits = torch.zeros(2, vlm.head.shape[0])
    logits[0, [yes, no]] = 50.0
    audit = suite.token_audit(vlm, logits, ["Yes", "No"])
    outside = (logits.shape[1] - 2) / logits.shape[1]
    assert (audit["yes_token"], audit["no_token"]) == ("Yes", "No") and audit["outside_mean"] == pytest.approx(outside / 2)


def test_tasks_are_answered_by_every_decoding_and_mapping_shift_also_on_validation(vlm, pictures, examples):
    ids = list(dict.fromkeys(row["image_id"] for row in examples[:12]))
    features = dict(zip(ids, encode_all({"": vlm}, [pictures[i] for i in ids])[""], strict=True))
    val, test = (suite.Split(rows, features, [features], "noise", WORDING) for rows in (examples[:6], examples[6:12]))
    every = ("greedy", "sampling", "contrastive", "msi")
    answers = suite.task_answers(vlm, val, test, every)
    found = {(a["benchmark"], a["decoding"]) for a in answers}
    assert found == {(t, d) for t in suite.TASKS for d in every} | {(f"{t}_val", d) for t in suite.TASKS for d in ("greedy", "msi")}
    of = {d: [a["answer"] for a in answers if (a["benchmark"], a["decoding"]) == ("task1", d)] for d in every}
    assert of["contrastive"] == of["greedy"]  # nothing is taken off
    row = next(r for r in test.examples if r["task"] == "task1")
    best = int(np.argmax(score_choices(vlm, [row], pictures=[features[row["image_id"]]])[0]))
    assert of["greedy"][0] == row["choices"][best]


def test_drawn_answers_follow_the_probabilities_of_the_choices(vlm, pictures, examples):
    row = next(r for r in examples if r["task"] == "task2")
    image = encode_all({"": vlm}, [pictures[row["image_id"]]])[""][0]
    rows = [row | {"image_id": str(k)} for k in range(2000)]
    split = suite.Split(rows, {str(k): image for k in range(2000)})
    drawn = [a["answer"] for a in suite.task_answers(vlm, split, split, ("sampling",)) if a["decoding"] == "sampling"]
    p = np.exp(suite.choice_scores(vlm, [row], [image])[0])
    shares = np.array([drawn.count(choice) / len(drawn) for choice in row["choices"]])
    assert np.abs(shares - p).max() < 0.04


def test_an_implausible_answer_loses_by_a_finite_margin(vlm):
    yes, no = suite.answer_tokens(vlm, ["Yes", "No"])
    logits = torch.zeros(3, vlm.head.shape[0])
    logits[0, no], logits[1, yes], logits[2, [yes, no]] = -torch.inf, -torch.inf, -torch.inf
    rows = [{"choices": ["Yes", "No"]}] * 3
    assert suite.margins(vlm, logits, rows).tolist() == [1000, -1000, 0]


def test_the_interval_of_auroc_is_that_of_pictures_drawn_and_counted_by_hand():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(12), 4)
    labels = rng.integers(0, 2, 48)
    margin = np.round(rng.normal(labels, 1.5), 1)  # with ties
    times = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=50)
    by_hand = []
    for row in times:
        chosen = np.concatenate([np.flatnonzero(clusters == c) for c, n in enumerate(row) for _ in range(n)])
        by_hand.append(sk.roc_auc_score(labels[chosen], margin[chosen]))
    value, low, high = margins.auroc_interval(margin, labels, clusters, draws=50, seed=3)
    assert value == sk.roc_auc_score(labels, margin)
    assert (low, high) == pytest.approx(tuple(np.percentile(by_hand, [2.5, 97.5])))


def test_mme_from_counts_is_the_sum_of_its_subtasks():
    rng = np.random.default_rng(0)
    rows = [
        {"subtask": s, "image_id": f"{i}", "answer": "Yes", "label": "Yes" if rng.random() < 0.7 else "No"}
        for s in ("count", "color")
        for i in range(20)
        for _ in range(2)
    ]
    counts = mme_counts(rows)
    parts = [[(r["image_id"], r["answer"] == r["label"]) for r in rows if r["subtask"] == s] for s in ("count", "color")]
    assert float(mme_score(counts.sum(0))) == pytest.approx(sum(subtask_scores(part)["score"] for part in parts))


def test_an_oracle_knows_a_groups_lean_from_the_other_half_of_the_pictures():
    rng = np.random.default_rng(0)
    pictures = [f"p{k:03}" for k in range(200) for _ in range(4)]
    groups = [("dog", "cup", "tree", "car")[k % 4] for k in range(800)]
    labels = rng.integers(0, 2, 800)
    lean = np.array([{"dog": 5.0, "cup": -5.0, "tree": 2.0, "car": 0.0}[g] for g in groups])
    values = np.where(labels == 1, 1.0, -1.0) + lean + rng.normal(0, 0.1, 800)
    half = oracle.halves(pictures)
    assert all(len({h for p, h in zip(pictures, half, strict=True) if p == name}) == 1 for name in set(pictures))
    assert half.sum() == 400
    freed = oracle.minus_constant(oracle.minus_group_constants(values, labels, groups, half, weight=0.1), labels, half)
    bound = oracle.minus_constant(values, labels, half)
    assert np.mean((freed > 0) == labels) == 1 > 0.8 > np.mean((bound > 0) == labels)


def test_an_oracle_never_uses_the_labels_of_its_own_half():
    rng = np.random.default_rng(1)
    labels, half, groups = rng.integers(0, 2, 60), np.arange(60) % 2 == 0, list("abc" * 20)
    values = rng.normal(size=60) + 2 * labels
    others = np.where(half, np.roll(labels, 2), labels)
    for change in (oracle.minus_constant, lambda v, y, h: oracle.minus_group_constants(v, y, groups, h)):
        before, after = change(values, labels, half), change(values, others, half)
        assert np.array_equal(before[half], after[half]) and not np.array_equal(before[~half], after[~half])


def test_a_groups_constant_by_hand():
    values, labels = np.array([1.0, 3.0, -2.0, 4.0, 0.0, 0.0]), np.array([1, 1, 0, 0, 1, 0])
    groups, half = ["a", "a", "a", "b", "a", "c"], np.array([False] * 4 + [True] * 2)
    freed = oracle.minus_group_constants(values, labels, groups, half, weight=1)
    # Yes: (1 + 3 + their mean 2) / 3, no: (-2 + the mean of -2 and 4) / 2; "c" is not in the other half: the means of all, 2 and 1.
    assert freed[4:] == pytest.approx([-((1 + 3 + 2) / 3 + (-2 + 1) / 2) / 2, -(2 + 1) / 2])


def yes_no_rows(seed=0, n=60, task="pope_random"):
    """Answers to yes/no questions about 20 images, with margins."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    values = np.round(rng.normal(truth - 0.3, 1.0), 2)
    words = ("No", "Yes")
    row = {"benchmark": task, "decoding": "greedy", "choices": ["Yes", "No"], "prompt": "?", "subtask": "color"}
    return [
        row | {"image_id": f"p{i // 3}", "label": words[t], "answer": words[int(m > 0)], "margin": float(m)}
        for i, (t, m) in enumerate(zip(truth, values, strict=True))
    ]


def test_a_tables_numbers_are_scikit_learns():
    answers = yes_no_rows()
    truth, given = ([a[key] == "Yes" for a in answers] for key in ("label", "answer"))
    found = {key[-1]: value for key, value in tables.values_of(tables.table_rows("m", answers, draws=20)).items()}
    margin = [a["margin"] for a in answers]
    assert found["f1"] == pytest.approx(sk.f1_score(truth, given), abs=1e-4)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, given), abs=1e-4)
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, margin), abs=1e-4)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(truth, margin), abs=1e-4)
    assert found["yes_ratio"] == pytest.approx(np.mean(given), abs=1e-4)


def test_answers_on_validation_have_accuracy_and_macro_f1_alone():
    rows = tables.table_rows("m", yes_no_rows(task="pope_adversarial_val"), draws=20)
    assert {(row["benchmark"], row["metric"]) for row in rows} == {("pope_adversarial_val", m) for m in ("accuracy", "macro_f1")}


def test_answerers_that_never_look_score_what_is_known_of_them():
    answers = yes_no_rows() + yes_no_rows(task="mme")
    row = {"benchmark": "task2", "decoding": "greedy", "choices": ["true", "false", "unclear"], "prompt": "?", "answer": "true"}
    answers += [row | {"image_id": str(i), "label": label} for i, label in enumerate(["false", "false", "true", "unclear"])]
    answers.append({"benchmark": "caption", "decoding": "greedy", "image_id": "p", "label": "", "answer": "a dog", "objects": ["cup"]})
    found = tables.values_of(tables.degenerate_rows(answers, names=NAMES))
    yes = np.mean([a["label"] == "Yes" for a in answers[:60]])
    assert found["all_yes", "greedy", "pope_random", "f1"] == pytest.approx(2 * yes / (1 + yes), abs=1e-4)
    assert found["all_no", "greedy", "pope_random", "accuracy"] == pytest.approx(1 - yes, abs=1e-4)
    assert found["all_no", "greedy", "pope_random", "yes_ratio"] == 0
    same = [{a["label"] for a in answers[60:120] if a["image_id"] == f"p{i}"} == {"Yes"} for i in range(20)]
    assert found["all_yes", "greedy", "mme", "score"] == pytest.approx(100 * yes + 100 * np.mean(same), abs=1e-3)
    assert found["most_frequent", "greedy", "task2", "accuracy"] == 0.5
    assert found["silent", "greedy", "chair", "chair_i"] == 0 == found["silent", "greedy", "chair", "recall"]


def test_captions_are_compared_by_ratios_of_sums_and_by_images_that_got_better():
    def captions(*texts):
        row = {"benchmark": "caption", "label": "", "prompt": "?", "objects": ["dog", "cup"]}
        return [row | {"decoding": "greedy", "image_id": str(i), "answer": text} for i, text in enumerate(texts)]

    mine, other = captions("a dog", "a dog and a cup", "a car"), captions("a dog and a car", "a dog", "a car and a tree")
    wrong = compared(mine, other, "chair_i", names=NAMES, draws=50, seed=0)
    assert wrong["difference"] == pytest.approx(100 * (1 / 4 - 3 / 5)) and (wrong["better"], wrong["worse"]) == (1, 0)
    recall = compared(mine, other, "recall", names=NAMES, draws=50, seed=0)
    assert recall["difference"] == pytest.approx(100 * (3 / 6 - 2 / 6), abs=1e-3) and (recall["better"], recall["worse"]) == (1, 0)


def test_holm_adjusts_within_one_family_of_one_benchmark():
    answers = {"a": yes_no_rows(0), "b": [row | {"answer": "Yes"} for row in yes_no_rows(0)]}
    asked = [Comparison(q, "a greedy", "b greedy", "pope_random", "f1", family) for q, family in (("1", "x"), ("2", "x"), ("3", "y"))]
    first, second, third = compare_all(asked, answers, draws=20, seed=0)
    assert first["p_holm"] == second["p_holm"] == pytest.approx(min(1, 2 * first["p"]), abs=1e-4)
    assert third["p_holm"] == pytest.approx(third["p"], abs=1e-4)
    with pytest.raises(ValueError, match="answers to the same questions"):
        compare_all([Comparison("?", "a greedy", "c greedy", "pope_random", "f1")], answers, draws=20, seed=0)


def test_every_comparison_names_a_metric_of_its_benchmark_and_every_claim_is_a_comparison():
    asked = study.comparisons(["hkd_small"])
    by_task = {benchmark.task: benchmark for benchmark in BENCHMARKS.values()}
    assert all(c.metric in by_task[c.benchmark.removesuffix("_val")].metrics for c in asked)
    pairs = {(c.a, c.b) for c in asked}
    assert all((a, b) in pairs for _, claims in CLAIMS.values() for a, b, _ in claims)


def test_an_image_a_prompt_choices_and_an_answer_are_enough(vlm, pictures):
    images = list(pictures.values())[:6]
    rows = [
        {"image": image, "prompt": f"Is there a {name} in the image?", "choices": ["Yes", "No"], "answer": answer}
        for image in images
        for name, answer in (("dog", "Yes"), ("cup", "No"))
    ]
    val, test = suite.split_of(vlm, rows[:6], "pope_random"), suite.split_of(vlm, rows[6:], "pope_random")
    with pytest.warns(UserWarning, match="6 of 6 examples can be asked in one way only"):
        answers = suite.answers_of(vlm, val, test, ("greedy", "shift", "msi", "no_picture"))
    margin = {d: [a["margin"] for a in answers if (a["benchmark"], a["decoding"]) == ("pope_random", d)] for d in ("greedy", "shift", "msi")}
    assert len(test.features) == 3 and len(margin["greedy"]) == 6
    # No wording says what the opposite question is, so of mapping shift the fitted constant is left.
    assert margin["msi"] == margin["shift"]
    alone = suite.answers_of(vlm, None, test, ("greedy", "shift"))
    assert {a["decoding"] for a in alone} == {"greedy"} and [a["margin"] for a in alone] == margin["greedy"]
    chosen = [row | {"choices": ["dog", "cup", "no"], "answer": "cup"} for row in rows]
    answers = suite.answers_of(vlm, None, suite.split_of(vlm, chosen, "task2"), ("greedy",))
    best = [row["choices"][int(np.argmax(scores))] for row, scores in zip(chosen, score_choices(vlm, chosen), strict=True)]
    assert [a["answer"] for a in answers] == best


def test_an_unknown_decoding_is_named(vlm):
    with pytest.raises(UserError, match='got "greddy"'):
        suite.answers_of(vlm, None, suite.Split([], {}), ("greddy",))


def test_what_is_saved_is_read_again(tmp_path):
    answers = {"a": yes_no_rows(0), "b": yes_no_rows(1)}
    rows = [row for name, given in answers.items() for row in tables.table_rows(name, given, draws=20)]
    asked = [Comparison("better?", "a greedy", "a greedy", "pope_random", "f1")]
    goals = [{"check": "a goal", "value": 1.0, "met": "yes"}]
    save(tmp_path, rows, compare_all(asked, answers, draws=20, seed=0), goals, answers, {"a": 5, "b": 7})
    found = Results.load(tmp_path)
    assert found.answers_of("b greedy", "pope_random") == [{"model": "b"} | row for row in answers["b"]]
    value = tables.values_of(rows)
    assert found.values("pope_random", "f1", ["b greedy", "a greedy"]) == [value[m, "greedy", "pope_random", "f1"] for m in "ba"]
    assert found.there(["a greedy", "a shift"]) == ["a greedy"]
    wrong = [a for a in answers["a"] if a["label"] == "No" and a["answer"] == "Yes"]
    rate = found.error_rates("a greedy", "pope_random", "No", lambda answer: answer["prompt"])
    assert rate == {"?": pytest.approx(len(wrong) / sum(a["label"] == "No" for a in answers["a"]))}
    assert list(found.reader_table("pope").model) == ["a", "b"]
    assert markdown(["x", "y"], [[1, 2]]) == "| x | y |\n|---|---|\n| 1 | 2 |\n"

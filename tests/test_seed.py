"""SEED: what is identified, purged, taught and kept, each against what the formula gives by hand, and on a stranger's data."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_vlm
from sklearn.metrics import f1_score, roc_auc_score

from hkd_core.common.errors import UserError
from hkd_core.common.root import find_root
from hkd_core.inference import Features, answer_logits, generate
from hkd_core.inference.contrast import isolate, purify
from hkd_core.losses import smooth_logits
from hkd_core.models import HallucinationEliminationAdapter, load_vlm
from hkd_core.models.vlm import encode_all
from hkd_core.seed import (
    Captioning,
    EvolveSettings,
    EvolveStep,
    Lesson,
    LessonMaker,
    Purge,
    Questions,
    auroc_of_views,
    evolve,
    score_tokens,
    search_caption_purge,
    search_purge,
    void_space,
)
from hkd_core.seed.identify import read_answers
from hkd_core.seed.lessons import collate_with, purified_targets
from hkd_core.training.examples import TrainingSet, answer_hidden, project
from hkd_core.training.trainer import Schedule, train
from hkd_core.world.facts import Fact
from hkd_core.world.objects import OBJECTS
from hkd_core.world.tasks import CAPTION_PROMPT, yes_no

SETTINGS = EvolveSettings(steps=4, caption_steps=2, batch_size=8, learning_rate=1e-2, rank=4, layers=1)


@pytest.fixture(scope="module")
def asked(scenes):
    """Presence questions about twelve pictures, of the groups "easy" (about a thing that is there or a boat) and "hard"."""
    rows = []
    for k, scene in enumerate(scenes[:12]):
        absent = [name for name in OBJECTS if name not in scene.names]
        for n, name in enumerate((scene.names[0], absent[0], scene.names[-1], absent[k])):
            rows.append(yes_no(scene, Fact("presence", name), task="easy" if n < 2 else "hard"))
    return rows


@pytest.fixture(scope="module")
def strange(asked, pictures):
    """The same as somebody else's rows: image, prompt, choices, answer and nothing else."""
    return [{key: row[key] for key in ("prompt", "choices", "answer")} | {"image": pictures[row["image_id"]]} for row in asked]


@pytest.fixture
def features(vlm, asked, pictures):
    ids = list(dict.fromkeys(row["image_id"] for row in asked))
    return Features(vlm, ids, [pictures[i] for i in ids], seed=1)


def logits_one_by_one(vlm, rows, shown):
    """[rows, V] float64: each question alone."""
    return torch.cat([answer_logits(vlm, [row["prompt"]], [shown[row["image_id"]]]) for row in rows]).double()


# Identify


def test_a_words_score_is_what_its_log_probability_loses_not_when_every_word_is_read_anew(vlm, asked, features):
    texts = ["The image shows a dog.", "The image shows a cup, a boat."]
    rows = [
        {"image_id": i, "prompt": CAPTION_PROMPT, "choices": [], "answer": t} for i, t in zip(features.ids, texts, strict=False)
    ]
    found = score_tokens(vlm, rows, features, [("least", 2)])
    n = 0
    for row in rows:
        start, whole = len(vlm.suffix(CAPTION_PROMPT)), vlm.suffix(CAPTION_PROMPT, row["answer"], closed=True)
        for place in range(start, len(whole)):
            read = []
            for shown in (features.clean, *features.under("least", 2)):
                with torch.no_grad():
                    inputs = vlm.inputs([shown[row["image_id"]]], [whole[:place]])
                    read.append((vlm.hidden(inputs).last_hidden_state[0, -1] @ vlm.head.T).double().log_softmax(-1))
            seen, *unseen = read
            by_hand = torch.stack(unseen).amin(0).log_softmax(-1) - seen
            assert float(found.scores["least", 2][n]) == pytest.approx(float(by_hand[whole[place]]), abs=1e-3)
            assert found.words[n] == vlm.tokenizer.convert_ids_to_tokens(whole[place])
            n += 1
    assert n == len(found.words) and found.owner == sorted(found.owner)


def test_auroc_judges_the_chosen_words_and_needs_wrong_ones_and_right_ones(vlm, features):
    rows = [
        {"image_id": i, "prompt": CAPTION_PROMPT, "choices": [], "answer": "The image shows a dog, a cup."} for i in features.ids
    ]
    found = score_tokens(vlm, rows, features, [("blank", 0.0)])
    places = [k for k, word in enumerate(found.words) if word in ("dog", "cup")]
    wrong = [k % 3 == 0 for k in range(len(places))]
    (value, low, high) = auroc_of_views(found, places, wrong)["blank", 0.0]
    assert value == pytest.approx(roc_auc_score(wrong, found.scores["blank", 0.0][places])) and low <= value <= high
    assert auroc_of_views(found, places, [True] * len(places)) == {}


def test_void_space_is_the_probability_outside_what_the_base_finds_plausible_however_it_is_batched(vlm, features):
    rows = [{"image_id": i, "prompt": CAPTION_PROMPT, "choices": [], "answer": "The image shows a dog."} for i in features.ids[:5]]
    base, other = score_tokens(vlm, rows, features, []).clean, tiny_vlm(seed=4)
    shown = dict(zip(features.ids, encode_all({"": other}, features.pictures)[""], strict=True))
    theirs = score_tokens(other, rows, Features(other, features.ids, features.pictures), []).clean.double().softmax(-1)
    allowed = base.softmax(-1) >= 0.1 * base.softmax(-1).amax(-1, keepdim=True)
    found = void_space(other, rows, shown, base)
    assert found["outside the plausible set"] == pytest.approx(float((theirs * ~allowed).sum(-1).mean()), abs=2e-4)
    assert found["entropy, nats"] == pytest.approx(float(-(theirs * theirs.log()).sum(-1).mean()), abs=2e-4)


def test_answers_read_in_batches_are_those_read_at_once(vlm, features):
    texts = ["The image shows a dog.", "The image shows a cup, a boat.", "The image shows a cow, a cup, a dog."]
    rows = [
        {"image_id": i, "prompt": CAPTION_PROMPT, "choices": [], "answer": t} for i, t in zip(features.ids, texts, strict=False)
    ]
    one, several = (read_answers(vlm, rows, {"student": features.clean}, batch_size=size) for size in (3, 2))
    assert torch.allclose(one[0]["student"], several[0]["student"], atol=1e-4)
    assert torch.equal(one[1], several[1]) and one[2] == several[2] and set(one[2]) == {0, 1, 2}


def test_a_text_without_words_has_no_tokens_and_the_others_keep_their_owners(vlm, features):
    row = {"image_id": features.ids[0], "prompt": CAPTION_PROMPT, "choices": []}
    rows = [row | {"answer": text} for text in ("", "The image shows a dog.", "")]
    _, tokens, owner = read_answers(vlm, rows, {"student": features.clean})
    assert set(owner) == {1} and torch.equal(tokens, read_answers(vlm, rows[1:2], {"student": features.clean})[1])
    with pytest.raises(UserError, match="expected at least one with an answer"):
        read_answers(vlm, rows[:1], {"student": features.clean})


# Purge


def test_every_row_of_the_search_equals_the_questions_purged_and_judged_one_by_one(vlm, asked, features):
    questions = Questions(vlm, asked, fit_on="hard")
    views, alphas = [("least", 2), ("blank", 0.0), ("none", 0)], [0.5, 2.0]
    settings = SETTINGS.replace(distortions=views, alphas=alphas, cutoffs=[0.0, 0.3])
    search = search_purge(vlm, questions, features, settings, clean_views=2)
    clean = logits_one_by_one(vlm, asked, features.clean)
    yes, no = (vlm.suffix("x", word)[-1] for word in ("Yes", "No"))
    labels = np.array([row["answer"] == "Yes" for row in asked])
    hard = np.array([row["task"] == "hard" for row in asked])
    assert [(row["view"], row["strength"], row["alpha"]) for row in search.table] == [(*v, a) for v in views for a in (0, *alphas)]
    for row in search.table:
        shown = [logits_one_by_one(vlm, asked, view) for view in features.under(row["view"], row["strength"])]
        purged = (1 + row["alpha"]) * clean - row["alpha"] * isolate(shown, row["view"])
        margin = (purged[:, yes] - purged[:, no]).numpy()
        groups = [roc_auc_score(labels[part], margin[part]) for part in (~hard, hard)]
        assert [row["auroc_easy"], row["auroc_hard"]] == pytest.approx(groups, abs=2e-3)
        assert row["auroc"] == pytest.approx(np.mean(groups), abs=2e-3)
        assert row["f1_hard"] == pytest.approx(f1_score(labels[hard], margin[hard] > row["shift"]), abs=2e-3)
        assert (
            row["f1_hard"] >= max(f1_score(labels[hard], margin[hard] > c, zero_division=0) for c in np.linspace(-9, 9, 99)) - 2e-3
        )
    best = max(search.table, key=lambda row: row["auroc"] * (row["alpha"] > 0))
    assert search.best is best and search.control["alpha"] == 0
    assert (search.purge.view, search.purge.alpha, search.purge.shift) == (best["view"], best["alpha"], best["shift"])
    assert search.purge.control_shift == search.control["shift"]


def made_logits(questions, single, mean):
    """`ask` answering with logits made by hand, so that alpha 4 gives 5 x clean - 4 x prior, known beforehand.

    single, mean: the logit of the right one of yes and no, seen in a single clean view and in the mean of several. A third token is
    implausible, e^-4 of the largest, but the prior speaks against it so much that it wins wherever it is not cut off.
    """
    third, yes = next(i for i in range(9) if i not in (questions.yes, questions.no)), torch.as_tensor(questions.labels == 1)
    size = max(questions.yes, questions.no, third) + 1

    def logits(margin):
        found = torch.full((len(yes), size), -2.0)
        found[:, questions.yes], found[:, questions.no] = torch.where(yes, margin, -margin), torch.where(yes, -margin, margin)
        found[:, third] = margin.abs() - 4
        return found

    prior = torch.zeros(len(yes), size)
    prior[:, third] = -9.0
    several = {"clean": logits(single), "clean views": logits(mean), ("blank", 0): prior}
    return lambda vlm, questions, views: {name: several[name] for name in views}


@pytest.mark.parametrize(
    ("cutoffs", "right", "chosen"),
    [([0.0, 0.5], [0.0, 1.0], 0.5), ([0.3, 0.5, 0.4], [1.0, 1.0, 1.0], 0.5), ([0.0, 0.01], [0.0, 0.0], 0.01)],
)
def test_the_cutoff_that_answers_most_questions_among_all_tokens_is_chosen_and_the_tightest_of_equals(
    cutoffs, right, chosen, vlm, asked, features, monkeypatch
):
    questions, margin = Questions(vlm, asked), torch.full((len(asked),), 1.0)
    monkeypatch.setattr("hkd_core.seed.purge.ask", made_logits(questions, margin, margin))
    settings = SETTINGS.replace(distortions=[("blank", 0)], alphas=[4.0], cutoffs=cutoffs)
    search = search_purge(vlm, questions, features, settings)
    assert [row["accuracy"] for row in search.cutoffs] == right and search.purge.cutoff == chosen


@pytest.mark.parametrize(("wrong", "several"), [(0, 1), (4, 2)])
def test_several_clean_views_are_taken_only_where_they_gain_auroc(wrong, several, vlm, asked, features, monkeypatch):
    questions, margin = Questions(vlm, asked), torch.full((len(asked),), 1.0)
    worse = margin.clone()
    worse[:wrong] = -1.0  # a single view answers these the wrong way round
    monkeypatch.setattr("hkd_core.seed.purge.ask", made_logits(questions, worse, margin))
    settings = SETTINGS.replace(distortions=[("blank", 0)], alphas=[4.0], cutoffs=[0.0, 0.5])
    search = search_purge(vlm, questions, features, settings, clean_views=2)
    assert [(row["clean_views"], row["cutoff"]) for row in search.cutoffs] == [(1, 0.0), (1, 0.5), (2, 0.0), (2, 0.5)]
    assert search.cutoffs[2]["auroc"] == 1.0 and search.purge.clean_views == several and search.purge.cutoff == 0.5


def test_questions_that_cannot_be_judged_are_named(vlm, asked):
    with pytest.raises(UserError, match='question "Is there a .*": expected the answer "Yes" or "No", got "maybe"'):
        Questions(vlm, [asked[0] | {"answer": "maybe"}])
    with pytest.raises(UserError, match='questions of easy: expected both answers "Yes" and "No", got one'):
        Questions(vlm, asked[:1])
    with pytest.raises(UserError, match="questions: expected at least one"):
        Questions(vlm, [])
    with pytest.raises(UserError, match='fit_on: expected one of easy, hard, got "odd"'):
        Questions(vlm, asked, fit_on="odd")


def test_a_search_without_anything_to_subtract_is_refused(vlm, asked, features):
    with pytest.raises(UserError, match=r"alphas: expected at least one above 0, got \[0.0\]"):
        search_purge(vlm, Questions(vlm, asked), features, SETTINGS.replace(alphas=[0.0]))


def test_the_caption_search_keeps_recall_and_takes_the_lowest_chair_among_the_asked_ways(vlm, features):
    # Scores by the order of calls: plain, one contrastive decoder, then gamma 1 and 2 at cutoffs 0 and 0.5.
    told = iter([(50, 40), (1, 40), (2, 39.5), (30, 39.5), (2, 39.9), (3, 38.5)])

    def score(texts):
        assert len(texts) == 3 and all(isinstance(text, str) for text in texts)
        return dict(zip(("chair_i", "recall"), next(told), strict=True))

    purge = Purge("blank", 0, 1.0, 0.1)
    settings = SETTINGS.replace(distortions=[("blank", 0)], text_alphas=[1.0], gammas=[1.0, 2.0], cutoffs=[0.0], text_cutoff=0.5)
    captioning = Captioning(CAPTION_PROMPT, features.ids[:3], ["dog", "cup"])
    found = search_caption_purge(vlm, captioning, features, purge, settings, score)
    assert [(row["way"], row["strength"], row["cutoff"]) for row in found.table] == [
        ("nothing purged", 0, 0),
        ("blank 0", 1.0, 0.1),
        ("asked", 1.0, 0.0),
        ("asked", 1.0, 0.5),
        ("asked", 2.0, 0.0),
        ("asked", 2.0, 0.5),
    ]
    # Only cutoff 0.5 may be chosen. Gamma 2 has the lower chair_i there, but it loses a point and a half of recall.
    assert (found.gamma, found.best["chair_i"], found.plain["chair_i"], found.contrast["chair_i"]) == (1.0, 30, 50, 1)


# Lessons


def evolving(vlm, examples, pictures, alpha, **how):
    """(step, adapter, batch, data) for a few examples, isolated by a blank picture."""
    ids = list(dict.fromkeys(row["image_id"] for row in examples))
    clean = dict(zip(ids, encode_all({"": vlm}, [pictures[i] for i in ids])[""], strict=True))
    blank = dict(zip(ids, encode_all({"": vlm}, [pictures[i] * 0 for i in ids])[""], strict=True))
    data = TrainingSet({"student": vlm, "distorted": vlm}, examples, {"student": clean, "distorted": blank})
    adapter = HallucinationEliminationAdapter(32, rank=4).attach(vlm.model)
    alphas = [alpha] * len(data) if isinstance(alpha, float) else alpha
    targets = purified_targets(vlm, data, ["distorted"], "blank", alphas=alphas, **{"shift": None, **how})
    batch = collate_with(data, targets)(range(len(data)))
    return EvolveStep(vlm, adapter, SETTINGS), adapter, batch, data


def test_without_purging_the_untrained_adapter_has_nothing_to_learn(vlm, examples, pictures):
    step, _, batch, _ = evolving(vlm, examples[:4], pictures, alpha=0.0, cutoff=0.0, epsilon=1e-6)
    assert float(step(batch)["purified"].total.detach()) == pytest.approx(0, abs=1e-3)


def test_where_alpha_is_zero_a_target_is_what_the_model_says_now(vlm, examples, pictures):
    shift = torch.ones(vlm.head.shape[0])
    shift[7] = 3.0
    _, _, batch, _ = evolving(vlm, examples[:2], pictures, [0.0, 1.0], cutoff=0.1, shift=shift)
    logits = project(vlm, answer_hidden(vlm, batch, "student")[0]).detach()
    first = int(batch["asked"][0].sum())
    assert torch.allclose(batch["target"][:first], logits[:first].log_softmax(-1), atol=1e-4)
    assert not torch.allclose(batch["target"][first:], logits[first:].log_softmax(-1), atol=1e-1)


def test_targets_are_what_purging_gives_one_position_at_a_time_and_the_shift_is_for_choices_alone(vlm, examples, pictures):
    rows = [examples[0] | {"choices": [], "answer": "The image shows a dog."}, examples[1]]
    shift = torch.zeros(vlm.head.shape[0])
    shift[7] = 3.0
    _, adapter, batch, data = evolving(vlm, rows, pictures, 0.5, shift=shift, cutoff=0.2, epsilon=1e-3)
    adapter.detach()
    both = data.collate([0, 1])
    with torch.no_grad():
        clean, blank = (project(vlm, answer_hidden(vlm, both, name)[0]) for name in data.names)
    lengths = both["asked"].sum(1).tolist()
    assert lengths[0] > 5 and len(clean) == sum(lengths)
    shifts = [None] * lengths[0] + [shift] * lengths[1]
    for row, target in enumerate(batch["target"]):
        alone = purify(clean[row : row + 1], blank[row : row + 1], alpha=0.5, cutoff=0.2, shift=shifts[row])
        assert torch.allclose(target, smooth_logits(alone, 1e-3)[0], atol=1e-3)


def test_evolving_moves_the_adapter_towards_the_purified_answers_and_leaves_the_base_alone(vlm, examples, pictures):
    step, _, batch, _ = evolving(vlm, examples[:4], pictures, alpha=1.0, cutoff=0.1)
    before = {k: v.clone() for k, v in vlm.model.state_dict().items()}
    history = train(step, lambda _: batch, 4, Schedule(20, 4, 1e-2), seed=0)
    assert history[-1]["purified"] < 0.8 * history[0]["purified"]
    assert all(torch.equal(v, before[k]) for k, v in vlm.model.state_dict().items())


def test_anchors_are_kept_by_forward_kl_whatever_seeks_modes_elsewhere(vlm, examples, pictures):
    _, adapter, _, data = evolving(vlm, examples[:3], pictures, alpha=1.0, cutoff=0.1)
    torch.nn.init.normal_(adapter.blocks[0].up.weight, std=0.3)  # an adapter that says something else than the targets
    rng = torch.Generator().manual_seed(0)
    targets = [
        torch.randn(length - prompt, vlm.head.shape[0], generator=rng).log_softmax(-1)
        for length, prompt in zip(data.lengths, data.prompts, strict=True)
    ]
    batch = collate_with(data, targets, [False, True, False])(range(3))
    parts = EvolveStep(vlm, adapter, SETTINGS.replace(anchor_weight=2.0))(batch)

    now = project(vlm, answer_hidden(vlm, batch, "student")[0]).detach().double().log_softmax(-1)
    wanted = batch["target"].double()
    reverse, forward = (now.exp() * (now - wanted)).sum(-1), (wanted.exp() * (wanted - now)).sum(-1)
    owner = batch["asked"].nonzero()[:, 0]
    assert float(parts["purified"].total.detach()) == pytest.approx(float(reverse[owner != 1].sum()), rel=1e-4)
    assert float(parts["anchored"].total.detach()) == pytest.approx(float(forward[owner == 1].sum()), rel=1e-4)
    assert (parts["purified"].weight, parts["anchored"].weight) == (1.0, 2.0)


def test_the_mean_of_several_clean_views_is_what_is_purged(vlm, examples, pictures):
    rows = examples[:2]
    ids = list(dict.fromkeys(row["image_id"] for row in rows))
    shown = {
        name: dict(zip(ids, encode_all({"": vlm}, [change(pictures[i]) for i in ids])[""], strict=True))
        for name, change in (("student", lambda p: p), ("clean 1", lambda p: p // 2), ("blank", lambda p: p * 0))
    }
    data = TrainingSet(dict.fromkeys(shown, vlm), rows, shown)
    how = {"alphas": [1.0, 0.0], "cutoff": 0.1, "shift": None, "epsilon": 1e-3}
    purged, anchored = purified_targets(vlm, data, ["blank"], "blank", **how, clean=("student", "clean 1"))
    batch = data.collate([0, 1])
    with torch.no_grad():
        first, second, blank = (project(vlm, answer_hidden(vlm, batch, name)[0]) for name in shown)
    count = len(purged)
    mean = ((first[:count].softmax(-1) + second[:count].softmax(-1)) / 2).log()
    assert torch.allclose(purged, smooth_logits(purify(mean, blank[:count], alpha=1.0, cutoff=0.1), 1e-3), atol=1e-3)
    assert torch.allclose(anchored, first[count:].log_softmax(-1), atol=1e-4)  # an anchor takes one view


def test_a_question_without_an_answer_is_taught_the_same_as_with_one(vlm, asked, pictures):
    how = {"cutoff": 0.1, "epsilon": 1e-3}
    known, unknown = (
        evolving(vlm, rows, pictures, 1.0, **how)[2] for rows in ([asked[0]], [asked[0] | {"answer": ""}]) for vlm in [tiny_vlm()]
    )
    assert torch.allclose(known["target"], unknown["target"], atol=1e-5)


@pytest.fixture
def maker(vlm, asked, features):
    purge = Purge("none", 0, 1.0, 0.1, shift=0.5, control_shift=0.25)
    captioning = Captioning(CAPTION_PROMPT, features.ids[:3], ["dog", "cup"], max_new_tokens=6)
    how = {"questions": asked[:20], "anchors": asked[20:24], "captioning": captioning, "gamma": 2.0}
    return LessonMaker(vlm, features, purge, SETTINGS, **how)


@torch.no_grad()
def test_the_lesson_in_answers_purges_questions_and_keeps_anchors_and_own_captions(vlm, asked, features, maker):
    lesson = maker.answers()
    own = generate(vlm, [CAPTION_PROMPT] * 3, [features.clean[i] for i in features.ids[:3]], max_new_tokens=6)
    assert [row["answer"] for row in lesson.examples[24:]] == own and lesson.anchors == [False] * 20 + [True] * 7
    assert [row["prompt"] for row in lesson.examples[:24]] == [row["prompt"] for row in asked[:24]]
    yes = vlm.suffix("x", "Yes")[-1]
    (nothing,) = features.under("none", 0)
    for row, target in zip(asked[:24], lesson.targets, strict=False):
        seen, prior = (logits_one_by_one(vlm, [row], shown)[0] for shown in (features.clean, nothing))
        if row in asked[:20]:
            by_hand = 2 * seen - prior
            by_hand[yes] -= 0.5
            by_hand[seen < seen.max() + math.log(0.1)] = -torch.inf
            by_hand = (0.999 * by_hand.softmax(-1) + 0.001 / len(seen)).log()
        else:
            by_hand = seen.log_softmax(-1)
        assert torch.allclose(target[0].double(), by_hand, atol=1e-3)


def test_the_controls_lessons_change_the_questions_targets_and_nothing_else(vlm, asked, maker):
    purged, first, moved = (maker.answers(teach=teach) for teach in ("purged", "first_choice", "shifted"))
    for lesson in (first, moved):
        assert lesson.examples == purged.examples and lesson.anchors == purged.anchors
        assert all(torch.equal(a, b) for a, b in zip(lesson.targets[20:], purged.targets[20:], strict=True))
    seen, yes = logits_one_by_one(vlm, asked[:20], maker.features.clean), vlm.suffix("x", "Yes")[-1]
    for x, hard, soft in zip(seen, first.targets, moved.targets, strict=False):
        assert int(hard[0].argmax()) == int(x.argmax()) and float(hard[0].max().exp()) > 0.998
        shift = torch.zeros(len(x), dtype=torch.float64)
        shift[yes] = 0.25
        by_hand = torch.where(x >= x.max() + math.log(0.1), x - shift, -torch.inf)
        assert torch.allclose(soft[0].double(), smooth_logits(by_hand, 1e-3), atol=1e-3)
    with pytest.raises(UserError, match='teach: expected one of purged, first_choice, shifted, got "labels"'):
        maker.answers(teach="labels")


def test_the_lesson_in_captions_anchors_two_questions_a_picture_and_counts_plain_and_purged_captions_twice(maker):
    lesson = maker.captions({"shift": 0.1})
    per_picture = {
        i: sum(row["image_id"] == i and bool(row["choices"]) for row in lesson.examples[:10]) for i in maker.features.ids[:5]
    }
    assert set(per_picture.values()) == {2}
    assert lesson.anchors == [True] * (10 + 4) + [False] * 12
    captions = lesson.examples[14:]
    assert captions[:6] == captions[6:] and [row["image_id"] for row in captions[:6]] == maker.features.ids[:3] * 2
    assert all(len(target) == len(again) for target, again in zip(lesson.targets[14:20], lesson.targets[20:], strict=True))


def test_without_captions_there_is_one_lesson_and_purging_captions_needs_names(vlm, asked, features):
    purge = Purge("none", 0, 1.0, 0.1)
    alone = LessonMaker(vlm, features, purge, SETTINGS, questions=asked[:8])
    assert len(alone.course(3)) == 1 and alone.answers().anchors == [False] * 8
    with pytest.raises(UserError, match="needs a prompt, pictures to describe and names to ask about"):
        LessonMaker(vlm, features, purge, SETTINGS, questions=asked[:8], gamma=1.0)


# Evolve


def lesson_of(vlm, maker):
    maker.captioning = replace(maker.captioning, ids=())
    return maker.answers()


@pytest.mark.parametrize("learner", ["adapter", "lora", "full"])
def test_every_learner_begins_as_the_base_and_the_round_that_validation_likes_best_is_kept(learner, vlm, asked, features, maker):
    lesson, base = lesson_of(vlm, maker), logits_one_by_one(vlm, asked[:4], features.clean)
    liked, seen = iter([0.5, 0.7, 0.6]), []

    def validate(model):
        seen.append(logits_one_by_one(model, asked[:4], features.clean))
        return {"kept_by": next(liked)}

    found = evolve(vlm, [lesson] * 3, SETTINGS, features=features.clean, seed=0, validate=validate, learner=learner)
    assert torch.equal(seen[0], base) and not torch.allclose(seen[1], base, atol=1e-3)
    # Round 2 was no better, so there is no round 3, and round 1 is kept.
    assert [row["round"] for row in found.table] == [0, 1, 2] and found.kept == 1 and len(found.states) == 3
    assert torch.allclose(logits_one_by_one(vlm, asked[:4], features.clean), seen[1], atol=1e-5)
    found.use(0)
    assert torch.allclose(logits_one_by_one(vlm, asked[:4], features.clean), base, atol=1e-5)


def test_after_evolving_the_model_has_the_adapter_it_learned_until_that_is_detached(vlm, features, maker):
    lesson, bare = lesson_of(vlm, maker), vlm.parameters_count()
    found = evolve(vlm, [lesson], SETTINGS, features=features.clean, seed=0)
    assert vlm.adapter is found.adapter and vlm.parameters_count() == bare + 32 * 4 + 4 + 4 * 32 + 32
    found.adapter.detach()
    assert vlm.adapter is None and vlm.parameters_count() == bare


def test_a_lesson_is_made_by_the_model_of_that_round_with_what_validation_found_last(vlm, features, maker):
    lesson, given = lesson_of(vlm, maker), []

    def make(found):
        given.append(found)
        return lesson

    rounds = iter([{"kept_by": 0.1, "shift": 3.0}, {"kept_by": 0.2, "shift": 4.0}, {"kept_by": 0.3, "shift": 5.0}])
    evolve(vlm, [make, make], SETTINGS, features=features.clean, seed=0, validate=lambda model: next(rounds))
    assert [found["shift"] for found in given] == [3.0, 4.0]


def test_without_validation_every_round_is_learned_and_two_runs_give_the_same_weights(vlm, features, maker):
    lesson, found = lesson_of(vlm, maker), []
    for _ in range(2):
        found.append(evolve(vlm, [lesson, lesson], SETTINGS, features=features.clean, seed=3))
        found[-1].adapter.detach()
    first, second = (run.adapter.state_dict() for run in found)
    assert found[0].kept == 2 and found[0].table == [] and list(found[0].history) == [1, 2]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_unknown_learner_and_a_validation_that_chooses_nothing_are_named(vlm, features, maker):
    lesson = lesson_of(vlm, maker)
    with pytest.raises(UserError, match='learner: expected one of adapter, lora, full, got "prompt"'):
        evolve(vlm, [lesson], SETTINGS, features=features.clean, seed=0, learner="prompt")
    with pytest.raises(UserError, match="validate: expected kept_by among what it finds, got round, accuracy"):
        evolve(vlm, [lesson], SETTINGS, features=features.clean, seed=0, validate=lambda model: {"accuracy": 1.0})


def test_a_saved_lora_names_its_base_and_no_folder_of_this_machine_and_answers_the_same(asked, maker, features, tmp_path):
    lesson = lesson_of(maker.vlm, maker)
    maker.vlm.save(tmp_path / "base")
    vlm = load_vlm(tmp_path / "base")
    vlm.name = "models/base"
    evolve(vlm, [lesson], SETTINGS, features=features.clean, seed=0, learner="lora").save(tmp_path / "lora")
    written = "".join(path.read_text() for path in (tmp_path / "lora").iterdir() if path.suffix in (".md", ".json"))
    assert str(tmp_path) not in written and "base_model: models/base" in written
    again = load_vlm(tmp_path / "base", adapter=tmp_path / "lora")
    one, other = (logits_one_by_one(model, asked[:4], features.clean) for model in (vlm, again))
    assert torch.allclose(one, other, atol=1e-4)


# A stranger's data


def test_the_snippet_runs_on_rows_of_image_prompt_choices_answer_alone(vlm, strange, tmp_path):
    vlm.save(tmp_path / "model")
    evolve_on = runpy.run_path(str(find_root() / "docs/snippets/seed.py"))["evolve_on"]
    unlabelled = [row | {"answer": ""} for row in strange[24:]]
    search, rounds = evolve_on(tmp_path / "model", strange[:24], unlabelled, tmp_path / "adapter", steps=3)
    assert len(search) == 2 * (1 + 3) and [row["round"] for row in rounds] == [0, 1]
    evolved = load_vlm(tmp_path / "model", adapter=tmp_path / "adapter")
    assert evolved.adapter is not None and len(Path(find_root() / "docs/snippets/seed.py").read_text().splitlines()) <= 24


def test_rows_of_image_prompt_choices_answer_go_through_every_function(vlm, strange):
    rows = [row | {"image": row["image"].copy()} for row in strange]  # equal pictures, other objects
    features = Features.of_examples(vlm, rows)
    assert len(features.ids) == 12
    questions = Questions(vlm, rows)
    scored = score_tokens(vlm, rows, features, [("none", 0)])
    assert void_space(vlm, rows, features.clean, scored.clean)["outside the plausible set"] < 1
    purge = search_purge(vlm, questions, features, SETTINGS.replace(distortions=[("shuffled", 2)])).purge
    how = {"captioning": Captioning(CAPTION_PROMPT, features.ids[:2], ["dog"], max_new_tokens=3), "gamma": 1.0}
    lessons = LessonMaker(vlm, features, purge, SETTINGS, questions=rows[:8], anchors=rows[8:12], **how)
    found = evolve(vlm, lessons.course(2), SETTINGS, features=features.clean, seed=0)
    assert [type(lesson) for lesson in found.lessons] == [Lesson, Lesson]


def test_seed_and_inference_know_nothing_of_the_built_in_world_nor_of_evaluation():
    folder = find_root() / "hkd_core"
    for path in [*(folder / "seed").glob("*.py"), *(folder / "inference").glob("*.py")]:
        text = path.read_text()
        above = ["hkd_core.world", "hkd_core.evaluation", "hkd_core.hkd", "hkd_core.common.params", "hkd_core.common.folders"]
        above += ["hkd_core.seed", "hkd_core.training"] if path.parent.name == "inference" else []
        assert not [name for name in above if f"from {name}" in text or f"import {name}" in text], path.name

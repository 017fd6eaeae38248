"""The pyramid (PPOD): every term against its formula, and the function against its equation in float64."""

from itertools import pairwise

import pytest
import torch
from conftest import tiny_vlm, training_set
from plain_training import doubled, kl, label_term, logits_at_answers

from hkd_core.common.errors import UserError
from hkd_core.hkd import PyramidSettings, train_pyramid
from hkd_core.hkd.pyramid import PyramidStep, check_levels, mean_distribution
from hkd_core.training.examples import answer_hidden, project
from hkd_core.training.trainer import Schedule, shuffled, train


def settings(**changed):
    return PyramidSettings(**{"steps": 1, **changed})


def test_a_pyramids_weights_are_none_below_zero_and_one_of_zero_is_still_logged(trio, examples, pictures):
    upper, lower = {"teacher": trio["teacher"]}, {"student": trio["student"]}
    with pytest.raises(UserError, match="PyramidSettings.feedback_weight: expected a number of at least 0, got -0.1"):
        settings(feedback_weight=-0.1)
    data = training_set(examples[:4], pictures, **{name: trio[name] for name in ("teacher", "student")})
    terms = PyramidStep(upper, lower, settings(feedback_weight=0.0, peer_weight=0.0))(data.collate(range(4)))
    shown = terms["teacher/level"]
    assert shown.weight == 0 and shown.total > 0 and not shown.total.requires_grad


def test_every_pyramid_term_equals_the_formula_and_teaches_only_its_own_model(trio, examples, pictures):
    data = training_set(examples[:6], pictures, **trio)
    upper, lower = {"teacher": trio["teacher"]}, {"assistant": trio["assistant"], "student": trio["student"]}
    step = PyramidStep(upper, lower, settings())
    batch = data.collate(range(6))
    terms = step(batch)
    logp = {n: (project(v, answer_hidden(v, batch, n)[0]).double() / 2).log_softmax(-1) for n, v in trio.items()}

    def kl(p, q):
        return 4 * (p.exp() * (p - q)).sum()

    middle = torch.stack([logp["assistant"], logp["student"]]).logsumexp(0) - torch.log(torch.tensor(2.0))
    expected = {
        "student/level": kl(logp["teacher"], logp["student"]),
        "student/peers": kl(logp["assistant"], logp["student"]),
        "teacher/level": kl(middle, logp["teacher"]),
    }
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].total.double(), value, rtol=1e-3, atol=1e-4)
    assert {name: part.weight for name, part in terms.items()} == {
        **{f"{name}/labels": 1.0 for name in trio},
        **{"assistant/level": 1.0, "student/level": 1.0, "teacher/level": 0.1},
        **{"assistant/peers": 0.5, "student/peers": 0.5},
    }
    for name, part in terms.items():
        step.zero_grad()
        part.total.backward(retain_graph=True)
        assert {n for n, v in trio.items() if any(p.grad is not None and p.grad.any() for p in v.model.parameters())} == {
            name.split("/")[0]
        }


def test_three_peers_each_match_the_mean_of_the_other_twos_divergences(examples, pictures):
    models = {name: tiny_vlm(32, 1, seed) for seed, name in enumerate(("apex", "a", "b", "c"))}
    data = training_set(examples[:4], pictures, **models)
    lower = {name: models[name] for name in ("a", "b", "c")}
    batch = data.collate(range(4))
    terms = PyramidStep({"apex": models["apex"]}, lower, settings(feedback_weight=0.0))(batch)
    logp = {n: (project(v, answer_hidden(v, batch, n)[0]).double() / 2).log_softmax(-1).detach() for n, v in lower.items()}
    to_b, to_c = (4 * float((logp[p].exp() * (logp[p] - logp["a"])).sum()) for p in ("b", "c"))
    assert float(terms["a/peers"].total.detach()) == pytest.approx((to_b + to_c) / 2, rel=1e-3)


def test_both_levels_learn_together_and_the_lower_follows_what_the_upper_becomes(trio, examples, pictures):
    upper, lower = {"teacher": trio["teacher"]}, {"student": trio["student"]}
    data = training_set(examples[:6], pictures, **{name: trio[name] for name in ("teacher", "student")})
    step = PyramidStep(upper, lower, settings(peer_weight=0.0))
    before = {name: vlm.model.get_output_embeddings().weight.clone() for name, vlm in (upper | lower).items()}
    batch = data.collate(range(6))
    first = step(batch)
    train(step, data.collate, 6, Schedule(40, 6, 1e-2), seed=0)
    for name, vlm in (upper | lower).items():
        assert not torch.equal(vlm.model.get_output_embeddings().weight, before[name])
    last = step(batch)
    for name in ("teacher/labels", "student/labels", "student/level"):  # to the level as it is now
        assert last[name].total < 0.5 * first[name].total


def test_the_temperature_moves_from_first_to_final_and_stays_where_both_are_the_same(trio):
    upper, lower = {"teacher": trio["teacher"]}, {"student": trio["student"]}
    for how, expected in (({"temperature": 4.0, "final_temperature": 1.0}, [4.0, 2.5, 1.0]), ({}, [2.0] * 3)):
        step = PyramidStep(upper, lower, settings(**how))
        found = []
        for done in (0.0, 0.5, 1.0):
            step.cool(done)
            found.append(step.temperature)
        assert found == expected


@pytest.mark.parametrize("levels", [[["a"], ["b"], ["c"]], [["a", "b"], ["c"]]])
def test_pairs_of_levels_learn_from_the_top_at_a_temperature_that_moves_from_step_to_step(levels, examples, pictures):
    models = {name: tiny_vlm(32, 1, seed) for seed, name in enumerate("abc")}
    data = training_set(examples[:8], pictures, **models)
    # So slow that nobody moves: every step's terms are those of the models as they were, at temperatures 3, 2 and 1.
    how = settings(steps=3, batch_size=4, learning_rate=1e-12, temperature=3.0, final_temperature=1.0)
    found = train_pyramid(models, data, how, levels=levels, seed=3)
    assert found.models == models
    assert list(found.histories) == [" > ".join("+".join(level) for level in pair) for pair in pairwise(levels)]
    with torch.no_grad():
        exact = {name: doubled(vlm) for name, vlm in models.items()}
        for (upper, lower), history in zip(pairwise(levels), found.histories.values(), strict=True):
            for row, rows, temperature in zip(history, shuffled(8, 4, 3, 3, data.lengths), (3.0, 2.0, 1.0), strict=True):
                read = {name: logits_at_answers(exact[name], data, name, rows) for name in (*upper, *lower)}
                p = {name: (logits / temperature).softmax(-1) for name, (logits, *_) in read.items()}
                for own, others in ((lower, upper), (upper, lower)):
                    mean = sum(p[name] for name in others) / len(others)
                    for name in own:
                        expected = temperature**2 * kl(mean.log(), p[name].log()) / len(mean)
                        assert row[f"{name}/level"] == pytest.approx(float(expected), rel=1e-3)
                        labels = label_term(exact[name], data, name, rows)
                        assert row[f"{name}/labels"] == pytest.approx(float(labels), rel=1e-3)


def test_four_levels_learn_pair_by_pair_each_from_what_the_one_above_has_become(examples, pictures):
    models = {name: tiny_vlm(32, 1, seed) for seed, name in enumerate("abcd")}
    data = training_set(examples[:6], pictures, **models)
    found = train_pyramid(models, data, settings(steps=40, batch_size=6, learning_rate=1e-2, feedback_weight=0.0), seed=0)
    assert list(found.histories) == ["a > b", "b > c", "c > d"]
    for title, (first, *_, last) in found.histories.items():
        assert last[f"{title[-1]}/level"] < first[f"{title[-1]}/level"] / 2


def test_a_pyramid_learns_from_examples_of_image_prompt_choices_and_answer_alone(strange):
    models = {"large": tiny_vlm(64, 1, 0), "small": tiny_vlm(32, 1, 1)}
    rows = [*strange, strange[0] | {"answer": ""}]  # one without a label
    (history,) = train_pyramid(models, rows, settings(steps=20, batch_size=9, learning_rate=1e-2), seed=0).histories.values()
    assert history[-1]["small/labels"] < history[0]["small/labels"] / 2


def test_a_pyramid_over_unknown_models_is_refused_before_anything_is_read():
    with pytest.raises(UserError, match='unknown model "tiny"; known: large, small'):
        train_pyramid({"large": None, "small": None}, [], settings(), levels=[["large"], ["tiny"]], seed=0)


def test_where_there_is_no_label_the_lower_level_is_taught_and_the_upper_learns_nothing_from_it(trio, examples, pictures):
    data = training_set([row | {"answer": ""} for row in examples[:6]], pictures, **trio)
    step = PyramidStep({"teacher": trio["teacher"]}, {"student": trio["student"]}, settings(feedback_weight=0.5, peer_weight=0.0))
    terms = step(data.collate(range(6)))
    assert terms["student/level"].total > 0
    assert terms["teacher/level"].total == terms["teacher/labels"].total == terms["student/labels"].total == 0


def test_the_mean_of_a_level_is_the_mean_of_its_probabilities():
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    mean = (mean_distribution([a, b], 2.0) / 2).softmax(-1)
    torch.testing.assert_close(mean, ((a / 2).softmax(-1) + (b / 2).softmax(-1)) / 2)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([["a"]], "at least two"),
        ([["a"], ["z"]], 'unknown model "z"'),
        ([["a"], ["a"]], "named twice"),
        ([["a"], []], "none empty"),
    ],
)
def test_wrong_levels_are_named(levels, message):
    with pytest.raises(UserError, match=message):
        check_levels(levels, ["a", "b"])

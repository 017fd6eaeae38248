"""The refinement (TCRD): every term against its formula, and the function against its equation in float64."""

import pytest
import torch
from conftest import tiny_vlm, training_set
from plain_training import doubled, histories, label_term, over_choices, soft_term

from hkd_core.common.errors import UserError
from hkd_core.hkd import TernarySettings, refine
from hkd_core.hkd.ternary import TEACHERS, TernaryStep, ask_teachers, imitation, relations, roles
from hkd_core.training.examples import answer_hidden
from hkd_core.training.teacher_answers import collate_with_teachers
from hkd_core.training.trainer import Schedule, train
from hkd_core.world.wording import WORDING


def settings(**changed):
    return TernarySettings(**{"steps": 1, **changed})


def test_frozen_models_stay_in_eval_mode_while_the_student_trains(trio):
    step = TernaryStep(**trio, settings=settings(relation_weight=1.0, hidden_weight=1.0))
    step.train()
    assert trio["student"].model.training
    for name in ("teacher", "assistant"):
        assert not any(module.training for module in trio[name].model.modules())


def test_relations_are_cosines_of_visual_tokens_and_the_answer():
    hidden = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    image = torch.tensor([[0, 1, 1, 1, 0, 0]] * 2).bool()
    asked = torch.tensor([[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]).bool()
    found = relations(hidden, image, asked)
    assert found.shape == (2, 4, 4)
    expected = torch.cosine_similarity(hidden[1, 2], hidden[1, 5], dim=0)
    assert float(found[1, 1, 3]) == pytest.approx(float(expected), abs=1e-6)
    fewer = relations(hidden, image & (torch.arange(6) < torch.tensor([[9], [3]])), asked)
    assert torch.equal(fewer[0], found[0])
    kept = torch.tensor([0, 1, 3])  # the row's own two visual tokens and its answer
    assert torch.allclose(fewer[1][kept][:, kept], found[1][kept][:, kept]) and not fewer[1, 2].any()


def test_imitation_is_the_mean_squared_error_against_each_state_standardised_over_its_features():
    mapped, target = torch.randn(2, 50, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = 5 + 2 * target
    standard = (target - target.mean(1, keepdim=True)) / target.std(1, correction=0, keepdim=True)
    found = imitation(mapped, target)
    assert found.shape == (50,)
    torch.testing.assert_close(found.double(), (mapped - standard).square().mean(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(imitation(target * 0, target), torch.ones(50), rtol=1e-4, atol=1e-4)  # knowing nothing costs one


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([["large"], ["medium"], ["small"]], ("small", "large", "medium")),
        ([["large", "medium"], ["small"]], ("small", "large", "medium")),
        ([["huge"], ["large"], ["medium"], ["small"]], ("small", "huge", "medium")),
    ],
)
def test_after_a_pyramid_the_apex_teaches_and_the_level_above_the_student_assists(levels, expected):
    assert tuple(roles(levels)[role] for role in ("student", "teacher", "assistant")) == expected


def test_a_pyramid_without_an_assistant_cannot_be_refined():
    with pytest.raises(UserError, match="refinement needs a teacher and an assistant above small, got \\[\\['large'\\]"):
        roles([["large"], ["small"]])


ALONE = {"label_weight": 0.0, "teacher_weight": 0.0, "assistant_weight": 0.0, "self_weight": 0.0}


def coupled(trio, data):
    return collate_with_teachers(data, ask_teachers(trio, data, WORDING))


def test_a_student_of_another_width_learns_to_meet_the_teachers_states(trio, examples, pictures):
    assert trio["student"].head.shape[1] != trio["teacher"].head.shape[1]
    data = training_set(examples[:6], pictures, **trio)
    step = TernaryStep(**trio, settings=settings(**ALONE, hidden_weight=1.0))
    history = train(step, coupled(trio, data), 6, Schedule(50, 6, 1e-2), seed=0)
    assert history[-1]["hidden"] < 0.5 * history[0]["hidden"]
    assert not any("map" in name for name in trio["student"].model.state_dict())


def test_the_finer_terms_are_those_of_each_example_alone_and_move_the_student_only(trio, examples, pictures):
    wide = trio | {"assistant": tiny_vlm(64, 1, 4)}
    data = training_set(examples[:6], pictures, **wide)
    step = TernaryStep(**wide, settings=settings(**ALONE, relation_weight=0.5, hidden_weight=0.25))
    collate = coupled(wide, data)
    batch = collate(range(6))
    terms = step(batch)
    assert [(terms[name].weight, terms[name].per) for name in ("relations", "hidden")] == [(0.5, "examples"), (0.25, "examples")]
    states = {name: answer_hidden(v, batch, name)[1].last_hidden_state.detach().double() for name, v in wide.items()}
    relation = hidden = 0.0
    for row in range(6):
        image = batch["input_ids"][row] == wide["student"].image_token_id
        words = batch["attention_mask"][row].bool() & ~image
        places = [*image.nonzero().flatten().tolist(), int(batch["asked"][row].nonzero()[0])]
        cosine = {n: torch.cosine_similarity(s[row, places][:, None], s[row, places][None], dim=-1) for n, s in states.items()}
        relation += float((cosine["student"] - cosine["assistant"]).square().mean())
        target = states["teacher"][row, words]
        standard = (target - target.mean(1, keepdim=True)) / target.std(1, correction=0, keepdim=True)
        hidden += float((states["student"][row, words] @ step.map.weight.double().T - standard).square().mean().detach())
    assert float(terms["relations"].total.detach()) == pytest.approx(relation, rel=1e-3)
    assert float(terms["hidden"].total.detach()) == pytest.approx(hidden, rel=1e-3)
    halves = [step(collate(indices)) for indices in (range(2), range(2, 6))]  # a batch's company changes nothing
    for name in ("relations", "hidden"):
        assert sum(float(half[name].total.detach()) for half in halves) == pytest.approx(
            float(terms[name].total.detach()), rel=1e-3
        )
        step.zero_grad()
        terms[name].total.backward(retain_graph=True)
        moved = {n for n, v in wide.items() if any(p.grad is not None and p.grad.any() for p in v.model.parameters())}
        assert moved == {"student"}


def test_ternary_terms_are_gated_and_models_that_no_term_looks_into_stay_out_of_the_step(trio, examples, pictures):
    data = training_set(examples[:6], pictures, **trio)
    batch = coupled(trio, data)(range(6))
    gated, open_ = (
        TernaryStep(**trio, settings=settings(gate=gate, relation_weight=1.0, hidden_weight=1.0))(batch) for gate in (True, False)
    )
    assert set(gated) == {"labels", *TEACHERS, "relations", "hidden"}
    assert all(gated[name].total < open_[name].total for name in ("teacher", "assistant"))
    plain = TernaryStep(**trio, settings=settings(gate=True))
    assert set(plain.vlms) == {"student"} and set(plain(batch)) == {"labels", *TEACHERS}
    with pytest.raises(UserError, match="TernarySettings.relation_weight: expected a number of at least 0, got -1.0"):
        settings(relation_weight=-1.0)


def test_a_refinement_follows_labels_and_three_teachers_in_float64_and_keeps_what_they_answered(examples, pictures):
    models = {"teacher": tiny_vlm(64, 2, 1), "assistant": tiny_vlm(32, 3, 2), "student": tiny_vlm(32, 1, 3)}
    data = training_set(examples[:8], pictures, **models)
    with torch.no_grad():
        told = {name: over_choices(doubled(models[role]), data, role, range(8)) for name, role in TEACHERS.items()}

    def losses(vlm, rows):
        own = over_choices(vlm, data, "student", rows)
        soft = {name: (soft_term(own, [logits[i] for i in rows], 2.0), share[name]) for name, logits in told.items()}
        return {"labels": (label_term(vlm, data, "student", rows), 0.1), **soft}

    share = {"teacher": 0.35, "assistant": 0.35, "itself": 0.2}
    rates = [3e-3 * share for share in (1, 0.964286, 0.607143, 0.25)]  # as in test_tuning, for four steps
    expected = histories(models["student"], losses, data=data, batch_size=4, rates=rates, seed=3)
    found = refine(**models, data=data, settings=settings(steps=4, batch_size=4, learning_rate=3e-3), seed=3)
    assert found.student is models["student"]
    for name in ("labels", *TEACHERS):
        assert [row[name] for row in found.history] == pytest.approx(expected[name], rel=1e-3, abs=1e-5)
        assert found.weights[name] == {"labels": 0.1, **share}[name]
    for name, logits in told.items():
        for kept, x in zip(found.teacher_logprobs[name], logits, strict=True):
            assert torch.allclose(kept[: len(x)].double(), x.log_softmax(-1), atol=1e-4) and torch.isinf(kept[len(x) :]).all()


def test_a_refinement_learns_from_examples_of_image_prompt_choices_and_answer_alone(trio, strange):
    rows = [*strange[:4], *({**row, "answer": ""} for row in strange[4:])]
    found = refine(**trio, data=rows, settings=settings(steps=30, batch_size=8, learning_rate=1e-2), seed=0)
    first, last = found.history[0], found.history[-1]
    assert last["labels"] < first["labels"] and last["teacher"] < first["teacher"]

"""Evolving: an adapter learns a model's own purged distribution, against what purging gives by hand."""

import pytest
import torch

from hkd_core.inference.contrast import purify
from hkd_core.losses import smooth_logits
from hkd_core.models import HallucinationEliminationAdapter
from hkd_core.models.vlm import encode_all
from hkd_core.seed.evolve import EvolveStep, collate_with, purified_targets
from hkd_core.training.examples import TrainingSet, answer_hidden, project
from hkd_core.training.trainer import Schedule, train


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
    return EvolveStep(vlm, adapter, kind="reverse_kl"), adapter, batch, data


def test_without_purging_the_untrained_adapter_has_nothing_to_learn(vlm, examples, pictures):
    step, _, batch, _ = evolving(vlm, examples[:4], pictures, alpha=0.0, beta=0.0, epsilon=1e-6)
    assert float(step(batch)["purified"].total.detach()) == pytest.approx(0, abs=1e-3)


def test_where_alpha_is_zero_a_target_is_what_the_model_says_now(vlm, examples, pictures):
    shift = torch.ones(vlm.head.shape[0])
    shift[7] = 3.0
    _, _, batch, _ = evolving(vlm, examples[:2], pictures, [0.0, 1.0], beta=0.1, shift=shift)
    logits = project(vlm, answer_hidden(vlm, batch, "student")[0]).detach()
    first = int(batch["asked"][0].sum())
    assert torch.allclose(batch["target"][:first], logits[:first].log_softmax(-1), atol=1e-4)
    assert not torch.allclose(batch["target"][first:], logits[first:].log_softmax(-1), atol=1e-1)


def test_targets_are_what_purging_gives_one_position_at_a_time_and_the_shift_is_for_choices_alone(vlm, examples, pictures):
    told = [examples[0] | {"choices": [], "answer": "The image shows a dog."}, examples[1]]
    shift = torch.zeros(vlm.head.shape[0])
    shift[7] = 3.0
    _, adapter, batch, data = evolving(vlm, told, pictures, 0.5, shift=shift, beta=0.2, epsilon=1e-3)
    adapter.detach()
    both = data.collate([0, 1])
    with torch.no_grad():
        clean, blank = (project(vlm, answer_hidden(vlm, both, name)[0]) for name in data.names)
    lengths = both["asked"].sum(1).tolist()
    assert lengths[0] > 5 and len(clean) == sum(lengths)
    shifts = [None] * lengths[0] + [shift] * lengths[1]
    for row, target in enumerate(batch["target"]):
        alone = purify(clean[row : row + 1], blank[row : row + 1], alpha=0.5, beta=0.2, shift=shifts[row])
        assert torch.allclose(target, smooth_logits(alone, 1e-3)[0], atol=1e-3)


def test_evolving_moves_the_adapter_towards_the_purified_answers_and_leaves_the_base_alone(vlm, examples, pictures):
    step, _, batch, _ = evolving(vlm, examples[:4], pictures, alpha=1.0, beta=0.1)
    before = {k: v.clone() for k, v in vlm.model.state_dict().items()}
    history = train(step, lambda _: batch, 4, Schedule(20, 4, 1e-2), seed=0)
    assert history[-1]["purified"] < 0.8 * history[0]["purified"]
    assert all(torch.equal(v, before[k]) for k, v in vlm.model.state_dict().items())


def test_anchors_are_held_by_forward_kl_whatever_seeks_modes_elsewhere(vlm, examples, pictures):
    _, adapter, _, data = evolving(vlm, examples[:3], pictures, alpha=1.0, beta=0.1)
    torch.nn.init.normal_(adapter.blocks[0].up.weight, std=0.3)  # an adapter that says something else than the targets
    rng = torch.Generator().manual_seed(0)
    targets = [
        torch.randn(length - prompt, vlm.head.shape[0], generator=rng).log_softmax(-1)
        for length, prompt in zip(data.lengths, data.prompts, strict=True)
    ]
    batch = collate_with(data, targets, [False, True, False])(range(3))
    parts = EvolveStep(vlm, adapter, kind="reverse_kl", anchor_weight=2.0)(batch)

    said = project(vlm, answer_hidden(vlm, batch, "student")[0]).detach().double().log_softmax(-1)
    wanted = batch["target"].double()
    reverse, forward = (said.exp() * (said - wanted)).sum(-1), (wanted.exp() * (wanted - said)).sum(-1)
    owner = batch["asked"].nonzero()[:, 0]
    assert float(parts["purified"].total.detach()) == pytest.approx(float(reverse[owner != 1].sum()), rel=1e-4)
    assert float(parts["held"].total.detach()) == pytest.approx(float(forward[owner == 1].sum()), rel=1e-4)
    assert (parts["purified"].weight, parts["held"].weight) == (1.0, 2.0)


def test_the_mean_of_several_clean_views_is_what_is_purged(vlm, examples, pictures):
    told = examples[:2]
    ids = list(dict.fromkeys(row["image_id"] for row in told))
    looks = {
        name: dict(zip(ids, encode_all({"": vlm}, [change(pictures[i]) for i in ids])[""], strict=True))
        for name, change in (("student", lambda p: p), ("look 1", lambda p: p // 2), ("blank", lambda p: p * 0))
    }
    data = TrainingSet(dict.fromkeys(looks, vlm), told, looks)
    how = {"alphas": [1.0, 0.0], "beta": 0.1, "shift": None, "epsilon": 1e-3}
    purged, held = purified_targets(vlm, data, ["blank"], "blank", **how, clean=("student", "look 1"))
    batch = data.collate([0, 1])
    with torch.no_grad():
        first, second, blank = (project(vlm, answer_hidden(vlm, batch, name)[0]) for name in looks)
    count = len(purged)
    mean = ((first[:count].softmax(-1) + second[:count].softmax(-1)) / 2).log()
    assert torch.allclose(purged, smooth_logits(purify(mean, blank[:count], alpha=1.0, beta=0.1), 1e-3), atol=1e-3)
    assert torch.allclose(held, first[count:].log_softmax(-1), atol=1e-4)  # an anchor is one look's

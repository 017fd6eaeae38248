"""Muon over many matrices at once, against torch's own, which takes them one by one."""

import copy

import pytest
import torch
from torch import nn

from hkd_core.training.muon import Muon, orthogonalised


def test_its_steps_are_those_of_torch(monkeypatch):
    monkeypatch.setenv("HKD_PRECISION", "bf16")  # torch's own choice
    torch.manual_seed(0)
    ours = nn.ParameterList(torch.randn(shape) for shape in [(24, 24), (48, 24), (24, 48), (24, 24), (8, 24)])
    theirs = copy.deepcopy(ours)
    optimizers = [
        Muon(ours, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_what_got_no_gradient_stays_as_it_is():
    params = nn.ParameterList(torch.ones(4, 4) for _ in range(2))
    params[0].grad = torch.eye(4)
    Muon(params, lr=0.1, weight_decay=0.1).step()
    assert not torch.equal(params[0], torch.ones(4, 4))
    assert torch.equal(params[1], torch.ones(4, 4))


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_singular_values_come_near_one_whatever_they_were(precision, monkeypatch):
    monkeypatch.setenv("HKD_PRECISION", precision)
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(5, 16, 32) * torch.logspace(-3, 3, 5)[:, None, None]).float())
    assert (values > 0.6).all() and (values < 1.3).all()


def test_in_float32_its_products_are_those_of_float64():
    torch.manual_seed(0)
    matrices = torch.randn(3, 24, 48)
    expected = matrices.double() / matrices.double().norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        gram = expected @ expected.mT
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    # A step enlarges rounding at most by its slope at 0, 3.4445: five of them by 485 units of 2^-24.
    torch.testing.assert_close(orthogonalised(matrices).double(), expected, rtol=0, atol=3.4445**5 * 2**-24)


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="2D"):
        Muon([nn.Parameter(torch.ones(3))], lr=0.1, weight_decay=0.0)

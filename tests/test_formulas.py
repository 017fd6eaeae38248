"""The plain formulas against SciPy's relative entropy, and a formula that has no kernel."""

import pytest
import torch
from scipy.special import rel_entr

from hkd_core.losses import divergence, linear_divergence
from hkd_core.losses.formulas import FORMULAS, kl


def distributions(rows=20, tokens=30):
    """Student and teacher, float64; some tokens have no probability at all on one side."""
    torch.manual_seed(0)
    student, teacher = (torch.randn(2, rows, tokens, dtype=torch.float64) * 3).softmax(-1)
    teacher[:, :5] = 0
    return student, teacher / teacher.sum(-1, keepdim=True)


def scipy_kl(p, q):
    return torch.as_tensor(rel_entr(p.numpy(), q.numpy()).sum(-1))


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.9])
def test_every_formula_is_what_its_docstring_says_by_scipys_relative_entropy(beta):
    s, t = distributions()
    m = beta * t + (1 - beta) * s
    expected = {
        "forward_kl": scipy_kl(t, s),
        "reverse_kl": scipy_kl(s, t),
        "jsd": beta * scipy_kl(t, m) + (1 - beta) * scipy_kl(s, m),
        "skewed_forward_kl": scipy_kl(t, m),
        "skewed_reverse_kl": scipy_kl(s, beta * s + (1 - beta) * t),
    }
    assert set(expected) == set(FORMULAS)
    for name, formula in FORMULAS.items():
        assert torch.allclose(formula(s, t, beta), expected[name], rtol=1e-10)


def test_no_divergence_of_a_distribution_from_itself_and_infinite_where_a_token_is_ruled_out():
    s, t = distributions()
    assert all(float(formula(s, s, 0.5).abs().max()) < 1e-12 for formula in FORMULAS.values())
    assert torch.isinf(kl(s, t)).all() and torch.isfinite(kl(t, s)).all()


def test_a_formula_without_a_kernel_has_the_same_value_and_gradient_through_autograd(monkeypatch):
    monkeypatch.setitem(FORMULAS, "mine", FORMULAS["jsd"])
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 9, 40)
    found = []
    for kind in ("mine", "jsd"):
        logits = student.clone().requires_grad_()
        total, count = divergence(logits, teacher, kind=kind, beta=0.3, temperature=2.0)
        total.backward()
        found.append((total.detach(), logits.grad, count))
    (mine, gradient, _), (theirs, expected, count) = found
    assert count == 9 and torch.allclose(mine, theirs, rtol=1e-5) and torch.allclose(gradient, expected, atol=1e-6)
    hidden, head = torch.randn(9, 8), torch.randn(40, 8)
    chunked = [linear_divergence(hidden, head, hidden + 1, head, kind=kind, beta=0.3, chunk=4)[0] for kind in ("mine", "jsd")]
    assert torch.allclose(*chunked, rtol=1e-5)

"""The plain formulas against SciPy's relative entropy and finite differences, and a formula that has no kernel."""

import pytest
import torch
from losses_reference import make, reference
from scipy.special import rel_entr

from hkd_core.losses import InfiniteDivergence, divergence, linear_divergence, topk_divergence
from hkd_core.losses.formulas import FORMULAS, kl

each_formula = pytest.mark.parametrize("kind", FORMULAS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def distributions(rows=20, tokens=30):
    """Logits of student and teacher, float64; the teacher rules five tokens out, both rule out five more."""
    student, teacher = make(2, rows, tokens, scale=3, dtype=torch.float64)
    teacher[:, :10] = -torch.inf
    student[:, 5:10] = -torch.inf
    return student, teacher


def scipy_kl(p, q):
    return torch.as_tensor(rel_entr(p.numpy(), q.numpy()).sum(-1))


@pytest.mark.parametrize("beta", [0.2, 0.5, 0.9])
def test_every_formula_is_what_its_docstring_says_by_scipys_relative_entropy(beta):
    student, teacher = distributions()
    s, t = student.softmax(-1), teacher.softmax(-1)
    m = beta * t + (1 - beta) * s
    expected = {
        "forward_kl": scipy_kl(t, s),
        "reverse_kl": scipy_kl(s, t),
        "jsd": beta * scipy_kl(t, m) + (1 - beta) * scipy_kl(s, m),
        "skewed_forward_kl": scipy_kl(t, m),
        "skewed_reverse_kl": scipy_kl(s, beta * s + (1 - beta) * t),
    }
    assert set(expected) == set(FORMULAS)
    for kind, formula in FORMULAS.items():
        torch.testing.assert_close(
            formula(student.log_softmax(-1), teacher.log_softmax(-1), beta), expected[kind], rtol=1e-10, atol=0
        )
    assert torch.isinf(expected["reverse_kl"]).all()


@each_formula
def test_autograd_of_a_formula_agrees_with_finite_differences(kind):
    student, teacher = make(3, 7, dtype=torch.float64, learns=True), make(3, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: reference(logits, teacher, kind, beta=0.3, temperature=2), [student])


@each_formula
def test_tokens_that_both_rule_out_or_that_underflow_leave_value_and_gradient_as_without_them(kind):
    student, teacher = make(9, 40, dtype=torch.float64), make(9, 40, dtype=torch.float64)
    for logits in (student, teacher):
        logits[:, 20:30], logits[:, 30:] = -torch.inf, -1e4
    student.requires_grad_()
    cut = student.detach()[:, :20].requires_grad_()
    total, expected = reference(student, teacher, kind), reference(cut, teacher[:, :20], kind)
    total.backward()
    expected.backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(student.grad[:, :20], cut.grad)
    assert not student.grad[:, 20:].any()


@each_formula
def test_no_divergence_of_a_distribution_from_itself(kind):
    logits = distributions()[0]
    assert float(reference(logits, logits, kind).abs()) < 1e-12


def test_kl_is_infinite_exactly_where_a_token_is_ruled_out_that_the_other_side_has():
    student, teacher = (logits.log_softmax(-1) for logits in distributions())
    assert torch.isinf(kl(student, teacher)).all() and torch.isfinite(kl(teacher, student)).all()


@pytest.fixture
def without_kernels(monkeypatch):
    """All five once more, under names that have no kernel."""
    for kind, formula in list(FORMULAS.items()):
        monkeypatch.setitem(FORMULAS, f"my_{kind}", formula)


@each_formula
def test_a_formula_without_a_kernel_runs_through_autograd(kind, without_kernels):
    student, teacher = make(9, 40, scale=20, dtype=torch.float64, learns=True), make(9, 40, scale=20, dtype=torch.float64)
    mask, weights = torch.arange(9) % 2 == 0, torch.rand(9, dtype=torch.float64)
    top, indices = teacher.log_softmax(-1).topk(8)
    found = []
    for name in (kind, f"my_{kind}"):
        total, count = divergence(student, teacher, kind=name, beta=0.3, temperature=2, mask=mask, weights=weights)
        kept, _ = topk_divergence(student, top, indices, kind=name, beta=0.3)
        found.append((total, *torch.autograd.grad(total, student), kept, *torch.autograd.grad(kept, student), torch.tensor(count)))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@each_formula
def test_a_formula_without_a_kernel_serves_chunks_of_hidden_states_too(kind, without_kernels):
    teacher_hidden, teacher_head = make(9, 6), make(40, 6)
    found = []
    for name in (kind, f"my_{kind}"):
        torch.manual_seed(1)
        hidden, head = make(9, 8, learns=True), make(40, 8, learns=True)
        total, _ = linear_divergence(hidden, head, teacher_hidden, teacher_head, kind=name, beta=0.3, temperature=2, chunk=4)
        total.backward()
        found.append((total, hidden.grad, head.grad))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_a_formula_without_a_kernel_refuses_an_infinite_divergence(without_kernels):
    student, teacher = (logits.float() for logits in distributions())
    with pytest.raises(InfiniteDivergence, match="my_reverse_kl is infinite"):
        divergence(student, teacher, kind="my_reverse_kl")

"""`divergence` and `topk_divergence` against the formulas in float64, and the mistakes that such losses are known for."""

import math

import pytest
import torch
from losses_reference import error, make, reference

from hkd_core.common.errors import UserError
from hkd_core.losses import (
    InfiniteDivergence,
    divergence,
    linear_divergence,
    shared_vocabulary,
    smooth_logits,
    topk_divergence,
)
from hkd_core.losses.formulas import FORMULAS
from hkd_core.losses.kernels import IN_PLACE

each_kind = pytest.mark.parametrize("kind", IN_PLACE)  # a formula without a kernel is less exact in float32


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# What they compute


def test_by_hand():
    teacher, student = torch.tensor([[3 / 4, 1 / 4]]).log(), torch.tensor([[1 / 2, 1 / 2]]).log()
    expected = {
        "forward_kl": 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2),
        "reverse_kl": 1 / 2 * math.log(2 / 3) + 1 / 2 * math.log(2),
        # the mixture, half and half, is (5/8, 3/8)
        "skewed_forward_kl": 3 / 4 * math.log(6 / 5) + 1 / 4 * math.log(2 / 3),
        "skewed_reverse_kl": 1 / 2 * math.log(4 / 5) + 1 / 2 * math.log(4 / 3),
    }
    expected["jsd"] = expected["skewed_forward_kl"] / 2 + expected["skewed_reverse_kl"] / 2
    for kind in expected:
        total, count = divergence(student, teacher, kind=kind, beta=0.5)
        assert count == 1
        assert float(total) == pytest.approx(expected[kind], rel=1e-5)


@each_kind
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("scale", [0.5, 3.0, 8.0])
def test_value_and_gradient_equal_the_float64_reference(kind, temperature, scale):
    student, teacher = make(40, 1000, scale=scale, learns=True), make(40, 1000, scale=scale)
    exact = student.detach().double().requires_grad_()
    expected = reference(exact, teacher, kind, beta=0.3, temperature=temperature)
    total, count = divergence(student, teacher, kind=kind, beta=0.3, temperature=temperature)
    total.backward()
    expected.backward()
    assert count == 40
    assert error(total, expected) < 1e-5
    assert error(student.grad, exact.grad) < 1e-5


@each_kind
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3])
def test_close_to_the_teacher_the_error_is_that_of_float32_probabilities_not_of_the_small_divergence(kind, noise):
    teacher = make(40, 20000, scale=3.0)
    student = (teacher + noise * make(40, 20000)).detach().requires_grad_()
    exact = student.detach().double().requires_grad_()
    expected = reference(exact, teacher, kind, beta=0.5)
    total, count = divergence(student, teacher, kind=kind, beta=0.5)
    total.backward()
    expected.backward()
    assert abs(float(total.detach()) - float(expected.detach())) / count < 1e-6
    # The gradient is a difference of probabilities. Either side's logarithm, below 16 where the probability lies, is rounded twice:
    # after subtracting the maximum and after subtracting the log of the sum, each time by less than a step there, 2^-20.
    assert float((student.grad - exact.grad).abs().sum(-1).max()) < 2 * 2 * 2**-20


@each_kind
def test_gradients_agree_with_finite_differences(kind):
    student, teacher = make(3, 7, dtype=torch.float64, learns=True), make(3, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: divergence(logits, teacher, kind=kind, beta=0.3, temperature=2)[0], [student])


@each_kind
def test_distributions_that_hardly_overlap_keep_an_accurate_gradient(kind):
    student, teacher = make(20, 2000, scale=20, learns=True), make(20, 2000, scale=20)
    exact = student.detach().double().requires_grad_()
    divergence(student, teacher, kind=kind)[0].backward()
    reference(exact, teacher, kind).backward()
    assert error(student.grad, exact.grad) < 1e-5


def test_the_kinds_are_related_as_the_formulas_say():
    student, teacher = make(5, 50, dtype=torch.float64), make(5, 50, dtype=torch.float64)

    def value(kind, beta=0.5, swapped=False):
        pair = (teacher, student) if swapped else (student, teacher)
        return float(divergence(*pair, kind=kind, beta=beta)[0])

    assert value("reverse_kl") == pytest.approx(value("forward_kl", swapped=True))
    assert value("jsd", 0.3) == pytest.approx(value("jsd", 0.7, swapped=True))
    assert value("skewed_reverse_kl", 0.1) == pytest.approx(value("skewed_forward_kl", 0.1, swapped=True))
    assert value("skewed_forward_kl", 0) == value("forward_kl")
    assert value("skewed_reverse_kl", 0) == value("reverse_kl")
    # jsd itself vanishes towards both ends; what tends to a KL is jsd over beta and over 1 - beta.
    assert value("jsd", 1e-5) / 1e-5 == pytest.approx(value("forward_kl"), rel=1e-3)
    assert value("jsd", 1 - 1e-5) / 1e-5 == pytest.approx(value("reverse_kl"), rel=1e-3)


# Mistakes seen elsewhere


@each_kind
def test_a_student_equal_to_its_teacher_costs_nothing(kind):
    logits = make(6, 500, scale=5, learns=True)
    total, _ = divergence(logits, logits, kind=kind, temperature=2)
    total.backward()
    assert total.abs() < 1e-6
    assert logits.grad.abs().max() < 1e-6


@each_kind
def test_temperature_enters_squared(kind):
    student, teacher = make(6, 50, scale=3), make(6, 50, scale=3)
    warm, _ = divergence(student, teacher, kind=kind, temperature=4)
    plain, _ = divergence(student / 4, teacher / 4, kind=kind)
    torch.testing.assert_close(warm, 16 * plain)


@each_kind
def test_a_batch_without_answer_tokens_costs_nothing_and_still_has_a_gradient(kind):
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    student, teacher = make(2, 3, 9, learns=True), make(2, 3, 9)
    top, indices = teacher.log_softmax(-1).topk(4)
    hidden, head = make(2, 3, 4, learns=True), make(9, 4, learns=True)
    totals = [
        divergence(student, teacher, kind=kind, mask=nothing),
        topk_divergence(student, top, indices, kind=kind, mask=nothing),
        linear_divergence(hidden, head, hidden, head, kind=kind, mask=nothing),
    ]
    for total, count in totals:
        assert (total.item(), count) == (0.0, 0)
        total.backward()
    for learner in (student, hidden, head):
        assert torch.equal(learner.grad, torch.zeros_like(learner))


@each_kind
def test_masked_positions_are_not_looked_at(kind):
    mask = torch.tensor([[True, False, True], [False, False, True]])
    hidden, head, teacher_hidden, teacher_head = make(2, 3, 4), make(9, 4), make(2, 3, 4), make(9, 4)
    expected, _ = linear_divergence(hidden[mask], head, teacher_hidden[mask], teacher_head, kind=kind)
    hidden[~mask], teacher_hidden[~mask] = torch.nan, torch.nan
    hidden.requires_grad_()
    student_logits = (hidden @ head.T).detach().requires_grad_()
    dense, _ = divergence(student_logits, teacher_hidden @ teacher_head.T, kind=kind, mask=mask)
    total, count = linear_divergence(hidden, head, teacher_hidden, teacher_head, kind=kind, mask=mask)
    (total + dense).backward()
    assert count == 3
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(dense, expected)
    for gradient in (hidden.grad, student_logits.grad):
        assert gradient.isfinite().all()
        assert not gradient[~mask].any()


# A teacher of which the top k were kept


def bucketed(logits, indices):
    """Log-probabilities of the tokens `indices` and of all others together, float64."""
    probabilities = logits.double().softmax(-1)
    kept = probabilities.gather(-1, indices)
    return torch.cat([kept, 1 - kept.sum(-1, keepdim=True)], -1).log()


@each_kind
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_topk_keeps_the_tail_as_one_bucket(kind, temperature):
    student, teacher = make(30, 200, scale=2, learns=True), make(30, 200, scale=2)
    top, indices = (teacher / temperature).log_softmax(-1).topk(8)
    exact = student.detach().double().requires_grad_()
    buckets = (bucketed(logits / temperature, indices) for logits in (exact, teacher))
    expected = temperature**2 * FORMULAS[kind](*buckets, 0.3).sum()
    total, count = topk_divergence(student, top, indices, kind=kind, beta=0.3, temperature=temperature)
    total.backward()
    expected.backward()
    assert count == 30
    assert error(total, expected) < 1e-5
    assert error(student.grad, exact.grad) < 1e-5


@each_kind
def test_topk_is_a_lower_bound_and_exact_when_k_is_the_vocabulary(kind):
    student, teacher = make(30, 20, scale=2), make(30, 20, scale=2)
    logp = teacher.log_softmax(-1)
    full = float(divergence(student, teacher, kind=kind)[0])
    values = [float(topk_divergence(student, *logp.topk(k), kind=kind)[0]) for k in (1, 5, 20)]
    assert values[0] < values[1] < values[2]
    assert values[2] == pytest.approx(full, rel=1e-5)


def test_a_student_that_flees_into_the_tail_pays_under_reverse_kl():
    teacher = torch.tensor([[4.0, 3.0, 0.0, 0.0, 0.0]])
    fleeing = torch.tensor([[4.0, 3.0, 9.0, 9.0, 9.0]], requires_grad=True)
    total, _ = topk_divergence(fleeing, *teacher.log_softmax(-1).topk(2), kind="reverse_kl")
    total.backward()
    assert total > 2
    assert (fleeing.grad[0, 2:] > 0).all()


@each_kind
def test_stored_logprobs_that_sum_to_more_than_one_stay_finite(kind):
    top, indices = torch.tensor([[0.7, 0.3001]]).log(), torch.tensor([[0, 1]])
    student = make(1, 5, learns=True)
    total, _ = topk_divergence(student, top, indices, kind=kind)
    total.backward()
    assert total.isfinite() and student.grad.isfinite().all()


# Tokens that are ruled out


@pytest.mark.parametrize("kind", ["forward_kl", "jsd", "skewed_forward_kl", "skewed_reverse_kl"])
def test_a_teacher_that_rules_tokens_out_is_taken_exactly(kind):
    student, teacher = make(9, 40, learns=True), make(9, 40)
    teacher[:, 10:] = -torch.inf
    exact = student.detach().double().requires_grad_()
    total, _ = divergence(student, teacher, kind=kind, beta=0.3)
    expected = reference(exact, teacher, kind, 0.3)
    total.backward()
    expected.backward()
    assert error(total, expected) < 1e-5
    assert error(student.grad, exact.grad) < 1e-5


@each_kind
def test_tokens_that_both_rule_out_do_not_matter(kind):
    student, teacher = make(9, 40), make(9, 40)
    expected, _ = divergence(student[:, :10], teacher[:, :10], kind=kind)
    student[:, 10:], teacher[:, 10:] = -torch.inf, -torch.inf
    student.requires_grad_()
    total, _ = divergence(student, teacher, kind=kind)
    total.backward()
    torch.testing.assert_close(total, expected)
    assert student.grad.isfinite().all()
    assert not student.grad[:, 10:].any()


def test_an_infinite_divergence_is_refused_and_smoothing_makes_it_finite():
    student, teacher = make(9, 40, learns=True), make(9, 40)
    teacher[:, 10:] = -torch.inf
    with pytest.raises(ValueError, match=r"reverse_kl is infinite.*smooth_logits"):
        divergence(student, teacher, kind="reverse_kl")
    with pytest.raises(ValueError, match="forward_kl is infinite"):
        divergence(teacher, student, kind="forward_kl")

    epsilon = 1e-4
    smooth = smooth_logits(teacher, epsilon)
    torch.testing.assert_close(smooth.exp(), (1 - epsilon) * teacher.softmax(-1) + epsilon / 40)
    exact = student.detach().double().requires_grad_()
    total, _ = divergence(student, smooth, kind="reverse_kl")
    expected = reference(exact, smooth, "reverse_kl")
    total.backward()
    expected.backward()
    assert error(total, expected) < 1e-5
    assert error(student.grad, exact.grad) < 1e-5


# Vocabularies


def test_vocabularies_padded_to_different_sizes_are_cut_to_the_shared_part():
    tokens = {"cat": 0, "dog": 1, "cow": 2}
    shared = shared_vocabulary(tokens, {**tokens, "<image>": 3})
    assert shared == 3
    hidden, teacher_hidden = make(5, 4), make(5, 4)
    head, teacher_head = make(8, 4, learns=True), make(16, 4)
    total, _ = linear_divergence(hidden, head[:shared], teacher_hidden, teacher_head[:shared])
    total.backward()
    expected = reference((hidden @ head.T)[:, :3], (teacher_hidden @ teacher_head.T)[:, :3], "jsd")
    assert error(total, expected) < 1e-5
    assert not head.grad[shared:].any()


def test_different_tokens_are_an_error_that_names_the_first():
    with pytest.raises(UserError, match="id 1: 'dog' in the student, 'cow' in the teacher"):
        shared_vocabulary({"cat": 0, "dog": 1, "cow": 2}, {"cat": 0, "cow": 1, "dog": 2})
    with pytest.raises(UserError, match="id 1: None in the student, 'dog' in the teacher"):
        shared_vocabulary({"cat": 0, "cow": 2}, {"cat": 0, "dog": 1, "cow": 2})
    with pytest.raises(UserError, match="share no token"):
        shared_vocabulary({}, {"cat": 0})


# Input that does not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "kl"}, "unknown kind 'kl'; expected one of forward_kl"),
        ({"kind": "jsd", "beta": 0}, "use forward_kl"),
        ({"kind": "jsd", "beta": 1}, "reverse_kl"),
        ({"kind": "skewed_forward_kl", "beta": 1}, "0 <= beta < 1"),
        ({"kind": "skewed_reverse_kl", "beta": -0.1}, "0 <= beta < 1"),
        ({"beta": math.nan}, "beta"),
        ({"temperature": 0}, "temperature above 0, got 0"),
        ({"mask": torch.ones(3)}, "mask of torch.bool"),
        ({"mask": torch.ones(2, dtype=torch.bool)}, r"mask of torch.bool \[3\], got torch.bool \[2\]"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    logits = make(3, 5)
    for call in (
        lambda: divergence(logits, logits, **options),
        lambda: topk_divergence(logits, *logits.log_softmax(-1).topk(2), **options),
        lambda: linear_divergence(logits, logits, logits, logits, **options),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shared_vocabulary"):
        divergence(make(3, 5), make(3, 6))
    with pytest.raises(ValueError, match="student_head has 5 rows, teacher_head 6"):
        linear_divergence(make(3, 4), make(5, 4), make(3, 4), make(6, 4))
    with pytest.raises(ValueError, match="leading dimensions"):
        linear_divergence(make(3, 4), make(5, 4), make(2, 4), make(5, 4))
    with pytest.raises(ValueError, match=r"teacher_head of shape \[V, 6\]"):
        linear_divergence(make(3, 4), make(5, 4), make(3, 6), make(5, 4))
    with pytest.raises(ValueError, match="chunk of at least 1"):
        linear_divergence(make(3, 4), make(5, 4), make(3, 4), make(5, 4), chunk=0)
    with pytest.raises(ValueError, match=r"shape \[3, 'k'\]"):
        topk_divergence(make(3, 4), make(2, 2), torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="k between 1 and the vocabulary's 4"):
        topk_divergence(make(3, 4), make(3, 5), torch.zeros(3, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="epsilon between 0 and 1"):
        smooth_logits(make(3, 4), 0)


@each_kind
def test_weights_multiply_each_positions_value_and_gradient(kind):
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(5, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 11, generator=generator, dtype=torch.float64)
    weights = torch.rand(5, generator=generator, dtype=torch.float64)
    weighted, count = divergence(student, teacher, kind=kind, weights=weights)
    (found,) = torch.autograd.grad(weighted, student)
    rows = [divergence(student[i : i + 1], teacher[i : i + 1], kind=kind)[0] * weights[i] for i in range(5)]
    (expected,) = torch.autograd.grad(sum(rows), student)
    assert count == 5
    torch.testing.assert_close(weighted, sum(rows))
    torch.testing.assert_close(found, expected)


def test_an_infinite_position_is_refused_whatever_its_weight():
    student, teacher = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf]])
    with pytest.raises(InfiniteDivergence, match="reverse_kl is infinite"):
        divergence(student, teacher, kind="reverse_kl", weights=torch.tensor([1.0, 0.0]))

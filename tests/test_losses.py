"""The divergences against their formulas in float64, and the mistakes that such losses are known for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hkd_core.common.errors import UserError
from hkd_core.losses import (
    KINDS,
    InfiniteDivergence,
    divergence,
    linear_divergence,
    shared_vocabulary,
    smooth_logits,
    topk_divergence,
)
from hkd_core.losses.formulas import FORMULAS

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def reference(student_logits, teacher_logits, kind, beta=0.5, temperature=1.0):
    """The formula in float64 over probabilities; its gradient is torch's own."""
    student, teacher = ((logits.double() / temperature).softmax(-1) for logits in (student_logits, teacher_logits))
    return temperature**2 * FORMULAS[kind](student, teacher, beta).sum()


def error(value, expected):
    """Relative, of whole tensors."""
    return float((value.detach().double() - expected.detach()).norm() / expected.detach().norm())


def make(*shape, scale=1.0, dtype=torch.float32, learns=False):
    return (torch.randn(*shape) * scale).to(dtype).requires_grad_(learns)


def hidden_and_heads(tokens=70, vocabulary=1000, dtype=torch.float32):
    """A narrow student, a wide teacher; logits with a standard deviation of about 2."""
    return [
        make(tokens, 32, dtype=dtype, learns=True),
        make(vocabulary, 32, scale=2 / 32**0.5, dtype=dtype, learns=True),
        make(tokens, 48, dtype=dtype),
        make(vocabulary, 48, scale=2 / 48**0.5, dtype=dtype),
    ]


def linear_reference(inputs, **settings):
    """(value, gradient of student_hidden, gradient of student_head), all in float64."""
    student_hidden, student_head, teacher_hidden, teacher_head = (tensor.detach().double().requires_grad_() for tensor in inputs)
    value = reference(student_hidden @ student_head.T, teacher_hidden @ teacher_head.T, **settings)
    return value, *torch.autograd.grad(value, [student_hidden, student_head])


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
    for kind in KINDS:
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
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("chunk", [1, 16, 70, 999])
def test_chunked_equals_the_float64_reference_for_any_chunk(kind, temperature, chunk):
    inputs = hidden_and_heads(tokens=70)
    options = {"kind": kind, "beta": 0.3, "temperature": temperature}
    expected, hidden_gradient, head_gradient = linear_reference(inputs, **options)
    total, count = linear_divergence(*inputs, **options, chunk=chunk)
    total.backward()
    assert count == 70
    assert error(total, expected) < 1e-5
    assert error(inputs[0].grad, hidden_gradient) < 1e-5
    assert error(inputs[1].grad, head_gradient) < 1e-5


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    batch=st.integers(0, 3),
    length=st.integers(0, 9),
    chunk=st.integers(1, 12),
    kind=st.sampled_from(KINDS),
    share=st.floats(0, 1),
)
def test_chunked_equals_dense_for_any_shape_and_mask(batch, length, chunk, kind, share):
    mask = torch.rand(batch, length) < share
    hidden, teacher_hidden = make(batch, length, 4), make(batch, length, 6)
    head, teacher_head = make(11, 4), make(11, 6)
    options = {"kind": kind, "mask": mask, "beta": 0.2}
    dense, dense_count = divergence(hidden @ head.T, teacher_hidden @ teacher_head.T, **options)
    total, count = linear_divergence(hidden, head, teacher_hidden, teacher_head, **options, chunk=chunk)
    assert count == dense_count == int(mask.sum())
    torch.testing.assert_close(total, dense, rtol=1e-5, atol=1e-6)


@each_kind
def test_gradients_agree_with_finite_differences(kind):
    student, teacher = make(3, 7, dtype=torch.float64, learns=True), make(3, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: divergence(logits, teacher, kind=kind, beta=0.3, temperature=2)[0], [student])
    inputs = hidden_and_heads(tokens=5, vocabulary=7, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *learners: linear_divergence(*learners, *inputs[2:], kind=kind, temperature=2, chunk=2)[0], inputs[:2]
    )


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
    hidden, head, teacher_hidden, teacher_head = hidden_and_heads(tokens=6)
    warm, _ = linear_divergence(hidden, head, teacher_hidden, teacher_head, kind=kind, temperature=4)
    plain, _ = linear_divergence(hidden / 4, head, teacher_hidden / 4, teacher_head, kind=kind)
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


def test_sums_over_micro_batches_make_the_sum_of_the_batch():
    hidden, head, teacher_hidden, teacher_head = hidden_and_heads(tokens=10)
    whole, count = linear_divergence(hidden, head, teacher_hidden, teacher_head)
    parts = [linear_divergence(hidden[part], head, teacher_hidden[part], teacher_head) for part in (slice(7), slice(7, None))]
    torch.testing.assert_close(sum(total for total, _ in parts), whole)
    assert sum(number for _, number in parts) == count


class Allocations(TorchDispatchMode):
    """Shapes of all tensors made in its scope that are not views of `inputs`."""

    def __init__(self, *inputs):
        super().__init__()
        self.shapes, self.known = [], {tensor.untyped_storage().data_ptr() for tensor in inputs}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in self.known:
            self.shapes.append(tuple(result.shape))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_of_tokens_by_vocabulary_never_exists_nor_a_gradient_of_a_frozen_head(dtype):
    tokens, vocabulary, chunk = 50, 5000, 8
    inputs = hidden_and_heads(tokens, vocabulary, dtype)
    inputs[1].requires_grad_(False)
    mask = torch.arange(tokens) % 2 == 0
    with Allocations(*inputs) as allocations:
        total, _ = linear_divergence(*inputs, mask=mask, chunk=chunk)
        total.backward()
    assert inputs[1].grad is None
    assert (vocabulary, 32) not in allocations.shapes
    assert (chunk, vocabulary) in allocations.shapes
    assert max(math.prod(shape) for shape in allocations.shapes) <= max(3 * chunk * vocabulary, 4096 * 48)


def test_only_unmasked_positions_are_projected():
    inputs = hidden_and_heads(tokens=50, vocabulary=300)
    mask = torch.arange(50) < 3
    with Allocations(*inputs) as allocations:
        linear_divergence(*inputs, mask=mask, chunk=64)
    assert {shape[-2] for shape in allocations.shapes if shape[-1:] == (300,)} == {3}


def test_tied_embeddings_receive_both_gradients():
    teacher_hidden, teacher_head, words = make(12, 48), make(200, 48), torch.randint(200, (12,))

    def gradient(embeddings, loss):
        embeddings = embeddings.clone().requires_grad_()
        loss(torch.tanh(embeddings[words]), embeddings).backward()
        return embeddings.grad

    embeddings = make(200, 32)
    tied = gradient(embeddings, lambda hidden, head: linear_divergence(hidden, head, teacher_hidden, teacher_head)[0])
    expected = gradient(
        embeddings.double(), lambda hidden, head: reference(hidden @ head.T, teacher_hidden @ teacher_head.T, "jsd")
    )
    assert error(tied, expected) < 1e-5


def test_a_teacher_that_shares_the_students_head_stays_a_constant():
    hidden, teacher_hidden, head = make(6, 8, learns=True), make(6, 8, learns=True), make(30, 8, learns=True)
    linear_divergence(hidden, head, teacher_hidden, head)[0].backward()
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, head)]
    reference(exact[0] @ exact[1].T, (teacher_hidden @ head.T).detach(), "jsd").backward()
    assert teacher_hidden.grad is None
    assert error(head.grad, exact[1].grad) < 1e-5
    logits = make(6, 30, learns=True)
    divergence(hidden.detach() @ head.T.detach(), logits)
    assert logits.grad is None


@each_kind
def test_half_precision_is_projected_in_float32(kind):
    inputs = hidden_and_heads(tokens=70, vocabulary=6000, dtype=torch.bfloat16)
    expected, hidden_gradient, head_gradient = linear_reference(inputs, kind=kind)
    total, _ = linear_divergence(*inputs, kind=kind)
    total.backward()
    assert inputs[0].grad.dtype == inputs[1].grad.dtype == torch.bfloat16
    assert error(total, expected) < 1e-5
    assert error(inputs[0].grad, hidden_gradient) < 5e-3
    assert error(inputs[1].grad, head_gradient) < 5e-3


def test_logits_rounded_to_bf16_would_lose_the_gradient_of_a_close_student():
    head, teacher_hidden = make(6000, 32, scale=2 / 32**0.5, dtype=torch.bfloat16), make(70, 32, dtype=torch.bfloat16)
    hidden = (teacher_hidden + make(70, 32, scale=0.1)).bfloat16().requires_grad_()
    inputs = [hidden, head, teacher_hidden, head]
    _, expected, _ = linear_reference(inputs, kind="jsd")
    (projected_in_float32,) = torch.autograd.grad(linear_divergence(*inputs)[0], hidden)
    (upcast_after,) = torch.autograd.grad(divergence(hidden @ head.T, teacher_hidden @ head.T)[0], hidden)
    assert error(projected_in_float32, expected) < 5e-3
    assert error(upcast_after, expected) > 3e-2


def test_autocast_does_not_bring_the_projection_down():
    inputs = hidden_and_heads()
    expected, hidden_gradient, _ = linear_reference(inputs, kind="jsd")
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = linear_divergence(*inputs)
    total.backward()
    assert error(total, expected) < 1e-5
    assert error(inputs[0].grad, hidden_gradient) < 1e-5


def test_the_gradient_follows_the_loss_that_uses_it():
    inputs = hidden_and_heads()
    total, _ = linear_divergence(*inputs)
    once, twice = torch.autograd.grad(total, inputs[:2], retain_graph=True), torch.autograd.grad(total * 2, inputs[:2])
    for single, double in zip(once, twice, strict=True):
        torch.testing.assert_close(double, 2 * single)
    with torch.no_grad():
        assert not linear_divergence(*inputs)[0].requires_grad


# A teacher of which the top k were kept


def bucketed(logits, indices):
    """Probabilities of the tokens `indices` and of all others together, float64."""
    probabilities = logits.double().softmax(-1)
    kept = probabilities.gather(-1, indices)
    return torch.cat([kept, probabilities.sum(-1, keepdim=True) - kept.sum(-1, keepdim=True)], -1)


@each_kind
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_topk_keeps_the_tail_as_one_bucket(kind, temperature):
    student, teacher = make(30, 200, scale=2, learns=True), make(30, 200, scale=2)
    top, indices = (teacher / temperature).log_softmax(-1).topk(8)
    exact = student.detach().double().requires_grad_()
    expected = temperature**2 * FORMULAS[kind](
        bucketed(exact / temperature, indices), bucketed(teacher / temperature, indices), 0.3
    ).sum()
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


@pytest.mark.parametrize("kind", KINDS)
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

"""`linear_divergence` against the formulas in float64: chunks, memory, half precision, tied heads."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_reference import error, make, reference
from torch.utils._python_dispatch import TorchDispatchMode

from hkd_core.losses import KINDS, divergence, linear_divergence

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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
    inputs = hidden_and_heads(tokens=5, vocabulary=7, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *learners: linear_divergence(*learners, *inputs[2:], kind=kind, temperature=2, chunk=2)[0], inputs[:2]
    )


@each_kind
def test_temperature_enters_squared(kind):
    hidden, head, teacher_hidden, teacher_head = hidden_and_heads(tokens=6)
    warm, _ = linear_divergence(hidden, head, teacher_hidden, teacher_head, kind=kind, temperature=4)
    plain, _ = linear_divergence(hidden / 4, head, teacher_hidden / 4, teacher_head, kind=kind)
    torch.testing.assert_close(warm, 16 * plain)


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

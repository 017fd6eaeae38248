"""The divergences as the rest of the library calls them: `divergence`, `linear_divergence`, `topk_divergence`.

All three return (total, count). The total is the sum over unmasked positions in float32, multiplied by temperature² so that
gradients keep their size (arXiv 1503.02531). The count is the number of those positions, an int. The caller divides once, by the
count of the whole batch over accumulation steps and devices. Without unmasked positions the total is 0, with a gradient of 0. The
teacher is a constant: no gradient reaches its logits, hidden states or head. A kind with a formula and no kernel runs through autograd.

Logits stand where the token is predicted; shifting against labels is the caller's task. Vocabularies of different size are refused:
`shared_vocabulary` says how far two of them agree. A side may rule out a token (logit -inf). This is exact where the divergence is
finite, and `smooth_logits` makes it finite where it is not.

In float32, values and gradients are within a relative 1e-5 of the exact ones. Float32 rounds log-probabilities between 8 and 16 to
steps of 2^-20. So where student and teacher nearly agree, the value may be off by 1e-6 nats a position. The gradient, summed over the
vocabulary, may be off by 4e-6 max(1, temperature). Float64 logits do better.
"""

import math

import torch
from torch import Tensor

from hkd_core.losses.formulas import FORMULAS
from hkd_core.losses.kernels import Divergence, LinearDivergence

KINDS = tuple(FORMULAS)


def divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    kind: str = "jsd",
    beta: float = 0.5,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, int]:
    """Sum of the divergence over unmasked positions, times temperature², and their number.

    student_logits, teacher_logits: [..., V], any float type (computed in float32, or float64 if the student's is).
    mask: bool [...], True where a position counts; what stands at the others is not looked at.
    weights: [...], constants that each position's divergence is multiplied by; the count stays the number of positions.
    beta: strictly between 0 and 1 for jsd, because its formula is 0 for every pair at both ends. For the skewed kinds it
    is in [0, 1), and 0 means the plain KL. The plain kinds do not use it.
    Raises ValueError for an unknown kind, a temperature or beta out of range, shapes that do not fit, and an infinite
    divergence: reverse KL to a teacher with logits of -inf wants `smooth_logits`.
    """
    kind = _check(kind, beta, temperature)
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student_logits {list(student_logits.shape)} and teacher_logits {list(teacher_logits.shape)} differ in "
            "shape; for vocabularies of different size see shared_vocabulary"
        )
    student, teacher = _unmasked(mask, student_logits, teacher_logits.detach())
    if weights is not None:
        if weights.shape != student_logits.shape[:-1]:
            raise ValueError(f"expected weights {list(student_logits.shape[:-1])}, got {list(weights.shape)}")
        (weights,) = _unmasked(mask, weights.detach()[..., None])
    return Divergence.apply(student, teacher, kind, beta, temperature, weights), len(student)


def topk_divergence(
    student_logits: Tensor,
    teacher_topk_logprobs: Tensor,
    teacher_topk_indices: Tensor,
    *,
    kind: str = "jsd",
    beta: float = 0.5,
    temperature: float = 1.0,
    mask: Tensor | None = None,
) -> tuple[Tensor, int]:
    """`divergence` over k + 1 outcomes: the teacher's k most probable tokens and, as one bucket, all the others.

    student_logits: [..., V]. teacher_topk_logprobs, teacher_topk_indices: [..., k], log-probabilities among all V, at
    `temperature`, of distinct tokens: what `torch.log_softmax(logits / temperature, -1).topk(k)` returns.
    Never above the full divergence, equal to it at k = V. Without the bucket, a student that moves its mass off the
    teacher's tokens would pay nothing under reverse KL. The bucket's teacher probability is 1 minus the sum of the
    others. It is at least float32's resolution (1.2e-7), so that rounding in stored values leaves every kind finite.
    Raises ValueError as `divergence` does, and for k outside 1..V.
    """
    kind = _check(kind, beta, temperature)
    *places, vocabulary = student_logits.shape
    k = teacher_topk_indices.shape[-1]
    if teacher_topk_logprobs.shape != teacher_topk_indices.shape or [*teacher_topk_indices.shape[:-1]] != places:
        raise ValueError(
            f"expected teacher_topk_logprobs and teacher_topk_indices of shape {[*places, 'k']}, got "
            f"{list(teacher_topk_logprobs.shape)} and {list(teacher_topk_indices.shape)}"
        )
    if not 1 <= k <= vocabulary:
        raise ValueError(f"expected k between 1 and the vocabulary's {vocabulary}, got {k}")
    student, teacher_logp, indices = _unmasked(mask, student_logits, teacher_topk_logprobs.detach(), teacher_topk_indices.long())
    teacher_logp = _as_float(teacher_logp)
    everything = torch.log_softmax(_as_float(student) / temperature, -1)
    student_logp = everything.gather(-1, indices)
    if k < vocabulary:
        student_tail = everything.scatter(-1, indices, -torch.inf).logsumexp(-1, keepdim=True)
        teacher_tail = (1 - teacher_logp.exp().sum(-1, keepdim=True)).clamp_min(torch.finfo(torch.float32).eps).log()
        student_logp = torch.cat([student_logp, student_tail], -1)
        teacher_logp = torch.cat([teacher_logp, teacher_tail], -1)
    return Divergence.apply(student_logp, teacher_logp, kind, beta, 1, None) * temperature**2, len(student)


def linear_divergence(
    student_hidden: Tensor,
    student_head: Tensor,
    teacher_hidden: Tensor,
    teacher_head: Tensor,
    *,
    kind: str = "jsd",
    beta: float = 0.5,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, int]:
    """`divergence` of hidden @ head.T, `chunk` unmasked positions at a time: a [N, V] tensor never exists.

    student_hidden [..., H], student_head [V, H]; teacher_hidden [..., H'], teacher_head [V, H']; mask: bool [...].
    Memory beyond the inputs: three [chunk, V] buffers and the gradients. These are computed along with the value, for
    student_hidden and, only if it requires grad, for student_head (tied to the embeddings or not). Not differentiable
    twice. Half-precision inputs are multiplied in float32, also under autocast. Logits rounded to bf16 would make the
    gradient wrong by percents, most where the student is close. `torch.set_float32_matmul_precision` is respected.
    Raises ValueError for the settings that `divergence` refuses, shapes that do not fit, and chunk < 1.
    """
    kind = _check(kind, beta, temperature)
    if chunk < 1:
        raise ValueError(f"expected chunk of at least 1, got {chunk}")
    if student_hidden.shape[:-1] != teacher_hidden.shape[:-1]:
        raise ValueError(
            f"student_hidden {list(student_hidden.shape)} and teacher_hidden {list(teacher_hidden.shape)} differ in "
            "their leading dimensions"
        )
    for side, hidden, head in (("student", student_hidden, student_head), ("teacher", teacher_hidden, teacher_head)):
        if head.ndim != 2 or head.shape[1] != hidden.shape[-1]:
            raise ValueError(f"expected {side}_head of shape [V, {hidden.shape[-1]}], got {list(head.shape)}")
    if len(student_head) != len(teacher_head):
        raise ValueError(
            f"student_head has {len(student_head)} rows, teacher_head {len(teacher_head)}; cut both to what "
            "shared_vocabulary returns"
        )
    student, teacher = _unmasked(mask, student_hidden, teacher_hidden.detach())
    total = LinearDivergence.apply(
        student, student_head, teacher, teacher_head.detach(), kind, beta, temperature, chunk, torch.is_grad_enabled()
    )
    return total, len(student)


def smooth_logits(logits: Tensor, epsilon: float) -> Tensor:
    """log((1 - epsilon) softmax(logits) + epsilon / V): log-probabilities that are finite where logits are -inf.

    logits: [..., V]. Returns [..., V], in float32 (float64 if given).
    Reverse KL to a distribution with ruled-out tokens (a purified one, say) is infinite for any softmax student. To the
    smoothed one it is finite. Probability s on such a token costs s log(s V / epsilon), so a smaller epsilon costs more.
    Raises ValueError unless 0 < epsilon < 1.
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"expected epsilon between 0 and 1, got {epsilon}")
    logp = torch.log_softmax(_as_float(logits), -1)
    uniform = torch.full_like(logp, math.log(epsilon / logits.shape[-1]))
    return torch.logaddexp(logp + math.log1p(-epsilon), uniform)


def _check(kind: str, beta: float, temperature: float) -> str:
    """Raise ValueError for settings out of range; the kind to compute (a skew of 0 is none)."""
    if kind not in FORMULAS:
        raise ValueError(f"unknown kind {kind!r}; expected one of {', '.join(FORMULAS)}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    if kind == "jsd" and not 0 < beta < 1:
        raise ValueError(
            f"jsd is 0 for every pair at beta 0 and 1; expected a beta between, got {beta}; where other libraries "
            "write jsd with beta = 0, use forward_kl, with beta = 1, reverse_kl"
        )
    if kind.startswith("skewed_") and not 0 <= beta < 1:
        raise ValueError(
            f"{kind} is 0 for every pair at beta 1; expected 0 <= beta < 1, got {beta}; for the plain KL use "
            f"{kind.removeprefix('skewed_')}"
        )
    return kind.removeprefix("skewed_") if beta == 0 else kind


def _as_float(values: Tensor) -> Tensor:
    """float32, or float64 if it is that already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _unmasked(mask: Tensor | None, *tensors: Tensor) -> list[Tensor]:
    """Each [..., D] as [N, D], the N positions where mask [...] is True."""
    flat = [tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors]
    if mask is None:
        return flat
    places = tensors[0].shape[:-1]
    if mask.dtype != torch.bool or mask.shape != places:
        raise ValueError(f"expected a mask of torch.bool {list(places)}, got {mask.dtype} {list(mask.shape)}")
    rows = mask.flatten().nonzero().squeeze(-1)
    return [tensor.index_select(0, rows) for tensor in flat]

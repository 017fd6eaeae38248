"""The divergences of `formulas.py` with analytic gradients, chunked and in place: the same values in less memory.

`Divergence` takes logits [N, V]. `LinearDivergence` takes hidden states and heads, and never holds [N, V]. Both call one kernel a
kind, registered in IN_PLACE. A kernel takes S and T (for the plain kinds log S and log T) and an uninitialised scratch buffer, all
[N, V]. It overwrites all three and returns (values [N], gradient by the student's logits [N, V]).

With G = -dD/dS, up to a constant, the gradient through the softmax is S (<S, G> - G). Two precautions keep float32 accurate.
KL(P || Q) is summed as P log(P / Q) - P + Q. The last two sum to 0, and with them the rounding of the softmax normalisers cancels
to first order, which flat distributions (high temperature) need. Where S and T hardly overlap, log(S / M) is nearly constant, and
the gradient is the small rest. That rest is log1p(d), with d the odds of T to S in the mixture.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from hkd_core.losses.formulas import FORMULAS, Formula

HEAD_ROWS = 4096  # rows of a half-precision head that are held in float32 at a time

Kernel = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


class InfiniteDivergence(ValueError):
    """One side can produce a token that the other rules out."""


class Divergence(torch.autograd.Function):
    """`divergence` of unmasked positions: logits [N, V] and [N, V] -> total."""

    @staticmethod
    def forward(ctx, student_logits, teacher_logits, kind, beta, temperature, weights):
        normalise, value_and_gradient = _kernel_of(kind)
        dtype = torch.promote_types(student_logits.dtype, torch.float32)
        student = normalise(student_logits.to(dtype) / temperature, -1)
        teacher = normalise(teacher_logits.to(dtype) / temperature, -1)
        values, gradient = value_and_gradient(student, teacher, torch.empty_like(student), beta)
        infinite = values.isinf().any()
        if weights is not None:
            values, gradient = values * weights.to(dtype).squeeze(-1), gradient.mul_(weights.to(dtype))
        total = values.sum() * temperature**2
        if infinite:
            raise InfiniteDivergence(
                f"{kind} is infinite: a token that one side can produce is ruled out (-inf) by the other; "
                "smooth_logits keeps it finite, and so does a skewed kind or jsd"
            )
        ctx.save_for_backward(gradient)
        ctx.scale, ctx.dtype = temperature, student_logits.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, total_gradient):
        (gradient,) = ctx.saved_tensors
        return (gradient * (total_gradient * ctx.scale)).to(ctx.dtype), *[None] * 5


class LinearDivergence(torch.autograd.Function):
    """`linear_divergence` of unmasked positions: hidden [N, H] and [N, H'], heads [V, H] and [V, H'] -> total."""

    @staticmethod
    def forward(ctx, student_hidden, student_head, teacher_hidden, teacher_head, kind, beta, temperature, chunk, learning):
        dtype = torch.promote_types(student_hidden.dtype, torch.float32)
        hidden_learns, head_learns = (learning and needed for needed in ctx.needs_input_grad[:2])
        count, vocabulary = len(student_hidden), len(student_head)
        normalise, value_and_gradient = _kernel_of(kind)
        values = student_hidden.new_zeros(count, dtype=dtype)
        hidden_gradient = torch.empty_like(student_hidden, dtype=dtype) if hidden_learns else None
        head_gradient = torch.zeros_like(student_head, dtype=dtype) if head_learns else None
        buffers = student_hidden.new_empty(3, min(chunk, count), vocabulary, dtype=dtype)

        with torch.autocast(student_hidden.device.type, enabled=False):
            for start in range(0, count, chunk):
                here = slice(start, min(start + chunk, count))
                student, teacher, scratch = buffers[:, : here.stop - start]
                scaled_hidden = student_hidden[here].to(dtype) / temperature
                _project(scaled_hidden, student_head, out=scratch)
                normalise(scratch, -1, out=student)
                _project(teacher_hidden[here].to(dtype) / temperature, teacher_head, out=scratch)
                normalise(scratch, -1, out=teacher)
                values[here], gradient = value_and_gradient(student, teacher, scratch, beta)
                if hidden_gradient is not None:
                    _project_back(gradient, student_head, out=hidden_gradient[here])
                if head_gradient is not None:
                    head_gradient.addmm_(gradient.T, scaled_hidden, alpha=temperature**2)

        if hidden_gradient is not None:
            hidden_gradient *= temperature  # temperature² of the loss over the temperature that divides the logits
        ctx.save_for_backward(hidden_gradient, head_gradient)
        ctx.dtypes = student_hidden.dtype, student_head.dtype
        return values.sum() * temperature**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, total_gradient):
        gradients = [
            gradient if gradient is None else (gradient * total_gradient).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *gradients, *[None] * 7


def _head_blocks(head: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Pairs (slice of rows, those rows in dtype): the whole head at once if it is of that type."""
    rows = max(len(head), 1) if head.dtype == dtype else HEAD_ROWS
    for start in range(0, len(head), rows):
        block = slice(start, start + rows)
        yield block, head[block].to(dtype)


def _project(hidden: Tensor, head: Tensor, *, out: Tensor) -> None:
    """out = hidden @ head.T in the type of hidden."""
    for block, rows in _head_blocks(head, hidden.dtype):
        torch.mm(hidden, rows.T, out=out[:, block])


def _project_back(gradient: Tensor, head: Tensor, *, out: Tensor) -> None:
    """out = gradient @ head in the type of gradient."""
    out.zero_()
    for block, rows in _head_blocks(head, gradient.dtype):
        out.addmm_(gradient[:, block], rows)


def _forward_kl_(student_logp: Tensor, teacher_logp: Tensor, scratch: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """G = T / S, so that the gradient is S - T."""
    log_ratio = torch.sub(teacher_logp, student_logp, out=scratch)
    teacher = teacher_logp.exp_()
    gradient = student_logp.exp_().sub_(teacher)
    return log_ratio.masked_fill_(teacher == 0, 0).mul_(teacher).sum(-1) + gradient.sum(-1), gradient


def _reverse_kl_(student_logp: Tensor, teacher_logp: Tensor, scratch: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """G = log(T / S)."""
    g = torch.sub(teacher_logp, student_logp, out=scratch)
    student = student_logp.exp_()
    g.masked_fill_(student == 0, 0)
    excess = teacher_logp.exp_().sub_(student).sum(-1)
    mean, gradient = _through_softmax_(student, g, scratch=teacher_logp)
    return excess - mean, gradient


def _jsd_(student: Tensor, teacher: Tensor, scratch: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """G = (1 - beta) log(M / S) = (1 - beta) log1p(d) + constant."""
    teacher_kl = _kl_to_mixture(teacher, student, beta, scratch)
    student_kl = _kl_to_mixture(student, teacher, 1 - beta, scratch)
    g = _odds_(teacher, student, beta / (1 - beta), scratch).log1p_().mul_(1 - beta)
    return beta * teacher_kl + (1 - beta) * student_kl, _through_softmax_(student, g, scratch)[1]


def _skewed_forward_kl_(student: Tensor, teacher: Tensor, scratch: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """G = (1 - beta) T / M = (1 - beta) / beta * d / (1 + d)."""
    value = _kl_to_mixture(teacher, student, beta, scratch)
    odds = _odds_(teacher, student, beta / (1 - beta), scratch)
    g = odds.div_(torch.add(odds, 1, out=scratch)).mul_((1 - beta) / beta)
    return value, _through_softmax_(student, g, scratch)[1]


def _skewed_reverse_kl_(student: Tensor, teacher: Tensor, scratch: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """M = beta S + (1 - beta) T; G = log(M / S) + beta S / M = log1p(d) - d / (1 + d) + constant."""
    value = _kl_to_mixture(student, teacher, beta, scratch)
    odds = _odds_(teacher, student, (1 - beta) / beta, scratch)
    share = torch.div(odds, torch.add(odds, 1, out=scratch), out=scratch)
    return value, _through_softmax_(student, odds.log1p_().sub_(share), scratch)[1]


def _kl_to_mixture(p: Tensor, q: Tensor, beta: float, scratch: Tensor) -> Tensor:
    """KL(P || beta P + (1 - beta) Q) of probabilities [N, V] -> [N]."""
    excess = torch.sub(q, p, out=scratch).sum(-1) * (1 - beta)
    mixture = torch.lerp(q, p, beta, out=scratch).clamp_min_(torch.finfo(p.dtype).tiny)
    ratio = torch.div(p, mixture, out=scratch)
    return torch.xlogy(p, ratio, out=scratch).sum(-1) + excess


def _odds_(teacher: Tensor, student: Tensor, weight: float, scratch: Tensor) -> Tensor:
    """weight * teacher / student, kept finite, written over teacher."""
    limits = torch.finfo(teacher.dtype)
    return teacher.div_(torch.clamp(student, min=limits.tiny, out=scratch)).mul_(weight).clamp_max_(limits.max)


def _through_softmax_(student: Tensor, g: Tensor, scratch: Tensor) -> tuple[Tensor, Tensor]:
    """(<S, G>, S (<S, G> - G)), the second written over g."""
    mean = torch.mul(student, g, out=scratch).sum(-1, keepdim=True)
    g.sub_(mean)
    # The mean's rounding. Where the student is nearly sure or nearly right, the gradient is no larger than that.
    rest = torch.mul(student, g, out=scratch).sum(-1, keepdim=True)
    return mean.squeeze(-1), torch.sub(rest, g, out=g).mul_(student)


# Kind -> (what makes the kernel's input from logits, the kernel).
IN_PLACE: dict[str, tuple[Callable[..., Tensor], Kernel]] = {
    "forward_kl": (torch.log_softmax, _forward_kl_),
    "reverse_kl": (torch.log_softmax, _reverse_kl_),
    "jsd": (torch.softmax, _jsd_),
    "skewed_forward_kl": (torch.softmax, _skewed_forward_kl_),
    "skewed_reverse_kl": (torch.softmax, _skewed_reverse_kl_),
}


def _kernel_of(kind: str) -> tuple[Callable[..., Tensor], Kernel]:
    """The entry of IN_PLACE; for a formula without a kernel, autograd through the formula."""
    return IN_PLACE[kind] if kind in IN_PLACE else (torch.log_softmax, partial(_by_autograd, FORMULAS[kind]))


def _by_autograd(
    formula: Formula, student_logp: Tensor, teacher_logp: Tensor, scratch: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """A formula as a kernel: more memory, and in float32 a less accurate gradient where S and T hardly overlap."""
    with torch.enable_grad():
        logits = student_logp.detach().requires_grad_()  # log-probabilities are logits of themselves
        values = formula(torch.log_softmax(logits, -1), teacher_logp, beta)
        (gradient,) = torch.autograd.grad(values.sum(), logits)
    return values.detach(), gradient

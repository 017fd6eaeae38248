"""The divergences of `formulas.py` with their gradient by the student's logits, in three [N, V] buffers.

Each takes S and T (the plain kinds log S and log T) and an uninitialised scratch buffer, overwrites all three, and
returns (values [N], gradient [N, V]). With G = -dD/dS, up to a constant, the gradient through the softmax is S (<S, G> - G).
Two precautions keep float32 accurate. KL(P || Q) is summed as P log(P / Q) - P + Q: the last two sum to 0, and with
them the rounding of the softmax normalisers cancels to first order, which flat distributions (high temperature) need.
And where S and T hardly overlap, log(S / M) is constant and the gradient the small rest: log1p(d), with d the odds of
T to S in the mixture, is that rest.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hkd_core.losses.formulas import FORMULAS, Formula

Kernel = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


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


# What each of them takes, probabilities or their logarithms, and the function.
IN_PLACE: dict[str, tuple[Callable[..., Tensor], Kernel]] = {
    "forward_kl": (torch.log_softmax, _forward_kl_),
    "reverse_kl": (torch.log_softmax, _reverse_kl_),
    "jsd": (torch.softmax, _jsd_),
    "skewed_forward_kl": (torch.softmax, _skewed_forward_kl_),
    "skewed_reverse_kl": (torch.softmax, _skewed_reverse_kl_),
}


def kernel_of(kind: str) -> tuple[Callable[..., Tensor], Kernel]:
    """(log_softmax or softmax, the kernel that takes what it gives); a formula without a kernel goes through autograd."""
    return IN_PLACE[kind] if kind in IN_PLACE else (torch.log_softmax, _by_autograd(FORMULAS[kind]))


def _by_autograd(formula: Formula) -> Kernel:
    """A formula as a kernel: the same value and gradient, in more memory."""

    def kernel(student_logp: Tensor, teacher_logp: Tensor, scratch: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            logits = student_logp.detach().requires_grad_()  # log-probabilities are logits of themselves
            values = formula(logits.softmax(-1), teacher_logp.exp(), beta)
            (gradient,) = torch.autograd.grad(values.sum(), logits)
        return values.detach(), gradient

    return kernel

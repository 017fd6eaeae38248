"""The formula of each divergence, in plain torch: read these first.

S and T are the student's and the teacher's probabilities, [..., V]. Each function returns the divergence of every position,
[...], and autograd gives its gradient. `kernels.py` computes the same in less memory, and the tests hold it against these
formulas in float64. A formula without a kernel works too, through autograd.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Formula = Callable[[Tensor, Tensor, float], Tensor]


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(P || Q) = sum over v of P(v) log(P(v) / Q(v)), where 0 log 0 = 0; infinite where Q rules out a token that P has."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def forward_kl(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """KL(T || S): the student covers every mode of the teacher (arXiv 1503.02531). beta is not used."""
    return kl(teacher, student)


def reverse_kl(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """KL(S || T): the student seeks a mode of the teacher (arXiv 2306.08543). beta is not used."""
    return kl(student, teacher)


def jsd(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """beta KL(T || M) + (1 - beta) KL(S || M) with M = beta T + (1 - beta) S (arXiv 2306.13649); 0 < beta < 1."""
    mixture = beta * teacher + (1 - beta) * student
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


def skewed_forward_kl(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """KL(T || beta T + (1 - beta) S): finite for every pair (arXiv 2402.03898); 0 < beta < 1."""
    return kl(teacher, beta * teacher + (1 - beta) * student)


def skewed_reverse_kl(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """KL(S || beta S + (1 - beta) T): finite for every pair (arXiv 2402.03898); 0 < beta < 1."""
    return kl(student, beta * student + (1 - beta) * teacher)


# A divergence is added by its name here.
FORMULAS: dict[str, Formula] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skewed_forward_kl": skewed_forward_kl,
    "skewed_reverse_kl": skewed_reverse_kl,
}

"""The formula of each divergence, in plain torch: read these first.

S and T are the student's and the teacher's distribution over V tokens. Each formula takes their log-probabilities, both [..., V],
and beta. It returns the divergence of every position in nats, [...], and autograd gives its gradient. A token that both sides rule
out (-inf) counts 0, as 0 log 0 does, and gets a gradient of 0.

`kernels.py` computes the same in less memory; the tests compare it with these formulas in float64. To add a divergence, write its
formula and enter it in FORMULAS. Without a kernel it runs through autograd.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Formula = Callable[[Tensor, Tensor, float], Tensor]


def kl(p_logp: Tensor, q_logp: Tensor) -> Tensor:
    """KL(P || Q) = sum over v of P(v) log(P(v) / Q(v)); inf where Q rules out a token that P can produce."""
    p = p_logp.exp()
    return (p * (p_logp - q_logp).masked_fill(p == 0, 0)).sum(-1)


def mixture(p_logp: Tensor, q_logp: Tensor, beta: float) -> Tensor:
    """log(beta P + (1 - beta) Q), [..., V]; finite also where both are 0, so that autograd stays finite."""
    return (beta * p_logp.exp() + (1 - beta) * q_logp.exp()).clamp_min(torch.finfo(p_logp.dtype).tiny).log()


def forward_kl(student_logp: Tensor, teacher_logp: Tensor, beta: float) -> Tensor:
    """KL(T || S): the student covers every mode of the teacher (arXiv 1503.02531). beta is not used."""
    return kl(teacher_logp, student_logp)


def reverse_kl(student_logp: Tensor, teacher_logp: Tensor, beta: float) -> Tensor:
    """KL(S || T): the student seeks a mode of the teacher (arXiv 2306.08543). beta is not used."""
    return kl(student_logp, teacher_logp)


def jsd(student_logp: Tensor, teacher_logp: Tensor, beta: float) -> Tensor:
    """beta KL(T || M) + (1 - beta) KL(S || M) with M = beta T + (1 - beta) S (arXiv 2306.13649); 0 < beta < 1."""
    mixed = mixture(teacher_logp, student_logp, beta)
    return beta * kl(teacher_logp, mixed) + (1 - beta) * kl(student_logp, mixed)


def skewed_forward_kl(student_logp: Tensor, teacher_logp: Tensor, beta: float) -> Tensor:
    """KL(T || beta T + (1 - beta) S): finite for every pair (arXiv 2402.03898); 0 < beta < 1."""
    return kl(teacher_logp, mixture(teacher_logp, student_logp, beta))


def skewed_reverse_kl(student_logp: Tensor, teacher_logp: Tensor, beta: float) -> Tensor:
    """KL(S || beta S + (1 - beta) T): finite for every pair (arXiv 2402.03898); 0 < beta < 1."""
    return kl(student_logp, mixture(student_logp, teacher_logp, beta))


FORMULAS: dict[str, Formula] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skewed_forward_kl": skewed_forward_kl,
    "skewed_reverse_kl": skewed_reverse_kl,
}


def plain_divergence(
    student_logits: Tensor, teacher_logits: Tensor, *, kind: str, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """The formula named `kind` of two sets of logits, both [..., V], times temperature² (arXiv 1503.02531) -> [...]."""
    student_logp, teacher_logp = (torch.log_softmax(logits / temperature, -1) for logits in (student_logits, teacher_logits))
    return temperature**2 * FORMULAS[kind](student_logp, teacher_logp, beta)

"""What the tests of the losses share: random inputs, the formulas in float64, and the relative error to them."""

import torch

from hkd_core.losses.formulas import plain_divergence


def make(*shape, scale=1.0, dtype=torch.float32, learns=False):
    return (torch.randn(*shape) * scale).to(dtype).requires_grad_(learns)


def reference(student_logits, teacher_logits, kind, beta=0.5, temperature=1.0):
    """The formula in float64, summed over positions; its gradient is torch's own."""
    return plain_divergence(student_logits.double(), teacher_logits.double(), kind=kind, beta=beta, temperature=temperature).sum()


def error(value, expected):
    """Relative, of whole tensors."""
    return float((value.detach().double() - expected.detach()).norm() / expected.detach().norm())

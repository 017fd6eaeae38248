"""Identify, isolate, purge: what a model says without looking, taken off what it says when it looks.

All pure functions of two logit tensors, [N, V]: `clean` with the picture, `distorted` with its distortion.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hkd_core.common.errors import UserError


def check(alpha: float, beta: float) -> None:
    """Raises UserError for alpha < 0 or beta outside [0, 1]."""
    if alpha < 0:
        raise UserError(f"alpha: expected 0 or more, got {alpha}")
    if not 0 <= beta <= 1:
        raise UserError(f"beta: expected a number from 0 to 1, got {beta}")


def plausible(clean: Tensor, beta: float) -> Tensor:
    """[N, V] bool: tokens at least `beta` times as probable as the most probable one; all of them for beta 0.

    Source: adaptive plausibility constraint, arXiv 2311.16922.
    """
    if beta == 0:
        return torch.ones_like(clean, dtype=torch.bool)
    return clean >= clean.amax(-1, keepdim=True) + math.log(beta)


def mixture(views: Sequence[Tensor]) -> Tensor:
    """[N, V]: one view's logits as they are, or the log of several views' mean probabilities."""
    if len(views) == 1:
        return views[0]
    return torch.logsumexp(torch.stack([view.log_softmax(-1) for view in views]), 0) - math.log(len(views))


def least(views: Sequence[Tensor]) -> Tensor:
    """[N, V]: each token's smallest log-probability over the views: what it gets however little it is there to be seen.

    Some of a picture's views happen to show what is asked about, others do not. "Yes" is least where the thing is absent, "No" least
    where it is there, so what is taken off is the lean of both answers, not what is true of the world. Our choice.
    """
    return torch.stack([view.log_softmax(-1) for view in views]).amin(0)


def isolate(views: Sequence[Tensor], kind: str) -> Tensor:
    """[N, V] the prior, from the logits under views of this kind: `least` for "least", else `mixture`."""
    return least(views) if kind == "least" else mixture(views)


def purify(clean: Tensor, distorted: Tensor, *, alpha: float, beta: float, shift: Tensor | None = None) -> Tensor:
    """Take the prior's share off the logits: (1 + alpha) clean - alpha distorted - shift; -inf outside the plausible set.

    shift: [V], constants fitted on validation (as the control, greedy plus constant shift, has one), or None.
    alpha 0 and beta 0 without shift give `clean` itself. Raises UserError as `check` does.
    Source: arXiv 2311.16922; as SEED's "isolate" and "purge" our reading.
    """
    check(alpha, beta)
    purged = clean if alpha == 0 else (1 + alpha) * clean - alpha * distorted
    if shift is not None:
        purged = purged - shift
    return purged if beta == 0 else torch.where(plausible(clean, beta), purged, -torch.inf)


def hallucination_score(clean: Tensor, distorted: Tensor, tokens: Tensor) -> Tensor:
    """[N] log p(token | distorted) - log p(token | clean): near or above 0 where the prior speaks, not the eye.

    tokens: [N] ids. Our reading of SEED's "identify".
    """
    chosen = tokens[:, None]
    seen, unseen = clean.log_softmax(-1).gather(1, chosen), distorted.log_softmax(-1).gather(1, chosen)
    return (unseen - seen).squeeze(1)

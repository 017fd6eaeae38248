"""Identify, isolate, purge: subtract what a model says without looking from what it says when it looks.

All are pure functions of logits [N, V]: `clean` with the picture, `distorted` with a view of it in which nothing can be seen.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hkd_core.common.errors import UserError


def check(alpha: float, cutoff: float) -> None:
    """Raises UserError for alpha < 0 or cutoff outside [0, 1]."""
    if alpha < 0:
        raise UserError(f"alpha: expected 0 or more, got {alpha}")
    if not 0 <= cutoff <= 1:
        raise UserError(f"cutoff: expected a number from 0 to 1, got {cutoff}")


def plausible(clean: Tensor, cutoff: float) -> Tensor:
    """[N, V] bool: tokens at least `cutoff` times as probable as the most probable one; all tokens for cutoff 0.

    Source: the adaptive plausibility constraint of VCD (arXiv 2311.16922), which calls the cutoff beta.
    """
    if cutoff == 0:
        return torch.ones_like(clean, dtype=torch.bool)
    return clean >= clean.amax(-1, keepdim=True) + math.log(cutoff)


def mixture(views: Sequence[Tensor]) -> Tensor:
    """[N, V]: one view's logits as they are, or the log of several views' mean probabilities."""
    if len(views) == 1:
        return views[0]
    return torch.logsumexp(torch.stack([view.log_softmax(-1) for view in views]), 0) - math.log(len(views))


def least(views: Sequence[Tensor]) -> Tensor:
    """[N, V]: each token's smallest log-probability over the views.

    Some views happen to show what is asked about, others do not. "Yes" is smallest where the thing is absent, "No" where it is
    there. So the result holds the lean of both answers, not what is true of the world. Our choice.
    """
    return torch.stack([view.log_softmax(-1) for view in views]).amin(0)


def isolate(views: Sequence[Tensor], view: str) -> Tensor:
    """[N, V] the prior from the logits under several views: `least` for the view "least", else `mixture`."""
    return least(views) if view == "least" else mixture(views)


def purify(clean: Tensor, distorted: Tensor, *, alpha: float, cutoff: float, shift: Tensor | None = None) -> Tensor:
    """[N, V]: (1 + alpha) clean - alpha distorted - shift inside the plausible set, -inf outside.

    shift: [V], constants fitted on validation (the control, greedy plus a constant shift, has one too), or None.
    alpha 0 and cutoff 0 without a shift give `clean` itself. Raises UserError as `check` does.
    Source: VCD (arXiv 2311.16922); that this is SEED's "isolate" and "purge" is our reading.
    """
    check(alpha, cutoff)
    purged = clean if alpha == 0 else (1 + alpha) * clean - alpha * distorted
    if shift is not None:
        purged = purged - shift
    return purged if cutoff == 0 else torch.where(plausible(clean, cutoff), purged, -torch.inf)


def hallucination_score(clean: Tensor, distorted: Tensor, tokens: Tensor) -> Tensor:
    """[N] log p(token | distorted) - log p(token | clean): near or above 0 where the prior speaks and not the picture.

    tokens: [N] ids. Our reading of SEED's "identify".
    """
    chosen = tokens[:, None]
    seen, unseen = clean.log_softmax(-1).gather(1, chosen), distorted.log_softmax(-1).gather(1, chosen)
    return (unseen - seen).squeeze(1)

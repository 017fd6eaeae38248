"""How much any prior taken off could gain: shifts fitted to the labels of the other half of the pictures.

A constant per name is all that a prior can be that knows the question and not the picture. No method may use these labels: they
tell how much there is to gain, not how to get it. Our choice.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from hkd_core.evaluation.statistics import best_shift


def halves(image_ids: Sequence[str]) -> np.ndarray:
    """[N] bool: whether an answer's picture is in the first half, every second picture in the order of their names."""
    return np.isin(image_ids, np.unique(image_ids)[::2])


def less_constant(margins: np.ndarray, labels: np.ndarray, half: np.ndarray) -> np.ndarray:
    """[N] margins of yes less the constant that has the best F1 in the other half. labels: [N], 1 for yes; half: [N] bool."""
    found = np.empty(len(margins))
    for here in (half, ~half):
        found[here] = margins[here] - best_shift(margins[~here], labels[~here])
    return found


def less_groups(
    margins: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable], half: np.ndarray, *, weight: float = 10
) -> np.ndarray:
    """[N] margins of yes less a constant of each group's own: the middle of its mean margins of yes and of no in the other half.

    Both means are drawn towards those of the whole other half as if by `weight` more answers, so that a group that is rare there
    gets nearly the same constant as all, and one that is not there exactly that.
    """
    found = np.empty(len(margins))
    for here in (half, ~half):
        seen, overall = defaultdict(list), {}
        for k in np.flatnonzero(~here):
            seen[groups[k], labels[k]].append(margins[k])
        for label in (0, 1):
            overall[label] = margins[~here & (labels == label)].mean()
        for k in np.flatnonzero(here):
            means = [(sum(of := seen[groups[k], label]) + weight * overall[label]) / (len(of) + weight) for label in (0, 1)]
            found[k] = margins[k] - sum(means) / 2
    return found

"""How much could any prior gain that is subtracted? Shifts fitted to the labels of the other half of the images.

A constant for each name is all that a prior can be that knows the question and not the image. No method may use these labels: they
tell how much there is to gain, not how to get it. Our choice.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from hkd_core.common.margins import best_shift


def halves(image_ids: Sequence[str]) -> np.ndarray:
    """[N] bool: whether an answer's image is in the first half, every second image in the order of their names."""
    return np.isin(image_ids, np.unique(image_ids)[::2])


def minus_constant(margins: np.ndarray, labels: np.ndarray, half: np.ndarray) -> np.ndarray:
    """[N] yes-no margins minus the constant with the best F1 in the other half. labels: [N], 1 for yes; half: [N] bool."""
    found = np.empty(len(margins))
    for here in (half, ~half):
        found[here] = margins[here] - best_shift(margins[~here], labels[~here])
    return found


def minus_group_constants(
    margins: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable], half: np.ndarray, *, weight: float = 10
) -> np.ndarray:
    """[N] yes-no margins minus a constant for each group: the middle of its mean margins of yes and of no in the other half.

    Both means are drawn towards those of the whole other half as if by `weight` more answers. So a rare group gets nearly the
    constant of all, and a group that is not there exactly that.
    """
    found = np.empty(len(margins))
    for here in (half, ~half):
        seen, overall = defaultdict(list), {}
        for k in np.flatnonzero(~here).tolist():
            seen[groups[k], labels[k]].append(margins[k])
        for label in (0, 1):
            overall[label] = margins[~here & (labels == label)].mean()
        for k in np.flatnonzero(here).tolist():
            means = [(sum(of := seen[groups[k], label]) + weight * overall[label]) / (len(of) + weight) for label in (0, 1)]
            found[k] = margins[k] - sum(means) / 2
    return found


def oracle_answers(answers: Sequence[dict], groups: Mapping[str, Sequence[Hashable] | None]) -> list[dict]:
    """Yes/no answers as oracles give them, in the order of benchmark, decoding, question.

    groups: name of a decoding -> the group of each answer, or None for one constant. Constants of groups are fitted over all benchmarks,
    then one more constant for each benchmark alone, so that oracles differ in nothing but the groups.
    """
    margins = np.array([a["margin"] for a in answers])
    labels, half = np.array([a["label"] == a["choices"][0] for a in answers], int), halves([a["image_id"] for a in answers])
    shifted = {
        name: margins if several is None else minus_group_constants(margins, labels, several, half)
        for name, several in groups.items()
    }
    found = []
    for benchmark in dict.fromkeys(a["benchmark"] for a in answers):
        rows = np.flatnonzero([a["benchmark"] == benchmark for a in answers])
        for decoding, values in shifted.items():
            left = minus_constant(values[rows], labels[rows], half[rows])
            for k, margin in zip(rows.tolist(), left.tolist(), strict=True):
                answer = answers[k]["choices"][int(margin <= 0)]
                found.append(answers[k] | {"decoding": decoding, "answer": answer, "margin": round(margin, 4)})
    return found

"""Yes-no margins, log p(yes) - log p(no): how well they rank answers, and the constant that suits them best.

Labels are 1 for yes and 0 for no.
"""

from collections.abc import Hashable, Sequence

import numpy as np

Values = Sequence[float] | np.ndarray


def auroc(margins: Values, labels: Values) -> float:
    """Probability that a random yes question has the larger margin than a random no question (scikit-learn's)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, margins))


def auroc_interval(
    margins: Values, labels: Values, clusters: Sequence[Hashable], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """(`auroc`, low, high): 95 %, percentile, whole clusters (pictures) drawn with replacement. Ties count half."""
    drawn = _drawn_aurocs([margins], labels, clusters, draws, seed)[0]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return auroc(margins, labels), float(low), float(high)


def auroc_difference(
    a: Sequence[float], b: Sequence[float], labels: Sequence[int], clusters: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """(AUROC of a - AUROC of b, low, high): 95 %, percentile, the same clusters (pictures) drawn for both."""
    drawn = _drawn_aurocs([a, b], labels, clusters, draws, seed)
    low, high = np.nanpercentile(drawn[0] - drawn[1], [2.5, 97.5])
    return auroc(a, labels) - auroc(b, labels), float(low), float(high)


def _drawn_aurocs(
    sides: Sequence[Sequence[float]], labels: Sequence[int], clusters: Sequence[str], draws: int, seed: int
) -> np.ndarray:
    """[sides, draws]: AUROC of each side's margins over clusters drawn with replacement, the same ones for all. Ties count half."""
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    count = place.max() + 1
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    found = np.empty((len(sides), draws))
    some = max(2_000_000 // len(place), 1)  # draws at once, so that memory stays small
    for side, margins in enumerate(sides):
        order = np.argsort(np.asarray(margins), kind="stable")
        values, yes = np.asarray(margins)[order], np.asarray(labels)[order] == 1
        left, right = np.searchsorted(values, values), np.searchsorted(values, values, "right")
        for start in range(0, draws, some):
            weight = times[start : start + some][:, place[order]].astype(float)
            # Of each answer: how much "no" lies below its margin, and how much at it.
            no_so_far = np.concatenate([np.zeros((len(weight), 1)), np.cumsum(weight * ~yes, 1)], 1)
            below, up_to = no_so_far[:, left], no_so_far[:, right]
            with np.errstate(invalid="ignore"):
                ratio = (weight * yes * (below + up_to) / 2).sum(1) / ((weight * yes).sum(1) * no_so_far[:, -1])
            found[side, start : start + some] = ratio
    return found


def best_shift(margins: np.ndarray, labels: np.ndarray) -> float:
    """The constant c for which "yes if margin > c" has the best F1 on held-out data; the middle of the best gap.

    margins, labels: [N]. Of equally good constants the one nearest to 0. Source: the control of arXiv 2504.10020.
    """
    order = np.sort(np.unique(margins))
    candidates = np.concatenate([[order[0] - 1], (order[1:] + order[:-1]) / 2, [order[-1] + 1], [0.0]])
    answered_yes = margins[None, :] > candidates[:, None]
    hits = (answered_yes & (labels[None, :] == 1)).sum(1)
    scores = 2 * hits / np.maximum(answered_yes.sum(1) + labels.sum(), 1)
    best = candidates[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best).argmin()])


def f1_of_yes(yes: np.ndarray, labels: np.ndarray) -> float:
    """F1 of the answers `yes` [N] bool; 0 where nothing is answered yes."""
    return float(2 * (yes & (labels == 1)).sum() / max(yes.sum() + labels.sum(), 1))

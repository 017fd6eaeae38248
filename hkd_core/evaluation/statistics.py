"""Intervals by the bootstrap clustered on pictures, and the constant shift that every method has to beat."""

from collections.abc import Callable, Sequence

import numpy as np

Metric = Callable[[np.ndarray], np.ndarray]  # sums [..., K] -> values [...]


def cluster_interval(
    counts: np.ndarray, clusters: Sequence[str], metric: Metric, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """(value, low, high) of a metric that is a function of summed counts; 95 %, percentile, whole pictures drawn.

    counts: [N, K], one row an answer; clusters: [N], the picture of each. Answers about one picture are not independent, so
    pictures are what is resampled.
    """
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((place.max() + 1, counts.shape[1]))
    np.add.at(sums, place, counts)
    rng = np.random.default_rng(seed)
    # How often each picture is drawn, instead of drawing pictures: one matrix product gives all draws.
    times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws).astype(float)
    values = metric(times @ sums)
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(metric(sums.sum(0))), float(low), float(high)


def confusion_counts(labels: Sequence[int], answers: Sequence[int], classes: int) -> np.ndarray:
    """[N, classes * classes] one-hot rows of (label, answer); what accuracy and F1 are computed from."""
    counts = np.zeros((len(labels), classes * classes))
    counts[np.arange(len(labels)), np.asarray(labels) * classes + np.asarray(answers)] = 1
    return counts


def accuracy(sums: np.ndarray) -> np.ndarray:
    """From summed confusion counts [..., C * C]."""
    table = _table(sums)
    return np.trace(table, axis1=-2, axis2=-1) / np.maximum(table.sum((-2, -1)), 1)


def f1(sums: np.ndarray) -> np.ndarray:
    """F1 of class 1 ("yes") of two, from [..., 4]."""
    table = _table(sums)
    hits = table[..., 1, 1]
    return 2 * hits / np.maximum(table[..., 1, :].sum(-1) + table[..., :, 1].sum(-1), 1)


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """The mean over classes of each class's F1."""
    table = _table(sums)
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    return (2 * hits / np.maximum(table.sum(-1) + table.sum(-2), 1)).mean(-1)


def yes_ratio(sums: np.ndarray) -> np.ndarray:
    """Share of answers that are class 1."""
    table = _table(sums)
    return table[..., :, 1].sum(-1) / np.maximum(table.sum((-2, -1)), 1)


def _table(sums: np.ndarray) -> np.ndarray:
    classes = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], classes, classes)


def auroc(margins: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a random positive has the larger margin (scikit-learn's)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, margins))


def best_shift(margins: np.ndarray, labels: np.ndarray) -> float:
    """The constant c for which "yes if margin > c" has the best F1 on held-out data; the middle of the best gap.

    Ties go to the shift nearest to none. Source: the control of arXiv 2504.10020.
    """
    order = np.sort(np.unique(margins))
    candidates = np.concatenate([[order[0] - 1], (order[1:] + order[:-1]) / 2, [order[-1] + 1], [0.0]])
    said = margins[None, :] > candidates[:, None]
    hits = (said & (labels[None, :] == 1)).sum(1)
    scores = 2 * hits / np.maximum(said.sum(1) + labels.sum(), 1)
    best = candidates[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best).argmin()])


def paired_interval(
    a: np.ndarray, b: np.ndarray, clusters: Sequence[str], metric: Metric, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """(difference a - b, low, high) of a metric on the same answers' counts [N, K], the same pictures drawn for both."""
    width = a.shape[1]
    both = np.concatenate([a, b], 1)
    return cluster_interval(
        both, clusters, lambda sums: metric(sums[..., :width]) - metric(sums[..., width:]), draws=draws, seed=seed
    )


def mcnemar(right_a: Sequence[bool], right_b: Sequence[bool]) -> dict:
    """Exact McNemar: `fixed` (a right where b was wrong), `broken` (the reverse), two-sided `p`."""
    from scipy.stats import binomtest

    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    fixed, broken = int((a & ~b).sum()), int((~a & b).sum())
    p = float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
    return {"fixed": fixed, "broken": broken, "p": p}

"""Scores from summed counts, intervals by a bootstrap over images, and tests for two systems."""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

Bools = Sequence[bool] | np.ndarray
Metric = Callable[[np.ndarray], np.ndarray]  # sums [..., K] -> values [...]


def cluster_interval(
    counts: np.ndarray, clusters: Sequence[str], metric: Metric, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """(value, low, high) of a metric that is a function of summed counts: the 95 % percentile interval.

    counts: [N, K], one row an answer; clusters: [N], the image of each. Answers about one image are not independent, so the bootstrap
    draws whole images.
    """
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.stack([np.bincount(place, column) for column in counts.T], 1)
    values = metric(drawn_sums(sums, draws, np.random.default_rng(seed)))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(metric(sums.sum(0))), float(low), float(high)


def drawn_sums(sums: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """[draws, K]: sums over C clusters drawn with replacement. sums: [C, K], one row a cluster."""
    clusters, found = len(sums), []
    some = max(2_000_000 // clusters, 1)  # draws at once, so that memory stays small
    for start in range(0, draws, some):
        n = min(some, draws - start)
        # How often each cluster is drawn: draw i counts into its own stretch of bins, and one matrix product does the rest.
        picked = rng.integers(0, clusters, (n, clusters)) + clusters * np.arange(n)[:, None]
        times = np.bincount(picked.ravel(), minlength=n * clusters).reshape(n, clusters)
        found.append(times.astype(float) @ sums)
    return np.concatenate(found)


def confusion_counts(labels: Sequence[int], answers: Sequence[int], classes: int) -> np.ndarray:
    """[N, classes * classes] one-hot rows of (label, answer). Accuracy and F1 are functions of their sum."""
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


def paired_interval(
    a: np.ndarray, b: np.ndarray, clusters: Sequence[str], metric: Metric, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """(difference a - b, low, high) of a metric. a, b: counts [N, K] of two systems on the same questions; both get the same draws."""
    width = a.shape[1]
    both = np.concatenate([a, b], 1)
    return cluster_interval(
        both, clusters, lambda sums: metric(sums[..., :width]) - metric(sums[..., width:]), draws=draws, seed=seed
    )


def mcnemar(right_a: Bools, right_b: Bools) -> dict:
    """Exact McNemar: `fixed` (a right where b was wrong), `broken` (the reverse), two-sided `p`."""
    from scipy.stats import binomtest

    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    fixed, broken = int((a & ~b).sum()), int((~a & b).sum())
    p = float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
    return {"fixed": fixed, "broken": broken, "p": p}


def sign_test(right_a: Bools, right_b: Bools, clusters: Sequence[str]) -> dict:
    """McNemar's test for answers in clusters (images). A cluster counts once, for the side with more right answers in it.

    `better`, `worse`: clusters in which a or b is ahead, with the two-sided exact `p`; `fixed`, `broken`: the same in answers. With one
    answer in each cluster it equals `mcnemar`.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    ahead = np.bincount(place, a.astype(int) - b.astype(int))
    better, worse = int((ahead > 0).sum()), int((ahead < 0).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return {"fixed": int((a & ~b).sum()), "broken": int((~a & b).sum()), "better": better, "worse": worse, "p": p}


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the given order. They control the family-wise error under any dependence (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def smallest_detectable(low: float, high: float, *, power: float = 0.8) -> float:
    """The true difference that a two-sided test at 5 % finds with probability `power`. low, high: a 95 % interval.

    A "no difference" says nothing about smaller effects. Normal approximation: (z(0.975) + z(power)) times the standard error, which is
    the interval's width divided by 2 z(0.975).
    """
    z = NormalDist().inv_cdf
    return (z(0.975) + z(power)) * (high - low) / (2 * z(0.975))

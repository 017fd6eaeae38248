"""What yes-no margins show beyond right and wrong: ranking, calibration, and sensitivity apart from bias.

A margin is log p(yes) - log p(no), so sigmoid(margin) is the probability of yes among the two. Labels are 1 for yes, 0 for no.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from hkd_core.common.margins import auroc as auroc
from hkd_core.common.margins import auroc_difference as auroc_difference
from hkd_core.common.margins import auroc_interval as auroc_interval


def yes_probability(margins: Sequence[float]) -> np.ndarray:
    """[N] probability of yes, without overflow for any margin."""
    return np.exp(-np.logaddexp(0, -np.asarray(margins, float)))


def best_constant(margins: Sequence[float], labels: Sequence[int], metric: str = "accuracy") -> float:
    """The constant c for which "yes if margin > c" is best, smoothed so that other answers are served by it too.

    metric: "accuracy" or "f1". Every answer counts as yes by sigmoid((margin - c) / width), with a width of half a standard deviation
    times N^(-1/5); candidates are 200 quantiles of the margins, and 0. The constant that is best without smoothing fits the noise: on
    other answers it loses up to 0.4 points of accuracy, so that a method that is only a shift looks like more. Our choice.
    """
    at, yes = np.asarray(margins, float), np.asarray(labels) == 1
    width = max(0.5 * at.std() * len(at) ** -0.2, 1e-9)
    candidates = np.append(np.quantile(at, np.linspace(0.0, 1.0, 200)), 0.0)
    p_yes = 1 / (1 + np.exp(-np.clip((at - candidates[:, None]) / width, -500, 500)))  # [201, N]
    hits, alarms = p_yes[:, yes].sum(1), p_yes[:, ~yes].sum(1)
    scores = hits - alarms if metric == "accuracy" else 2 * hits / np.maximum(hits + alarms + yes.sum(), 1)
    return float(candidates[scores.argmax()])


def average_precision(margins: Sequence[float], labels: Sequence[int]) -> float:
    """Area under precision over recall, as a step function (scikit-learn's)."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, margins))


def brier(margins: Sequence[float], labels: Sequence[int]) -> float:
    """Mean squared distance of the probability of yes from the label; 0.25 for always one half."""
    return float(np.mean((yes_probability(margins) - np.asarray(labels)) ** 2))


def reliability(margins: Sequence[float], labels: Sequence[int], *, bins: int = 15) -> list[dict]:
    """Bins of equal width over the probability of yes, without empty ones: low, high, n, mean probability, share of yes labels."""
    p, y = yes_probability(margins), np.asarray(labels, float)
    place = np.minimum((p * bins).astype(int), bins - 1)
    return [
        {
            "low": int(i) / bins,
            "high": (int(i) + 1) / bins,
            "n": int((place == i).sum()),
            "probability": float(p[place == i].mean()),
            "frequency": float(y[place == i].mean()),
        }
        for i in np.unique(place)
    ]


def calibration_error(margins: Sequence[float], labels: Sequence[int], *, bins: int = 15) -> float:
    """Expected calibration error: mean over answers of |mean probability - share of yes| in their bin (see `reliability`)."""
    rows = reliability(margins, labels, bins=bins)
    return sum(row["n"] * abs(row["probability"] - row["frequency"]) for row in rows) / len(labels)


def sensitivity(tp: int, fp: int, tn: int, fn: int) -> tuple[float, float]:
    """(d', criterion) of signal detection: how well yes is told from no, and the bias towards no (below 0: towards yes).

    d' = z(hits) - z(false alarms); criterion = -(z(hits) + z(false alarms)) / 2. Half an answer is added to each count, so that rates of
    0 and 1 stay finite. Source: Hautus 1995 (the log-linear rule).
    """
    hit, alarm = (tp + 0.5) / (tp + fn + 1), (fp + 0.5) / (fp + tn + 1)
    z = NormalDist().inv_cdf
    return z(hit) - z(alarm), -(z(hit) + z(alarm)) / 2

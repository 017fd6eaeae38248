"""What yes-no margins show beyond right and wrong: ranking, calibration, the constant that suits them best, sensitivity apart from bias.

A margin is log p(yes) - log p(no), so sigmoid(margin) is the probability of yes among the two. Labels are 1 for yes and 0 for no.
"""

from collections.abc import Hashable, Sequence
from statistics import NormalDist

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


def yes_probability(margins: Sequence[float]) -> np.ndarray:
    """[N] probability of yes, without overflow for any margin."""
    return np.exp(-np.logaddexp(0, -np.asarray(margins, float)))


def best_constant(margins: Sequence[float], labels: Sequence[int], metric: str = "accuracy") -> float:
    """The constant c for which "yes if margin > c" is best, smoothed so that other answers are served by it too.

    metric: "accuracy" or "f1". Every answer counts as yes by sigmoid((margin - c) / width). The width is half a standard deviation
    times N^(-1/5). Candidates are 200 quantiles of the margins, and 0. The constant that is best without smoothing fits the noise. On
    other answers it loses up to 0.4 points of accuracy, so a method that is only a shift would look like more. Our choice.
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

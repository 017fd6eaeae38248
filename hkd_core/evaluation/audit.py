"""Is a method for yes-no questions more than a shift? Signal detection, and with margins the best constant as a rival.

Saying No more often raises accuracy wherever a model leans to Yes, without telling yes from no any better. The audit separates the two.
d' is how well yes is told from no, and the criterion c is the lean (above 0: to No). Source: Green and Swets 1966; Hautus 1995 for counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from hkd_core.common.margins import auroc, auroc_difference, best_constant
from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.oracle import halves, minus_group_constants

FOLDS = 10
UNREAD = -1  # an answer that is neither yes nor no
Interval = dict[str, float]  # value, low, high


@dataclass(frozen=True)
class Answers:
    """Two answerers on the same N questions. labels: 1 yes, 0 no. base, method: 1, 0 or UNREAD.

    images: the picture of each question. names: what each question is about. margins: log p(yes) - log p(no) of each side, or None.
    """

    labels: np.ndarray
    base: np.ndarray
    method: np.ndarray
    images: np.ndarray
    names: np.ndarray
    base_margins: np.ndarray | None = None
    method_margins: np.ndarray | None = None

    def only(self, chosen: np.ndarray) -> "Answers":
        """The questions for which `chosen` [N] is true."""
        return replace(self, **{name: value[chosen] for name, value in vars(self).items() if value is not None})


def rates(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hit rate, false-alarm rate) from summed counts [..., 4] of (no/no, no/yes, yes/no, yes/yes), label first; half an answer added.

    The half keeps a rate of 0 or 1 finite in d' (Hautus 1995).
    """
    true_no, alarms, missed, hits = np.moveaxis(sums[..., :4], -1, 0)
    return (hits + 0.5) / (hits + missed + 1), (alarms + 0.5) / (alarms + true_no + 1)


def d_prime(sums: np.ndarray) -> np.ndarray:
    """z(hit rate) - z(false-alarm rate); `margins.sensitivity` for many sums [..., 4] at once."""
    hit, alarm = rates(sums)
    return ndtri(hit) - ndtri(alarm)


def criterion(sums: np.ndarray) -> np.ndarray:
    """-(z(hit rate) + z(false-alarm rate)) / 2: 0 is no lean, above 0 leans to No."""
    hit, alarm = rates(sums)
    return -(ndtri(hit) + ndtri(alarm)) / 2


def hit_rate(sums: np.ndarray) -> np.ndarray:
    return sums[..., 3] / np.maximum(sums[..., 2] + sums[..., 3], 1)


def false_alarm_rate(sums: np.ndarray) -> np.ndarray:
    return sums[..., 1] / np.maximum(sums[..., 0] + sums[..., 1], 1)


def accuracy(sums: np.ndarray) -> np.ndarray:
    """Right answers among all, from columns 4 and 5; an unread answer is wrong."""
    return sums[..., 4] / np.maximum(sums[..., 5], 1)


METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": accuracy,
    "hit_rate": hit_rate,
    "false_alarm_rate": false_alarm_rate,
    "d_prime": d_prime,
    "criterion": criterion,
}


def counts(labels: np.ndarray, codes: np.ndarray, read: np.ndarray) -> np.ndarray:
    """[N, 6]: one-hot (label, answer) where `read`, then right and 1 everywhere."""
    found = np.zeros((len(labels), 6))
    rows = np.flatnonzero(read)
    found[rows, labels[rows] * 2 + codes[rows]] = 1
    found[:, 4] = codes == labels
    found[:, 5] = 1
    return found


def compare(answers: Answers, *, draws: int = 2000, seed: int = 0) -> dict:
    """Both sides' rates, d' and c, and the differences method - base with 95 % intervals clustered by picture.

    An unread answer is wrong. d', c and the rates are over the questions that both sides answered ("read_by_both"). A rate without
    such questions is None, and d' and c with it; "undefined" then says why.
    """
    read = (answers.base != UNREAD) & (answers.method != UNREAD)
    sides = {side: counts(answers.labels, getattr(answers, side), read) for side in ("base", "method")}
    found: dict = {"n": len(answers.labels), "pictures": len(np.unique(answers.images)), "read_by_both": int(read.sum())}
    for side, rows in sides.items():
        values = {name: float(metric(rows.sum(0))) for name, metric in METRICS.items()}
        found[side] = values | {"unread": int((getattr(answers, side) == UNREAD).sum())}
    found["difference"] = {
        name: spread(stats.paired_interval(sides["method"], sides["base"], answers.images, metric, draws=draws, seed=seed))
        for name, metric in METRICS.items()
    }
    if reason := undefined(answers.labels, read):
        there = set(answers.labels[read].tolist())
        rates_lost = {name: None for name, label in (("hit_rate", 1), ("false_alarm_rate", 0)) if label not in there}
        for part in ("base", "method", "difference"):
            found[part] |= rates_lost | {"d_prime": None, "criterion": None}
        found["undefined"] = reason
    if answers.base_margins is not None:
        found["margins"] = compare_margins(answers, draws=draws, seed=seed)
    return found | {"conclusion": conclusion(found)}


def undefined(labels: np.ndarray, read: np.ndarray) -> str | None:
    """Why there is no d': the questions that both sides answered have not both labels. None where they have."""
    if len(set(labels[read].tolist())) == 2:
        return None
    if not read.any():
        return "no question has an answer from both sides that says yes or no, so d' and c are undefined"
    if len(set(labels.tolist())) < 2:
        return "the questions have one label only, so d' and c are undefined"
    return "the questions that both sides answered with yes or no have one label only, so d' and c are undefined"


def spread(interval: tuple[float, float, float]) -> Interval:
    return dict(zip(("value", "low", "high"), interval, strict=True))


def folds(images: np.ndarray) -> np.ndarray:
    """[N]: a fold of 0 to 9 for each question; every tenth picture, in the order of their names, is in the same."""
    return np.unique(images, return_inverse=True)[1] % FOLDS


def shifted(margins: np.ndarray, labels: np.ndarray, images: np.ndarray, metric: str) -> np.ndarray:
    """[N] of 0 and 1: yes where a margin exceeds the best constant of the other folds' pictures, for "accuracy" or "f1"."""
    found, fold = np.empty(len(margins), int), folds(images)
    for k in np.unique(fold):
        here = fold == k
        found[here] = margins[here] > best_constant(margins[~here], labels[~here], metric)
    return found


def compare_margins(answers: Answers, *, draws: int = 2000, seed: int = 0) -> dict | None:
    """The method against two rivals that need only the margins of the base, and the difference in AUROC. None with too few pictures.

    shifted_base: the base minus the best constant, fitted on the other nine tenths of the pictures for the metric it is scored by.
    oracle_per_name: the base minus a constant for each name, fitted on the other half (`oracle.minus_group_constants`): what a prior could gain at most.
    """
    labels, images, base, method = answers.labels, answers.images, answers.base_margins, answers.method_margins
    half = halves(images)
    if base is None or method is None or any(len(set(labels[here].tolist())) < 2 for here in (half, ~half)):
        return None
    per_name = (minus_group_constants(base, labels, list(answers.names), half) > 0).astype(int)
    found: dict = {"shifted_base": {}, "oracle_per_name": {}, "method_minus_shifted_base": {}, "method_minus_oracle": {}}
    read_codes = answered(labels, answers.method)
    for metric, score in (("accuracy", accuracy), ("f1", f1)):
        rivals = {"shifted_base": shifted(base, labels, images, metric), "oracle_per_name": per_name}
        for rival, difference in (("shifted_base", "method_minus_shifted_base"), ("oracle_per_name", "method_minus_oracle")):
            rows = answered(labels, rivals[rival])
            found[rival][metric] = float(score(rows.sum(0)))
            found[difference][metric] = spread(stats.paired_interval(read_codes, rows, images, score, draws=draws, seed=seed))
    aurocs = {"base": auroc(base, labels), "method": auroc(method, labels)}
    gain = auroc_difference(method, base, labels, images, draws=min(draws, 1000), seed=seed)
    return found | {"auroc": aurocs | {"difference": spread(gain)}}


def answered(labels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`counts` in which an unread answer is the wrong one, so that it is missed or wrong but never left out."""
    return counts(labels, np.where(codes == UNREAD, 1 - labels, codes), np.ones(len(labels), bool))


def f1(sums: np.ndarray) -> np.ndarray:
    """F1 of yes."""
    return stats.f1(sums[..., :4])


def conclusion(found: dict) -> str:
    """One sentence: the three differences, and what follows from their intervals."""
    change = found["difference"]
    gain = change["accuracy"]
    start = f"accuracy {points(gain)}"
    if change["d_prime"] is None:
        return f"{start}: {found['undefined']}"
    d, c = change["d_prime"], change["criterion"]
    start += f"; d' {shown(d)}; c {shown(c)}"
    lean = f"the criterion moved towards {'No' if c['value'] > 0 else 'Yes'}" if sure(c) else "the criterion did not move"
    if sure(d):
        telling = f"the method tells yes from no {'better' if d['value'] > 0 else 'worse'}"
        follows = f"{telling}, and {lean}"
    elif sure(c) and sure(gain):
        follows = (
            f"the {'gain' if gain['value'] > 0 else 'loss'} is a shift of the criterion towards {'No' if c['value'] > 0 else 'Yes'}"
        )
    elif sure(c):
        follows = f"{lean}, and neither accuracy nor d' changed beyond chance"
    elif sure(gain):
        follows = "neither d' nor c alone moved beyond chance, so the change cannot be assigned"
    else:
        follows = "no change beyond chance"
    return f"{start}: {follows}{of_shift(found.get('margins'))}"


def of_shift(margins: dict | None) -> str:
    if not margins:
        return ""
    rest = margins["method_minus_shifted_base"]["accuracy"]
    verdict = ("more" if rest["value"] > 0 else "less") + " than a shift gives" if sure(rest) else "no more than a shift gives"
    return f"; against the best constant shift of the base the method has accuracy {points(rest)}, which is {verdict}"


def sure(interval: Interval) -> bool:
    """Whether the interval leaves out 0."""
    return interval["low"] > 0 or interval["high"] < 0


def shown(interval: Interval) -> str:
    return f"{interval['value']:+.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def points(interval: Interval) -> str:
    """A difference of accuracies, in points of 100."""
    return f"{100 * interval['value']:+.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def audit(answers: Answers, splits: Sequence[tuple[str, ...]], *, draws: int = 2000, seed: int = 0) -> dict:
    """`compare` of all questions together, each once, and under "splits" of each split where there are several.

    splits: [N] the splits that each question belongs to.
    """
    found = compare(answers, draws=draws, seed=seed)
    names = split_names(splits)
    if len(names) > 1:
        found["splits"] = {name: compare(answers.only(within(name, splits)), draws=draws, seed=seed) for name in names}
    return found


def split_names(splits: Sequence[tuple[str, ...]]) -> list[str]:
    """Every split once, in the order of the questions."""
    return list(dict.fromkeys(name for listed in splits for name in listed))


def within(name: str, splits: Sequence[tuple[str, ...]]) -> np.ndarray:
    """[N]: whether each question belongs to the split."""
    return np.array([name in listed for listed in splits])

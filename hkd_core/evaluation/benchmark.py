"""What a benchmark is: its rows, how they are asked, how answers are scored, its headline number, and answerers that never look.

One benchmark is one object in one file of `benchmarks/`; `registry.BENCHMARKS` lists them. Most need one line here: `yes_no` or `choices`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hkd_core.common import margins
from hkd_core.evaluation import statistics as stats

Interval = tuple[float, float, float]  # value, low, high
Answers = Sequence[dict]  # see `suite.record`
ON_VALIDATION: Mapping[str, stats.Metric] = {"accuracy": stats.accuracy, "macro_f1": stats.macro_f1}


def right(counts: np.ndarray, metric: str) -> np.ndarray:
    """[N], 1 for a right answer, from confusion counts [N, C * C]."""
    return stats.accuracy(counts)


def nothing_more(answers: Answers, counts: np.ndarray, draws: int, seed: int) -> dict[str, Interval]:
    return {}


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    name: in tables; task: of its examples and answers. form: how it is asked, a key of `suite.FORMS`.
    counts: (answers, names of objects) -> [N, K], what each answer adds to the sums that metrics are computed from.
    metrics: name -> function of summed counts [..., K]; headline: the metric that stands for the benchmark.
    merit: (counts, metric) -> [N], what each answer is worth alone; of two answers the one with more is better.
    more: other metrics, which are no function of sums; they compute their intervals themselves.
    degenerate: name of an answerer that never looks -> function of the answers that gives its answers.
    table: the readers' table that it stands in, "" for one of that name. shown: those of `more` that it shows.
    compared_as: metric -> the benchmark's name in comparisons, where that is not the task's.
    fits_constants: whether the constants of yes/no decodings are fitted on its validation questions.
    """

    name: str
    task: str
    form: str
    counts: Callable[[Answers, Sequence[str]], np.ndarray]
    metrics: Mapping[str, stats.Metric]
    headline: str
    merit: Callable[[np.ndarray, str], np.ndarray] = right
    more: Callable[[Answers, np.ndarray, int, int], dict[str, Interval]] = nothing_more
    degenerate: Mapping[str, Callable[[Answers], list[str]]] = field(default_factory=dict)
    table: str = ""
    shown: Sequence[str] = ()
    compared_as: Mapping[str, str] = field(default_factory=dict)
    fits_constants: bool = False

    def scores(self, answers: Answers, names: Sequence[str] = (), *, draws: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """Every metric with its 95 % interval; images are drawn, not answers. names: the objects that a caption may name."""
        counts, images = self.counts(answers, names), [answer["image_id"] for answer in answers]
        found = {
            name: stats.cluster_interval(counts, images, metric, draws=draws, seed=seed) for name, metric in self.metrics.items()
        }
        return found | self.more(answers, counts, draws, seed)


def yes_no(name: str, *, headline: str = "f1") -> Benchmark:
    """Yes/no questions with POPE's metrics. The first of an example's two choices is its yes."""
    return Benchmark(
        name=name,
        task=name,
        form="yes_no",
        counts=yes_no_counts,
        metrics={"accuracy": stats.accuracy, "f1": stats.f1, "yes_ratio": stats.yes_ratio},
        headline=headline,
        more=margin_metrics,
        degenerate=YES_NO_DEGENERATE,
        shown=("auroc", "ece", "d_prime"),
    )


def choices(name: str, *, order: Callable[[dict], list[str]] | None = None, headline: str = "macro_f1") -> Benchmark:
    """Questions with one right choice each. order: an answer's choices in the order of the classes; the default is as they are."""

    def counts(answers: Answers, names: Sequence[str]) -> np.ndarray:
        return confusion(answers, [order(answer) if order else answer["choices"] for answer in answers])

    return Benchmark(
        name=name,
        task=name,
        form="choices",
        counts=counts,
        metrics={"accuracy": stats.accuracy, "macro_f1": stats.macro_f1},
        headline=headline,
        degenerate={"most_frequent": always_most_frequent},
    )


def confusion(answers: Answers, classes: Sequence[list[str]]) -> np.ndarray:
    """[N, C * C] confusion counts; classes: for each answer its choices in the order of the classes."""
    labels = [order.index(answer["label"]) for order, answer in zip(classes, answers, strict=True)]
    given = [order.index(answer["answer"]) for order, answer in zip(classes, answers, strict=True)]
    return stats.confusion_counts(labels, given, len(classes[0]))


def yes_no_counts(answers: Answers, names: Sequence[str] = ()) -> np.ndarray:
    """[N, 4] confusion counts, no before yes."""
    return confusion(answers, [answer["choices"][::-1] for answer in answers])


def margin_metrics(answers: Answers, counts: np.ndarray, draws: int, seed: int) -> dict[str, Interval]:
    """Ranking, calibration and signal detection from yes-no margins. Only AUROC has an interval; counts: of `yes_no_counts`."""
    truth, margin = [int(a["label"] == a["choices"][0]) for a in answers], [a["margin"] for a in answers]
    tn, fp, fn, tp = (int(n) for n in counts.sum(0))
    d_prime, criterion = margins.sensitivity(tp, fp, tn, fn)
    values = {
        "average_precision": margins.average_precision(margin, truth),
        "ece": margins.calibration_error(margin, truth),
        "brier": margins.brier(margin, truth),
        "d_prime": d_prime,
        "criterion": criterion,
    }
    auroc = margins.auroc_interval(margin, truth, [a["image_id"] for a in answers], draws=draws, seed=seed)
    return {name: (value, value, value) for name, value in values.items()} | {"auroc": auroc}


def always_yes(answers: Answers) -> list[str]:
    return [answer["choices"][0] for answer in answers]


def always_no(answers: Answers) -> list[str]:
    return [answer["choices"][1] for answer in answers]


def always_most_frequent(answers: Answers) -> list[str]:
    """The most frequent label, whatever is asked; where it is no choice, the first choice."""
    [(label, _)] = Counter(answer["label"] for answer in answers).most_common(1)
    return [label if label in answer["choices"] else answer["choices"][0] for answer in answers]


YES_NO_DEGENERATE = {"all_yes": always_yes, "all_no": always_no}

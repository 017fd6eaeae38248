"""Two ways of answering, compared on the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.benchmark import Benchmark
from hkd_core.evaluation.registry import benchmark_of

FIELDS: tuple[str, ...] = ("family", "question", "a", "b", "benchmark", "difference", "low", "high")
FIELDS += ("fixed", "broken", "better", "worse", "p", "p_holm", "detectable")


@dataclass(frozen=True)
class Comparison:
    """A question of the study: is `a` better than `b` on a benchmark's metric?

    a, b: a model and a decoding, "hkd_small msi". benchmark: the task of the answers; `_val` behind it means validation. p-values are
    adjusted (Holm) within one family of a benchmark.
    """

    question: str
    a: str
    b: str
    benchmark: str
    metric: str
    family: str = "others"


def compare_all(
    comparisons: Sequence[Comparison], answers: Mapping[str, Sequence[dict]], *, names: Sequence[str] = (), draws: int, seed: int
) -> list[dict]:
    """A row (see FIELDS) for each comparison. answers: model -> its answers; names: the objects that captions may name."""
    given: dict[tuple[str, str], list[dict]] = {}
    for model, several in answers.items():
        for answer in several:
            given.setdefault((f"{model} {answer['decoding']}", answer["benchmark"]), []).append(answer)

    @cache
    def counts(way: str, task: str) -> np.ndarray:
        return benchmark_of(task).counts(given[way, task], names)

    rows = []
    for c in comparisons:
        images = aligned(*(given.get((way, c.benchmark), []) for way in (c.a, c.b)))
        left, right = counts(c.a, c.benchmark), counts(c.b, c.benchmark)
        found = difference(benchmark_of(c.benchmark), left, right, images, c.metric, draws=draws, seed=seed)
        shown = benchmark_of(c.benchmark).compared_as.get(c.metric, c.benchmark)
        rows.append({"family": c.family, "question": c.question, "a": c.a, "b": c.b, "benchmark": shown} | found)
    for family in dict.fromkeys((row["benchmark"], row["family"]) for row in rows):
        members = [row for row in rows if (row["benchmark"], row["family"]) == family]
        for row, tested in zip(members, with_holm(members), strict=True):
            row |= tested
    return rows


def compared(left: Sequence[dict], right: Sequence[dict], metric: str, *, names: Sequence[str] = (), draws: int, seed: int) -> dict:
    """`difference` of two ways' answers to the same questions of one benchmark."""
    images, benchmark = aligned(left, right), benchmark_of(left[0]["benchmark"])
    mine, other = benchmark.counts(left, names), benchmark.counts(right, names)
    return difference(benchmark, mine, other, images, metric, draws=draws, seed=seed)


def difference(
    benchmark: Benchmark, left: np.ndarray, right: np.ndarray, images: Sequence[str], metric: str, *, draws: int, seed: int
) -> dict:
    """The columns `difference` to `p` of FIELDS: the metric's difference with its 95 % interval, and a sign test, both over images.

    left, right: [N, K] counts of answers to the same questions.
    """
    interval = stats.paired_interval(left, right, images, benchmark.metrics[metric], draws=draws, seed=seed)
    mine, other = benchmark.merit(left, metric), benchmark.merit(right, metric)
    test = stats.sign_test(mine > other, mine < other, images)
    row = {name: round(value, 4) for name, value in zip(("difference", "low", "high"), interval, strict=True)}
    return row | test | {"p": float(f"{test['p']:.4g}")}


def aligned(left: Sequence[dict], right: Sequence[dict]) -> list[str]:
    """The image of each answer. Raises ValueError unless both answer the same questions in the same order."""
    asked = [[(answer["image_id"], answer["prompt"], answer["label"]) for answer in side] for side in (left, right)]
    if asked[0] != asked[1] or not asked[0]:
        raise ValueError(f"expected answers to the same questions, got {len(left)} and {len(right)} of which not all pairs agree")
    return [image for image, *_ in asked[0]]


def with_holm(rows: Sequence[dict]) -> list[dict]:
    """One family of comparisons: with p adjusted for their number, and the smallest difference each would have found."""
    adjusted = stats.holm([row["p"] for row in rows])
    return [
        row | {"p_holm": round(p, 4), "detectable": round(stats.smallest_detectable(row["low"], row["high"]), 4)}
        for row, p in zip(rows, adjusted, strict=True)
    ]

"""Two ways of answering, compared on the same questions."""

from collections.abc import Sequence

from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.tables import counts_of

FIELDS = ("family", "question", "a", "b", "benchmark", "difference", "low", "high")
FIELDS += ("fixed", "broken", "better", "worse", "p", "p_holm", "detectable")


def compared(left: Sequence[dict], right: Sequence[dict], metric: stats.Metric, *, draws: int, seed: int) -> dict:
    """Of two ways' answers to the same questions: the metric's difference with its 95 % interval, and a sign test, both over pictures."""
    clusters = aligned(left, right)
    difference = stats.paired_interval(counts_of(left), counts_of(right), clusters, metric, draws=draws, seed=seed)
    return rounded(difference, stats.sign_test(*right_of(left, right), clusters))


def right_of(left: Sequence[dict], right: Sequence[dict]) -> list[list[bool]]:
    return [[answer["answer"] == answer["label"] for answer in side] for side in (left, right)]


def aligned(left: Sequence[dict], right: Sequence[dict]) -> list[str]:
    """The picture of each answer. Raises ValueError unless both answer the same questions in the same order."""
    asked = [[(answer["image_id"], answer["prompt"], answer["label"]) for answer in side] for side in (left, right)]
    if asked[0] != asked[1] or not asked[0]:
        raise ValueError(f"expected answers to the same questions, got {len(left)} and {len(right)} of which not all pairs agree")
    return [image for image, *_ in asked[0]]


def rounded(difference: tuple[float, float, float], test: dict) -> dict:
    """The columns `difference` to `p` of FIELDS."""
    row = {name: round(value, 4) for name, value in zip(("difference", "low", "high"), difference, strict=True)}
    return row | test | {"p": float(f"{test['p']:.4g}")}


def with_holm(rows: Sequence[dict]) -> list[dict]:
    """One family of comparisons: with p adjusted for their number, and the smallest difference each would have found."""
    adjusted = stats.holm([row["p"] for row in rows])
    return [
        row | {"p_holm": round(p, 4), "detectable": round(stats.smallest_detectable(row["low"], row["high"]), 4)}
        for row, p in zip(rows, adjusted, strict=True)
    ]

"""Answers -> rows of the results table: every metric of every benchmark and decoding, with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hkd_core.evaluation.benchmark import ON_VALIDATION, nothing_more
from hkd_core.evaluation.registry import benchmark_of

FIELDS = ("model", "decoding", "benchmark", "metric", "value", "low", "high", "n", "seed")


def table_rows(model: str, answers: Sequence[dict], *, names: Sequence[str] = (), draws: int = 1000, seed: int = 0) -> list[dict]:
    """Rows (see FIELDS) of every metric of every benchmark and decoding in the answers. names: the objects that captions may name.

    Validation's answers ("task1_val") only show what fitting did; they get accuracy and macro-F1.
    """
    rows = []
    for task, decoding in dict.fromkeys((a["benchmark"], a["decoding"]) for a in answers):
        chosen = [a for a in answers if (a["benchmark"], a["decoding"]) == (task, decoding)]
        benchmark = benchmark_of(task)
        if task.endswith("_val"):
            benchmark = replace(benchmark, name=task, metrics=ON_VALIDATION, more=nothing_more)
        for metric, (value, low, high) in benchmark.scores(chosen, names, draws=draws, seed=seed).items():
            row = {
                "model": model,
                "decoding": decoding,
                "benchmark": benchmark.name,
                "metric": metric,
                "n": len(chosen),
                "seed": seed,
            }
            rows.append(row | {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)})
    return rows


def degenerate_rows(answers: Sequence[dict], *, names: Sequence[str] = (), draws: int = 200, seed: int = 0) -> list[dict]:
    """`table_rows` of answerers that never look ("all_yes", "all_no", "most_frequent", "silent"), on the questions of one model's answers."""
    asked: dict[str, list[dict]] = {}
    for a in answers:
        if a["decoding"] == "greedy" and not a["benchmark"].endswith("_val"):
            asked.setdefault(a["benchmark"], []).append(a)
    blind: dict[str, list[dict]] = {}
    for task, rows in asked.items():
        for name, answerer in benchmark_of(task).degenerate.items():
            given = zip(rows, answerer(rows), strict=True)
            blind.setdefault(name, []).extend(row | {"answer": answer, "margin": 0.0} for row, answer in given)
    return [row for name, given in blind.items() for row in table_rows(name, given, names=names, draws=draws, seed=seed)]


def values_of(rows: Sequence[Mapping]) -> dict[tuple[str, str, str, str], float]:
    """(model, decoding, benchmark, metric) -> value."""
    return {(row["model"], row["decoding"], row["benchmark"], row["metric"]): row["value"] for row in rows}

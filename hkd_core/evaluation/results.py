"""Results on disk: written once, read for figures and for Markdown tables. A way of answering is "MODEL DECODING"."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd

from hkd_core.common.files import read_text, write_csv, write_json, write_text
from hkd_core.evaluation import comparison, tables
from hkd_core.evaluation.markdown import markdown
from hkd_core.evaluation.registry import BENCHMARKS, COSTS, first_of


def reader_tables() -> dict[str, list[str]]:
    """Name of a table for readers -> its benchmarks, and the costs of each way of asking (`COSTS`)."""
    found: dict[str, list[str]] = {}
    for benchmark in BENCHMARKS.values():
        found.setdefault(benchmark.table or benchmark.name, []).append(benchmark.name)
    for form, cost in COSTS.items():
        benchmark = first_of(form)
        found[benchmark.table or benchmark.name].append(cost)
    return found


READER_TABLES = reader_tables()
READER_METRICS = {
    "times_greedy",
    *(metric for benchmark in BENCHMARKS.values() for metric in (*benchmark.metrics, *benchmark.shown)),
}


def save(
    reports: Path,
    rows: list[dict],
    comparisons: list[dict],
    outcomes: list[dict],
    answers: Mapping[str, Sequence[dict]],
    parameters: Mapping[str, int],
) -> None:
    """Write the tables, evaluate.json and answers.jsonl under a profile's reports. answers, parameters: by model."""
    write_csv(reports / "tables" / "results.csv", rows, list(tables.FIELDS))
    write_csv(reports / "tables" / "comparisons.csv", comparisons, list(comparison.FIELDS))
    write_csv(reports / "tables" / "outcomes.csv", outcomes, ["check", "value", "met"])
    flat = {"_".join(key): value for key, value in tables.values_of(rows).items()}
    flat |= {f"{name}_parameters": count for name, count in parameters.items()}
    write_json(reports / "metrics" / "evaluate.json", flat)
    lines = [json.dumps({"model": name} | answer) for name, several in answers.items() for answer in several]
    write_text(reports / "answers" / "answers.jsonl", "\n".join(lines) + "\n")


@dataclass(frozen=True)
class Results:
    """table: results.csv; comparisons, outcomes: the files of that name; answers: answers.jsonl."""

    table: pd.DataFrame
    comparisons: pd.DataFrame
    outcomes: pd.DataFrame
    answers: list[dict]

    @classmethod
    def load(cls, reports: Path) -> "Results":
        """reports: a profile's reports. Raises UserError naming a file that cannot be read."""
        texts = (read_text(reports / "tables" / f"{name}.csv") for name in ("results", "comparisons", "outcomes"))
        table, compared, outcomes = (pd.read_csv(StringIO(text)) for text in texts)
        lines = read_text(reports / "answers" / "answers.jsonl").splitlines()
        return cls(table, compared, outcomes, [json.loads(line) for line in lines])

    def there(self, ways: Sequence[str]) -> list[str]:
        """Those of the ways that have results."""
        known = set(self.table.model + " " + self.table.decoding)
        return [way for way in ways if way in known]

    def scores(self, benchmark: str, metric: str, ways: Sequence[str]) -> list[dict]:
        """The row of each way, with value, low and high. Raises KeyError for a way that has none."""
        chosen = self.table[(self.table.benchmark == benchmark) & (self.table.metric == metric)]
        rows = chosen.set_index(chosen.model + " " + chosen.decoding)
        return [rows.loc[way].to_dict() for way in ways]

    def values(self, benchmark: str, metric: str, ways: Sequence[str]) -> list[float]:
        return [row["value"] for row in self.scores(benchmark, metric, ways)]

    def answers_of(self, way: str, benchmark: str) -> list[dict]:
        return [a for a in self.answers if f"{a['model']} {a['decoding']}" == way and a["benchmark"] == benchmark]

    def error_rates(self, way: str, benchmark: str, label: str, group: Callable[[dict], str]) -> dict[str, float]:
        """Group -> share of wrong answers among those to questions with this label."""
        wrong: dict[str, list[bool]] = {}
        for a in self.answers_of(way, benchmark):
            if a["label"] == label:
                wrong.setdefault(group(a), []).append(a["answer"] != label)
        return {name: sum(several) / len(several) for name, several in wrong.items()}

    def reader_table(self, name: str) -> pd.DataFrame:
        """A row for each way, a column for each metric of the benchmarks of READER_TABLES[name]; cells "value [low, high]"."""
        shown = self.table[self.table.metric.isin(READER_METRICS)].copy()
        cells = zip(shown.value, shown.low, shown.high, strict=True)
        shown["cell"] = [f"{v:.3g} [{lo:.3g}, {hi:.3g}]" if lo != hi else f"{v:.3g}" for v, lo, hi in cells]
        shown["column"] = shown.benchmark + " " + shown.metric
        order = list(dict.fromkeys(zip(shown.model, shown.decoding, strict=True)))
        part = shown[shown.benchmark.isin(READER_TABLES[name])]
        part = part.pivot_table(index=["model", "decoding"], columns="column", values="cell", aggfunc="first")
        return part.reindex([key for key in order if key in part.index]).fillna("").reset_index()


def markdown_of(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    return markdown(list(frame.columns), list(frame.itertuples(index=False)))

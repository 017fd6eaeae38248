"""HallusionBench (arXiv 2310.14566): is a model right, and is it consistent?

aAcc: share of questions right; qAcc: share of questions right for every figure they are asked about; fAcc: share of figures about
which every question is right. Questions asked without a figure (category VS, figure 0) are part of aAcc and qAcc, not of fAcc. The published
judge is GPT-4; here "yes" and "no" are read by POPE's strict rule, and what is neither is unclear: right only where no figure is shown, as published.
"""

from collections.abc import Sequence

from hkd_core.evaluation.pope_scores import strict

KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id")


def is_right(row: dict) -> bool:
    """row: KEYS, "label" ("yes" or "no") and "answer" (any text)."""
    said = strict(row["answer"])
    return said == row["label"] or (said is None and without_figure(row))


def without_figure(row: dict) -> bool:
    return row["category"] == "VS" and str(row["figure_id"]) == "0"


def scores(rows: Sequence[dict], right: Sequence[bool]) -> dict:
    """Percent, and how many questions, question groups and figures there are."""
    pairs: dict[tuple, bool] = {}
    figures: dict[tuple, bool] = {}
    for row, is_so in zip(rows, right, strict=True):
        group = (row["category"], row["subcategory"], str(row["set_id"]))
        pair, figure = (*group, str(row["question_id"])), (*group, str(row["figure_id"]))
        pairs[pair] = pairs.get(pair, True) and is_so
        if not without_figure(row):
            figures[figure] = figures.get(figure, True) and is_so
    return {
        "n": len(rows),
        "n_questions": len(pairs),
        "n_figures": len(figures),
        "aacc": 100 * sum(right) / len(rows),
        "qacc": 100 * sum(pairs.values()) / len(pairs),
        "facc": 100 * sum(figures.values()) / max(len(figures), 1),
    }


def evaluate(rows: Sequence[dict]) -> dict:
    """Scores of all rows, of each category and subcategory, and of the two degenerate answerers."""

    def of(chosen: Sequence[dict]) -> dict:
        return scores(chosen, [is_right(row) for row in chosen])

    parts = {name: of([r for r in rows if r["category"] == name]) for name in sorted({r["category"] for r in rows})}
    subs = sorted({f"{r['category']} {r['subcategory']}" for r in rows})
    parts |= {name: of([r for r in rows if f"{r['category']} {r['subcategory']}" == name]) for name in subs}
    always = {f"all_{word}": scores(rows, [row["label"] == word for row in rows]) for word in ("yes", "no")}
    unparsed = sum(strict(row["answer"]) is None for row in rows)
    return of(rows) | {"unparsed": unparsed, "parts": parts, "degenerate": always}

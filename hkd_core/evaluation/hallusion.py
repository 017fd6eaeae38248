"""HallusionBench (arXiv 2310.14566): is a model right, and is it consistent?

aAcc: share of questions right. qAcc: share of questions right for every figure they are asked about. fAcc: share of figures about
which every question is right. Questions asked without a figure (category VS, figure 0) are part of aAcc and qAcc, not of fAcc.
The published judge is GPT-4. Here "yes" and "no" are read by POPE's strict rule, and what is neither is unclear. As published, unclear
is right only where no figure is shown. The benchmark's own digits count too: "1" is yes, "0" no and "2" unclear.
"""

import re
from collections.abc import Sequence

from hkd_core.evaluation.replies import yes_no

DIGIT = re.compile(r"\W*([012])(?:\.0*)?\W*")
DIGITS = {"1": "yes", "0": "no", "2": None}
QUESTION_SETS = {1129: "all 1,129 questions", 951: "the 951 questions with a picture"}
KEYS = ("category", "subcategory", "set_id", "figure_id", "question_id")


def read(text: str) -> str | None:
    """ "yes", "no" or None for unclear."""
    digit = DIGIT.fullmatch(text)
    return DIGITS[digit.group(1)] if digit else yes_no(text)


def unparsed(text: str) -> bool:
    return read(text) is None and not DIGIT.fullmatch(text)


def is_right(row: dict) -> bool:
    """row: KEYS, "label" ("yes" or "no") and "answer" (any text)."""
    reading = read(row["answer"])
    return reading == row["label"] or (reading is None and without_figure(row))


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
    whole = of(rows)
    more = {"mean": (whole["aacc"] + whole["facc"] + whole["qacc"]) / 3, "question_set": question_set(rows)}
    return whole | more | {"unparsed": sum(unparsed(row["answer"]) for row in rows), "parts": parts, "degenerate": always}


def question_set(rows: Sequence[dict]) -> str:
    """Which of the two sets in use it was: leaderboards differ in whether questions without a picture count."""
    bare = sum(without_figure(row) for row in rows)
    known = QUESTION_SETS.get(len(rows)) if (len(rows) == 951) == (bare == 0) else None
    return known or f"neither the 951 nor the 1,129 questions: {len(rows)}, of which {bare} without a picture"


def verdicts(rows: Sequence[dict]) -> list[dict]:
    """One row a question: what it is, what was answered and read ("" for unclear), and whether it is right."""
    return [
        {key: row[key] for key in (*KEYS, "label", "answer")} | {"read": read(row["answer"]) or "", "right": is_right(row)}
        for row in rows
    ]

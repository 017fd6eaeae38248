"""The challenge's two tasks: one answer of a closed set per item; precision, recall and F1 of each label, micro and macro."""

from collections import Counter
from collections.abc import Sequence

from hkd_core.evaluation.replies import Options


def label_scores(labels: Sequence[str], answers: Sequence[str]) -> dict:
    """Precision, recall, F1 and support of every label that occurs, their macro means, accuracy.

    With one answer an item, micro precision, recall and F1 are all accuracy. An answer that is no label is wrong, but a false alarm
    of no label. A ratio of nothing is 0.
    """
    classes = sorted(set(labels))
    answered_of, there_of = Counter(answers), Counter(labels)
    hits_of = Counter(a for a, b in zip(labels, answers, strict=True) if a == b)
    per_label = {}
    for name in classes:
        hits, answered, there = hits_of[name], answered_of[name], there_of[name]
        scores = {"precision": hits / max(answered, 1), "recall": hits / there, "f1": 2 * hits / (answered + there)}
        per_label[name] = scores | {"support": there}
    accuracy = sum(a == b for a, b in zip(labels, answers, strict=True)) / len(labels)
    mean = {k: sum(row[k] for row in per_label.values()) / len(per_label) for k in ("precision", "recall", "f1")}
    return {
        "n": len(labels),
        "accuracy": accuracy,
        "micro_f1": accuracy,
        "macro_f1": mean["f1"],
        "precision": mean["precision"],
        "recall": mean["recall"],
        "unparsed": sum(answer not in there_of for answer in answers),
        "per_label": per_label,
    }


def evaluate(rows: Sequence[dict]) -> dict:
    """rows: {"task", "label", "answer", "type"}, `type` "" for none. Scores of all items, and under "tasks" of each task alone."""
    tasks = sorted({row["task"] for row in rows})
    return scores_of(rows) | {"tasks": {task: scores_of([row for row in rows if row["task"] == task]) for task in tasks}}


def with_answers_read(rows: Sequence[dict]) -> list[dict]:
    """The rows with "answer" as the label that it means (`replies.Options`), "" if it is unparsed; "text" is the answer as it was.

    The labels of a task, case and all, are the options of its answers; where an item has "choices" (option -> its other
    wordings), those.
    """
    labels: dict[str, dict[str, None]] = {}
    for row in rows:
        labels.setdefault(row["task"], {})[row["label"]] = None
    common = {task: Options(list(found)) for task, found in labels.items()}
    read = []
    for row in rows:
        own = row.get("choices")
        options = Options([row["label"], *own], own) if own else common[row["task"]]
        reading = options.read(row["answer"])
        read.append(row | {"text": row["answer"], "answer": reading or "", "unparsed": reading is None})
    return read


def verdicts(rows: Sequence[dict]) -> list[dict]:
    """One row an item: what was answered and read, and whether it is right."""
    names = ("id", "task", "type", "label")
    return [
        {name: row[name] for name in names} | {"answer": row["text"], "read": row["answer"], "right": row["label"] == row["answer"]}
        for row in rows
    ]


def scores_of(rows: Sequence[dict]) -> dict:
    """`label_scores`, and accuracy and count per type."""
    types = {}
    for kind in sorted({row["type"] for row in rows} - {""}):
        rights = [row["label"] == row["answer"] for row in rows if row["type"] == kind]
        types[kind] = {"n": len(rights), "accuracy": sum(rights) / len(rights)}
    scores = label_scores([row["label"] for row in rows], [row["answer"] for row in rows])
    if all("unparsed" in row for row in rows):  # an option that is nobody's label is wrong, not unparsed
        scores["unparsed"] = sum(row["unparsed"] for row in rows)
    return scores | {"per_type": types}

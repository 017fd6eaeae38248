"""The challenge's two tasks: one answer of a closed set per item; precision, recall and F1 of each label, micro and macro."""

from collections.abc import Sequence


def label_scores(labels: Sequence[str], answers: Sequence[str]) -> dict:
    """Precision, recall, F1 and support of every label that occurs, their macro means, accuracy.

    With one answer an item micro precision, recall and F1 are all accuracy; an answer that is no label is wrong, and no label's
    false alarm. A ratio of nothing is 0.
    """
    classes = sorted(set(labels))
    per_label = {}
    for name in classes:
        hits = sum(a == b == name for a, b in zip(labels, answers, strict=True))
        said, there = list(answers).count(name), list(labels).count(name)
        scores = {"precision": hits / max(said, 1), "recall": hits / there, "f1": 2 * hits / (said + there)}
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
        "unparsed": sum(answer not in classes for answer in answers),
        "per_label": per_label,
    }


def evaluate(rows: Sequence[dict]) -> dict:
    """rows: {"task", "label", "answer", "type"}, `type` "" for none. Scores of all items, and under "tasks" of each task alone."""
    tasks = sorted({row["task"] for row in rows})
    return scores_of(rows) | {"tasks": {task: scores_of([row for row in rows if row["task"] == task]) for task in tasks}}


def scores_of(rows: Sequence[dict]) -> dict:
    """`label_scores`, and accuracy and count per type."""
    types = {}
    for kind in sorted({row["type"] for row in rows} - {""}):
        rights = [row["label"] == row["answer"] for row in rows if row["type"] == kind]
        types[kind] = {"n": len(rights), "accuracy": sum(rights) / len(rights)}
    return label_scores([row["label"] for row in rows], [row["answer"] for row in rows]) | {"per_type": types}

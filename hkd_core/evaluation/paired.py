"""Two models' answers to the same questions: accuracy of both, their paired difference, and a sign test over pictures."""

from collections.abc import Mapping, Sequence

import numpy as np

from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.replies import Options

Choices = Sequence[Mapping[str, Sequence[str]] | None]  # of each question: option -> its other wordings, None for none


def read_answers(texts: Sequence[str], labels: Sequence[str], choices: Choices | None = None) -> list[str | None]:
    """The label that each answer means, None for unparsed. Yes-no questions are read as such; other options are the labels.

    choices: where a question has its own options, those.
    """
    closed = {label for label in labels if label.lower() in ("yes", "no")}
    others = Options([label for label in dict.fromkeys(labels) if label not in closed])
    words = Options(sorted(closed))
    read = []
    for text, label, own in zip(texts, labels, choices or [None] * len(labels), strict=True):
        options = Options([label, *own], own) if own else words if label in closed else others
        read.append(options.read(text))
    return read


def right_of(readings: Sequence[str | None], labels: Sequence[str]) -> list[bool]:
    """Yes and no whatever their case, the others as they are."""
    closed = ("yes", "no")
    return [
        word is not None and (word.lower() == label.lower() if label.lower() in closed else word == label)
        for word, label in zip(readings, labels, strict=True)
    ]


def evaluate(
    a: Sequence[str],
    b: Sequence[str],
    labels: Sequence[str],
    images: Sequence[str],
    *,
    choices: Choices | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> dict:
    """a, b, labels, images: [N], both models' texts, what is right, which picture.

    difference, low, high: accuracy a minus b with its 95 % interval, clustered by picture. p: the exact sign test over pictures
    (`statistics.sign_test`: better, worse); p_mcnemar: McNemar's, which takes every question for independent. fixed, broken:
    questions that only a, or only b, has right.
    """
    readings = {side: read_answers(texts, labels, choices) for side, texts in (("a", a), ("b", b))}
    right = {side: right_of(words, labels) for side, words in readings.items()}
    counts = {side: np.array([[value, 1.0] for value in values]) for side, values in right.items()}
    difference, low, high = stats.paired_interval(
        counts["a"], counts["b"], images, lambda s: s[..., 0] / s[..., 1], draws=draws, seed=seed
    )
    shares = {f"accuracy_{side}": float(np.mean(values)) for side, values in right.items()}
    unparsed = {f"unparsed_{side}": words.count(None) for side, words in readings.items()}
    tests = stats.sign_test(right["a"], right["b"], images) | {"p_mcnemar": stats.mcnemar(right["a"], right["b"])["p"]}
    size = {"n": len(labels), "n_images": len(set(images))}
    return size | shares | unparsed | {"difference": difference, "low": low, "high": high} | tests


def verdicts(
    keys: Sequence[str],
    a: Sequence[str],
    b: Sequence[str],
    labels: Sequence[str],
    images: Sequence[str],
    choices: Choices | None = None,
) -> list[dict]:
    """One row a question: what both answered, how it was read ("" for unparsed), and whether it is right."""
    rows: list[dict] = [{"id": key, "image": image, "label": label} for key, image, label in zip(keys, images, labels, strict=True)]
    for side, texts in (("a", a), ("b", b)):
        readings = read_answers(texts, labels, choices)
        for row, text, word, right in zip(rows, texts, readings, right_of(readings, labels), strict=True):
            row |= {side: text, f"read_{side}": word or "", f"right_{side}": right}
    return rows

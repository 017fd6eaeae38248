"""CHAIR (arXiv 1809.02156) of a model's captions, in percent; see `evaluation.chair` for how captions are read."""

from collections.abc import Sequence

import numpy as np

from hkd_core.evaluation.benchmark import Answers, Benchmark
from hkd_core.evaluation.chair import chair, vocabulary_of
from hkd_core.evaluation.statistics import Metric


def caption_counts(answers: Answers, names: Sequence[str]) -> np.ndarray:
    """[N, 7] of each caption: any hallucinated object, 1, hallucinated, named, objects found, objects there, words."""
    there = {answer["image_id"]: answer["objects"] for answer in answers}
    captions = chair([(a["image_id"], a["answer"]) for a in answers], there, vocabulary_of(names))["captions"]
    rows = [
        (bool(c["hallucinated"]), 1, len(c["hallucinated"]), len(c["generated"]), c["found"], c["there"], c["words"])
        for c in captions
    ]
    return np.array(rows, float)


def ratio(part: int, whole: int, scale: float) -> Metric:
    """scale * (column `part`) / (column `whole`) of summed counts."""
    return lambda sums: scale * sums[..., part] / np.maximum(sums[..., whole], 1)


def merit(counts: np.ndarray, metric: str) -> np.ndarray:
    """[N]: for recall the objects found; for the others 1 for a caption without a hallucinated object, else 0."""
    return counts[:, 4] if metric == "recall" else 1 - counts[:, 0]


def silence(answers: Answers) -> list[str]:
    return [""] * len(answers)


CHAIR = Benchmark(
    name="chair",
    task="caption",
    form="caption",
    counts=caption_counts,
    metrics={"chair_s": ratio(0, 1, 100), "chair_i": ratio(2, 3, 100), "recall": ratio(4, 5, 100), "mean_words": ratio(6, 1, 1)},
    headline="chair_i",
    merit=merit,
    degenerate={"silent": silence},
    table="captions_mme",
    compared_as={"chair_i": "chair_i", "recall": "caption_recall"},
)

"""MME's hallucination subtasks (arXiv 2306.13394): two questions about an image; accuracy plus accuracy+, in percent, summed.

accuracy+ is the share of images with both questions right, so a one-sided answerer gets none of it.
"""

from collections.abc import Sequence

import numpy as np

from hkd_core.evaluation.benchmark import YES_NO_DEGENERATE, Answers, Benchmark


def mme_counts(answers: Answers, names: Sequence[str] = ()) -> np.ndarray:
    """[N, 4 * subtasks]: for each answer, in its subtask's columns: right, 1; and once for each pair: both right, 1."""
    subtasks = list(dict.fromkeys(a["subtask"] for a in answers))
    counts = np.zeros((len(answers), 4 * len(subtasks)))
    pairs: dict[tuple[str, str], list[int]] = {}
    for i, answer in enumerate(answers):
        k = 4 * subtasks.index(answer["subtask"])
        counts[i, k : k + 2] = answer["answer"] == answer["label"], 1
        pairs.setdefault((answer["subtask"], answer["image_id"]), []).append(i)
    for (subtask, _), asked in pairs.items():
        k = 4 * subtasks.index(subtask)
        counts[asked[0], k + 2 : k + 4] = all(counts[i, k] for i in asked), 1
    return counts


def mme_score(sums: np.ndarray) -> np.ndarray:
    """From summed `mme_counts` [..., 4 * subtasks]: accuracy plus accuracy+ of every subtask, in percent, summed."""
    right, asked, both, pairs = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 4), -1, 0)
    return 100 * (right / np.maximum(asked, 1) + both / np.maximum(pairs, 1)).sum(-1)


def right(counts: np.ndarray, metric: str) -> np.ndarray:
    return counts[:, ::4].sum(1)


MME = Benchmark(
    name="mme",
    task="mme",
    form="yes_no",
    counts=mme_counts,
    metrics={"score": mme_score},
    headline="score",
    merit=right,
    degenerate=YES_NO_DEGENERATE,
    table="captions_mme",
)

"""Answers -> rows of the results table: every metric of every benchmark and decoding, with its interval."""

from collections.abc import Sequence

import numpy as np

from hkd_core.data.wording import Wording
from hkd_core.evaluation import margins
from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.chair import chair, vocabulary_of
from hkd_core.evaluation.suite import POPE

FIELDS = ("model", "decoding", "benchmark", "metric", "value", "low", "high", "n", "seed")


def table_rows(model: str, answers: Sequence[dict], *, vocabulary: Sequence[str], draws: int, seed: int) -> list[dict]:
    """Rows (see FIELDS) of every metric of every benchmark and decoding in the answers."""
    rows = []
    for benchmark, decoding in dict.fromkeys((a["benchmark"], a["decoding"]) for a in answers):
        chosen = [a for a in answers if (a["benchmark"], a["decoding"]) == (benchmark, decoding)]
        if benchmark == "caption":
            found = chair_rows(chosen, vocabulary, draws=draws, seed=seed)
        elif benchmark == "mme":
            found = mme_rows(chosen, draws=draws, seed=seed)
        else:
            found = answer_rows(benchmark, chosen, draws=draws, seed=seed)
        name = {"caption": "chair"}.get(benchmark, benchmark)
        for metric, (value, low, high) in found.items():
            row = {"model": model, "decoding": decoding, "benchmark": name, "metric": metric, "n": len(chosen), "seed": seed}
            rows.append(row | {k: round(v, 4) for k, v in (("value", value), ("low", low), ("high", high))})
    return rows


def counts_of(answers: Sequence[dict]) -> np.ndarray:
    """[N, C * C] confusion counts; class 1 is "Yes" where the choices are yes and no."""
    order = [["No", "Yes"] if set(a["choices"]) == set(Wording.yes_no) else a["choices"] for a in answers]
    if answers[0]["benchmark"].startswith("task1"):
        # A letter is no class; which kind of phrase was blamed is not recorded, so right or wrong per letter is counted.
        order = [sorted(a["choices"]) for a in answers]
    labels = [o.index(a["label"]) for o, a in zip(order, answers, strict=True)]
    said = [o.index(a["answer"]) for o, a in zip(order, answers, strict=True)]
    return stats.confusion_counts(labels, said, len(order[0]))


def answer_rows(benchmark: str, answers: Sequence[dict], *, draws: int, seed: int) -> dict[str, tuple[float, float, float]]:
    counts, clusters = counts_of(answers), [a["image_id"] for a in answers]
    metrics = {"accuracy": stats.accuracy}
    metrics |= {"f1": stats.f1, "yes_ratio": stats.yes_ratio} if benchmark in POPE else {"macro_f1": stats.macro_f1}
    found = {name: stats.cluster_interval(counts, clusters, metric, draws=draws, seed=seed) for name, metric in metrics.items()}
    if benchmark in POPE:
        found |= {name: (value, value, value) for name, value in margin_scores(answers, counts.sum(0)).items()}
        truth, margin = [int(a["label"] == Wording.yes_no[0]) for a in answers], [a["margin"] for a in answers]
        found["auroc"] = margins.auroc_interval(margin, truth, clusters, draws=draws, seed=seed)
    return found


def margin_scores(answers: Sequence[dict], counts: np.ndarray) -> dict[str, float]:
    """Ranking, calibration and signal detection from yes-no margins; counts: [4] of (label, answer), no before yes."""
    truth, margin = [int(a["label"] == Wording.yes_no[0]) for a in answers], [a["margin"] for a in answers]
    tn, fp, fn, tp = (int(n) for n in counts)
    found = {"average_precision": margins.average_precision(margin, truth)}
    found |= {"ece": margins.calibration_error(margin, truth), "brier": margins.brier(margin, truth)}
    return found | dict(zip(("d_prime", "criterion"), margins.sensitivity(tp, fp, tn, fn), strict=True))


def chair_rows(
    answers: Sequence[dict], vocabulary: Sequence[str], *, draws: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    objects = {a["image_id"]: a["objects"] for a in answers}
    captions = chair([(a["image_id"], a["answer"]) for a in answers], objects, vocabulary_of(vocabulary))["captions"]
    columns = [
        (bool(c["hallucinated"]), 1, len(c["hallucinated"]), len(c["generated"]), c["found"], c["there"], c["words"])
        for c in captions
    ]
    counts, images = np.array(columns, float), [a["image_id"] for a in answers]
    ratios = {"chair_s": (0, 1, 100), "chair_i": (2, 3, 100), "recall": (4, 5, 100), "mean_words": (6, 1, 1)}
    return {
        name: stats.cluster_interval(
            counts, images, lambda sums, a=a, b=b, k=k: k * sums[..., a] / np.maximum(sums[..., b], 1), draws=draws, seed=seed
        )
        for name, (a, b, k) in ratios.items()
    }


def mme_rows(answers: Sequence[dict], *, draws: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """MME's score: the subtasks' accuracy plus accuracy+ (both questions of a picture right), in percent, summed."""
    counts, images = mme_counts(answers)
    return {"score": stats.cluster_interval(counts, images, mme_score, draws=draws, seed=seed)}


def mme_counts(answers: Sequence[dict]) -> tuple[np.ndarray, list[str]]:
    """([N, 4 * subtasks], image ids): of every answer, in its subtask's columns: right, 1; and once a pair: both right, 1."""
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
    return counts, [a["image_id"] for a in answers]


def mme_score(sums: np.ndarray) -> np.ndarray:
    """From summed `mme_counts` [..., 4 * subtasks]: accuracy plus accuracy+ of every subtask, in percent, summed."""
    right, asked, both, pairs = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 4), -1, 0)
    return 100 * (right / np.maximum(asked, 1) + both / np.maximum(pairs, 1)).sum(-1)

"""Every benchmark for one model: its answers under each decoding, and the table rows made from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hkd_core.data.tasks import YES_NO
from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.chair import chair, chair_scores
from hkd_core.inference.contrast import mixture, purify
from hkd_core.inference.generation import generate
from hkd_core.inference.mapping_shift import average, content_kinds, fit_prior, shifted
from hkd_core.inference.scoring import answer_logits, score_choices
from hkd_core.models.vlm import VLM, Encoded

POPE = ("pope_random", "pope_popular", "pope_adversarial")
TASKS = ("task1", "task2")
FIELDS = ("model", "decoding", "benchmark", "metric", "value", "low", "high", "n", "seed")
Looks = Mapping[str, Encoded]  # image_id -> features


@dataclass(frozen=True)
class Split:
    """Examples of validation or test with what the model sees of their pictures, as they are and (if asked) distorted."""

    examples: Sequence[dict]
    looks: Looks
    distorted: Sequence[Looks] = ()  # views

    def of(self, *tasks: str) -> list[dict]:
        return [row for row in self.examples if row["task"] in tasks]

    def pictures(self, rows: Sequence[dict]) -> list[Encoded]:
        return [self.looks[row["image_id"]] for row in rows]

    def views(self, rows: Sequence[dict]) -> list[list[Encoded]]:
        return [[looks[row["image_id"]] for row in rows] for looks in self.distorted]


def yes_no_tokens(vlm: VLM) -> list[int]:
    """First tokens of "Yes" and "No" as answers."""
    bare = len(vlm.suffix("x"))
    return [vlm.suffix("x", answer)[bare] for answer in YES_NO]


def yes_no_logits(vlm: VLM, split: Split, rows: Sequence[dict], *, distorted: bool = False) -> torch.Tensor:
    """[N, V] logits after each question; a question that several benchmarks share is asked once."""
    keys = [(row["image_id"], row["prompt"]) for row in rows]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    unique = sorted(first.values())
    place = {keys[i]: n for n, i in enumerate(unique)}
    asked = [rows[i] for i in unique]
    looks = split.views(asked) if distorted else [split.pictures(asked)]
    logits = mixture([answer_logits(vlm, [row["prompt"] for row in asked], look) for look in looks])
    return logits[[place[key] for key in keys]]


def margins(vlm: VLM, logits: torch.Tensor) -> np.ndarray:
    """[N] logit of "Yes" over "No"."""
    yes, no = yes_no_tokens(vlm)
    return (logits[:, yes] - logits[:, no]).numpy()


def record(row: dict, decoding: str, answer: str, margin: float | None = None) -> dict:
    kept = {"benchmark": row["task"], "decoding": decoding, "image_id": row["image_id"], "prompt": row["prompt"]}
    kept |= {"label": row["answer"], "answer": answer, "choices": row["choices"], "type": row["meta"].get("type", "")}
    return kept | {"subtask": row["meta"].get("subtask", ""), "margin": None if margin is None else round(float(margin), 4)}


def yes_no_answers(vlm: VLM, val: Split, test: Split, decodings: Sequence[str], contrast: dict, seed: int) -> list[dict]:
    """Answers to POPE and MME under each decoding; every constant is fitted on validation's adversarial questions."""
    rows, held = test.of(*POPE, "mme"), val.of("pope_adversarial")
    truth = np.array([row["answer"] == "Yes" for row in held], int)
    clean, clean_val = yes_no_logits(vlm, test, rows), yes_no_logits(vlm, val, held)
    found = {"greedy": margins(vlm, clean)}
    found["shift"] = found["greedy"] - stats.best_shift(margins(vlm, clean_val), truth)
    if "sampling" in decodings:
        rng = np.random.default_rng(seed)
        found["sampling"] = found["greedy"] - np.log(1 / rng.random(len(rows)) - 1)
    if "contrastive" in decodings:
        unseen, unseen_val = yes_no_logits(vlm, test, rows, distorted=True), yes_no_logits(vlm, val, held, distorted=True)
        found["contrastive"] = margins(vlm, purify(clean, unseen, alpha=contrast["alpha"], beta=0.0))
        purged = margins(vlm, purify(clean_val, unseen_val, alpha=contrast["alpha"], beta=0.0))
        found["contrastive_shift"] = found["contrastive"] - stats.best_shift(purged, truth)
    if "msi" in decodings:
        other, other_val = ([shifted(row)[1][0] for row in part] for part in (rows, held))
        both = found["greedy"] - margins(vlm, yes_no_logits(vlm, test, other))
        both_val = margins(vlm, clean_val) - margins(vlm, yes_no_logits(vlm, val, other_val))
        found["msi"] = both / 2 - stats.best_shift(both_val / 2, truth)
    return [
        record(row, decoding, YES_NO[0] if margin > 0 else YES_NO[1], margin)
        for decoding, values in found.items()
        for row, margin in zip(rows, values, strict=True)
    ]


def task_answers(vlm: VLM, val: Split, test: Split, decodings: Sequence[str]) -> list[dict]:
    """Answers to the challenge's tasks: the most probable choice, and under MSI with its prior fitted on validation."""
    found = []
    for task in TASKS:
        rows = test.of(task)
        for row, scores in zip(rows, score_choices(vlm, rows, pictures=test.pictures(rows)), strict=True):
            found.append(record(row, "greedy", row["choices"][int(np.argmax(scores))]))
        if "msi" not in decodings:
            continue
        averaged = {name: shifted_scores(vlm, split, split.of(task)) for name, split in (("val", val), ("test", test))}
        held = val.of(task)
        right = [row["choices"].index(row["answer"]) for row in held]
        prior = fit_prior(averaged["val"], [content_kinds(row) for row in held], right)
        for row, scores in zip(rows, averaged["test"], strict=True):
            best = int(np.argmax(prior.remove(scores, content_kinds(row))))
            found.append(record(row, "msi", row["choices"][best]))
    return found


def shifted_scores(vlm: VLM, split: Split, rows: Sequence[dict]) -> list[np.ndarray]:
    """Averaged log-probabilities over all shifted mappings, every variant of every example in one batched pass."""
    variants = [shifted(row) for row in rows]
    flat = [variant for several in variants for variant, _ in several]
    scores = iter(score_choices(vlm, flat, pictures=split.pictures(flat)))
    return [average(several, [next(scores) for _ in several]) for several in variants]


def caption_answers(
    vlm: VLM, test: Split, decodings: Sequence[str], contrast: dict, *, count: int, max_new_tokens: int, seed: int
) -> list[dict]:
    rows = test.of("caption")[:count]
    prompts, pictures = [row["prompt"] for row in rows], test.pictures(rows)
    how = {"greedy": {}}
    if "sampling" in decodings:
        how["sampling"] = {"temperature": 1.0, "seed": seed}
    if "contrastive" in decodings:
        settings = {"alpha": contrast["alpha"], "beta": contrast["beta"]}
        how["contrastive"] = {"contrast": test.views(rows), **settings}
    found = []
    for decoding, settings in how.items():
        texts = generate(vlm, prompts, pictures, max_new_tokens=max_new_tokens, **settings)
        found += [record(row, decoding, text) | {"objects": row["objects"]} for row, text in zip(rows, texts, strict=True)]
    return found


def table_rows(model: str, answers: Sequence[dict], *, vocabulary: Sequence[str], draws: int, seed: int) -> list[dict]:
    """Rows (see FIELDS) of every metric of every benchmark and decoding in the answers."""
    rows = []
    for benchmark, decoding in dict.fromkeys((a["benchmark"], a["decoding"]) for a in answers):
        chosen = [a for a in answers if (a["benchmark"], a["decoding"]) == (benchmark, decoding)]
        if benchmark == "caption":
            found = chair_rows(chosen, vocabulary, draws=draws, seed=seed)
        elif benchmark == "mme":
            found = mme_rows(chosen)
        else:
            found = answer_rows(benchmark, chosen, draws=draws, seed=seed)
        name = {"caption": "chair"}.get(benchmark, benchmark)
        for metric, (value, low, high) in found.items():
            row = {"model": model, "decoding": decoding, "benchmark": name, "metric": metric, "n": len(chosen), "seed": seed}
            rows.append(row | {k: round(v, 4) for k, v in (("value", value), ("low", low), ("high", high))})
    return rows


def counts_of(answers: Sequence[dict]) -> np.ndarray:
    """[N, C * C] confusion counts; class 1 is "Yes" where the choices are yes and no."""
    order = [["No", "Yes"] if set(a["choices"]) == set(YES_NO) else a["choices"] for a in answers]
    if answers[0]["benchmark"] == "task1":
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
        truth = np.array([a["label"] == "Yes" for a in answers], int)
        value = stats.auroc(np.array([a["margin"] for a in answers]), truth)
        found["auroc"] = (value, value, value)
    return found


def chair_rows(
    answers: Sequence[dict], vocabulary: Sequence[str], *, draws: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    objects = {a["image_id"]: a["objects"] for a in answers}
    captions = chair([(a["image_id"], a["answer"]) for a in answers], objects, vocabulary)["captions"]
    value = chair_scores(captions)
    rng = np.random.default_rng(seed)
    drawn = [chair_scores([captions[i] for i in rng.integers(0, len(captions), len(captions))]) for _ in range(min(draws, 300))]
    return {k: (v, *np.percentile([d[k] for d in drawn], [2.5, 97.5])) for k, v in value.items()}


def mme_rows(answers: Sequence[dict]) -> dict[str, tuple[float, float, float]]:
    """MME's score (arXiv 2306.13394): accuracy plus accuracy+ (both questions of a picture right), in percent, summed."""
    total = 0.0
    for subtask in dict.fromkeys(a["subtask"] for a in answers):
        chosen = [a for a in answers if a["subtask"] == subtask]
        right: dict[str, list[bool]] = {}
        for a in chosen:
            right.setdefault(a["image_id"], []).append(a["answer"] == a["label"])
        total += 100 * float(np.mean([r for rs in right.values() for r in rs])) + 100 * float(
            np.mean([all(r) for r in right.values()])
        )
    return {"score": (total, total, total)}

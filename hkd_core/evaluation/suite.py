"""Every benchmark for one model: its answers under each decoding. `tables.py` makes rows of them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hkd_core.data.tasks import YES_NO
from hkd_core.evaluation import statistics as stats
from hkd_core.inference.contrast import purify
from hkd_core.inference.generation import generate
from hkd_core.inference.mapping_shift import average, content_kinds, fit_prior, shifted
from hkd_core.inference.scoring import answer_logits, prior_logits, score_choices
from hkd_core.inference.testimony import affirmed, evidence, name_starts
from hkd_core.inference.views import FREE_TEXT_VIEWS
from hkd_core.models.vlm import VLM, Encoded

POPE = ("pope_random", "pope_popular", "pope_adversarial")
TASKS = ("task1", "task2")
CONTROLS = ("other_picture", "no_picture")  # what a model answers without looking
Looks = Mapping[str, Encoded]  # image_id -> features


@dataclass(frozen=True)
class Split:
    """Examples of validation or test with what the model sees of their pictures, as they are and (if asked) distorted."""

    examples: Sequence[dict]
    looks: Looks
    distorted: Sequence[Looks] = ()  # views
    kind: str = ""  # of the views

    def of(self, *tasks: str) -> list[dict]:
        return [row for row in self.examples if row["task"] in tasks]

    def pictures(self, rows: Sequence[dict]) -> list[Encoded]:
        return [self.looks[row["image_id"]] for row in rows]

    def others(self, rows: Sequence[dict]) -> list[Encoded]:
        """For each row some other picture, always the same one for the same picture: the shuffled-image control."""
        names = list(self.looks)
        other = dict(zip(names, names[1:] + names[:1], strict=True))
        return [self.looks[other[row["image_id"]]] for row in rows]

    def views(self, rows: Sequence[dict]) -> list[list[Encoded]]:
        return [[looks[row["image_id"]] for row in rows] for looks in self.distorted]


def yes_no_tokens(vlm: VLM) -> list[int]:
    """First tokens of "Yes" and "No" as answers."""
    bare = len(vlm.suffix("x"))
    return [vlm.suffix("x", answer)[bare] for answer in YES_NO]


def looking_at(vlm: VLM, split: Split, rows: Sequence[dict], look: str) -> list[Encoded]:
    """Each row's picture; for "other_picture" some other one, for "no_picture" none."""
    if look == "no_picture":
        return [vlm.without_picture(split.pictures(rows[:1])[0])] * len(rows)
    return split.others(rows) if look == "other_picture" else split.pictures(rows)


def yes_no_logits(vlm: VLM, split: Split, rows: Sequence[dict], look: str = "clean") -> torch.Tensor:
    """[N, V] logits after each question; a question that several benchmarks share is asked once.

    look: "clean", "distorted" (the mean of the split's views), "other_picture" or "no_picture".
    """
    keys = [(row["image_id"], row["prompt"]) for row in rows]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    unique = sorted(first.values())
    place = {keys[i]: n for n, i in enumerate(unique)}
    asked = [rows[i] for i in unique]
    prompts, title = [row["prompt"] for row in asked], f"yes-no questions, {look}"
    if look == "distorted":
        logits = prior_logits(vlm, prompts, split.views(asked), split.kind, title=title)
    else:
        seen = looking_at(vlm, split, asked, look)
        logits = answer_logits(vlm, prompts, seen, title=title)
    return logits[[place[key] for key in keys]]


def margins(vlm: VLM, logits: torch.Tensor) -> np.ndarray:
    """[N] logit of "Yes" over "No"."""
    yes, no = yes_no_tokens(vlm)
    return (logits[:, yes] - logits[:, no]).numpy()


def token_audit(vlm: VLM, logits: torch.Tensor) -> dict:
    """Which tokens count as yes and no, and how much probability lies outside them: mean, and at the worst twentieth of questions."""
    yes, no = yes_no_tokens(vlm)
    outside = 1 - logits.softmax(-1)[:, [yes, no]].sum(-1)
    names = vlm.tokenizer.convert_ids_to_tokens([yes, no])
    audit = {"yes": yes, "no": no, "yes_token": names[0], "no_token": names[1]}
    return audit | {"outside_mean": float(outside.mean()), "outside_95": float(outside.quantile(0.95))}


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
        unseen, unseen_val = yes_no_logits(vlm, test, rows, "distorted"), yes_no_logits(vlm, val, held, "distorted")
        found["contrastive"] = margins(vlm, purify(clean, unseen, alpha=contrast["alpha"], beta=0.0))
        purged = margins(vlm, purify(clean_val, unseen_val, alpha=contrast["alpha"], beta=0.0))
        found["contrastive_shift"] = found["contrastive"] - stats.best_shift(purged, truth)
    for control in (name for name in CONTROLS if name in decodings):
        found[control] = margins(vlm, yes_no_logits(vlm, test, rows, control))
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
        for row, scores in zip(rows, score_choices(vlm, rows, pictures=test.pictures(rows), progress=True), strict=True):
            found.append(record(row, "greedy", row["choices"][int(np.argmax(scores))]))
        if "msi" not in decodings:
            continue
        averaged = {name: shifted_scores(vlm, split, split.of(task)) for name, split in (("val", val), ("test", test))}
        held = val.of(task)
        right = [row["choices"].index(row["answer"]) for row in held]
        kinds = [content_kinds(row) for row in held]
        prior = fit_prior([mean for _, mean in averaged["val"]], kinds, right)
        plain_right = [int(np.argmax(plain)) == r for (plain, _), r in zip(averaged["val"], right, strict=True)]
        told = [int(np.argmax(prior.remove(mean, kind))) for (_, mean), kind in zip(averaged["val"], kinds, strict=True)]
        warn_if_worse(f"{vlm.name}, {task}", plain_right, [t == r for t, r in zip(told, right, strict=True)])
        for row, (_, scores) in zip(rows, averaged["test"], strict=True):
            best = int(np.argmax(prior.remove(scores, content_kinds(row))))
            found.append(record(row, "msi", row["choices"][best]))
    return found


def warn_if_worse(name: str, plain: Sequence[bool], shifted: Sequence[bool]) -> None:
    """Warns where mapping shift gets fewer validation examples right than plain answering, by more than noise (exact McNemar, 5 %)."""
    test = stats.mcnemar(shifted, plain)
    if test["fixed"] < test["broken"] and test["p"] < 0.05:
        warnings.warn(
            f"{name}: mapping shift answers worse than plain answering on validation: {test['fixed']} fixed, "
            f"{test['broken']} broken, p {test['p']:.2g}",
            stacklevel=2,
        )


def shifted_scores(vlm: VLM, split: Split, rows: Sequence[dict]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(plain, averaged over all shifted mappings) log-probabilities, every variant of every example in one batched pass."""
    variants = [shifted(row) for row in rows]
    flat = [variant for several in variants for variant, _ in several]
    scores = iter(score_choices(vlm, flat, pictures=split.pictures(flat), progress=True))
    found = [(several, [next(scores) for _ in several]) for several in variants]
    return [(np.asarray(of_each[0]), average(several, of_each)) for several, of_each in found]


def caption_answers(
    vlm: VLM,
    test: Split,
    decodings: Sequence[str],
    contrast: dict,
    *,
    names: Sequence[str],
    count: int,
    max_new_tokens: int,
    seed: int,
) -> list[dict]:
    """Captions under each decoding; "asked" weighs each of `names` by the model's own answer about it (contrast's gamma and shift)."""
    rows = test.of("caption")[:count]
    prompts, pictures = [row["prompt"] for row in rows], test.pictures(rows)
    how = {"greedy": {}}
    if "sampling" in decodings:
        how["sampling"] = {"temperature": 1.0, "seed": seed}
    if "contrastive" in decodings:
        settings = {"alpha": contrast["alpha"], "beta": contrast["beta"]}
        how["contrastive"] = {"contrast": test.views(rows)[:FREE_TEXT_VIEWS], "kind": test.kind, **settings}
    if "asked" in decodings:
        told, starts = affirmed(vlm, names, pictures, shift=contrast["shift"]), name_starts(vlm, names)
        weights = evidence(told, starts, vlm.head.shape[0], gamma=contrast["gamma"])
        how["asked"] = {"evidence": weights, "starts": starts, "beta": contrast["beta"]}
    found = []
    for decoding, settings in how.items():
        texts = generate(vlm, prompts, pictures, max_new_tokens=max_new_tokens, title=f"captions, {decoding}", **settings)
        found += [record(row, decoding, text) | {"objects": row["objects"]} for row, text in zip(rows, texts, strict=True)]
    return found

"""Every benchmark for one model: its answers under each decoding. `tables.py` makes rows of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from hkd_core.data.wording import Wording
from hkd_core.evaluation import statistics as stats
from hkd_core.hkd.mapping_shift import Prior, average, content_kinds, fit_prior, shifted
from hkd_core.inference.contrast import isolate, purify
from hkd_core.inference.generation import contrastive, generate
from hkd_core.inference.scoring import answer_logits, prior_logits, score_choices
from hkd_core.inference.views import FREE_TEXT_VIEWS
from hkd_core.models.vlm import VLM, Encoded
from hkd_core.seed.self_verification import affirmed, evidence, name_starts, self_verifying

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
    wording: Wording = field(default_factory=Wording)

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
    return [vlm.suffix("x", answer)[bare] for answer in Wording.yes_no]


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


def both_ways(vlm: VLM, split: Split, rows: Sequence[dict], *, negated: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, V] logits after each question and, if `negated`, after its opposite (else [0, V]): one batched pass."""
    opposites = [shifted(row, split.wording)[1][0] for row in rows] if negated else []
    logits = yes_no_logits(vlm, split, [*rows, *opposites])
    return logits[: len(rows)], logits[len(rows) :]


def margins(vlm: VLM, logits: torch.Tensor) -> np.ndarray:
    """[N] logit of "Yes" over "No"; 1000 where the other is implausible (-inf), 0 where both are."""
    said = logits[:, yes_no_tokens(vlm)].clamp(min=-1e6)
    return (said[:, 0] - said[:, 1]).clamp(-1e3, 1e3).numpy()


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
    """Answers to POPE and MME under each decoding; every constant is fitted on validation's adversarial questions.

    Under MSI also the answers to these, plain and shifted, as benchmark "pope_adversarial_val": is it any worse there?
    The content-free prior of a yes/no question is one constant, and so is part of the shift that is fitted.
    """
    rows, held = test.of(*POPE, "mme"), val.of("pope_adversarial")
    truth = np.array([row["answer"] == "Yes" for row in held], int)
    negated = "msi" in decodings
    (clean, opposite), (clean_val, opposite_val) = (both_ways(vlm, *part, negated=negated) for part in ((test, rows), (val, held)))
    found = {"greedy": margins(vlm, clean)}
    found["shift"] = found["greedy"] - stats.best_shift(margins(vlm, clean_val), truth)
    if "sampling" in decodings:
        rng = np.random.default_rng(seed)
        found["sampling"] = found["greedy"] - np.log(1 / rng.random(len(rows)) - 1)
    if "contrastive" in decodings:
        unseen, unseen_val = yes_no_logits(vlm, test, rows, "distorted"), yes_no_logits(vlm, val, held, "distorted")
        found["contrastive"] = margins(vlm, purify(clean, unseen, alpha=contrast["alpha"], cutoff=contrast["beta"]))
        purged = margins(vlm, purify(clean_val, unseen_val, alpha=contrast["alpha"], cutoff=contrast["beta"]))
        found["contrastive_shift"] = found["contrastive"] - stats.best_shift(purged, truth)
    for control in (name for name in CONTROLS if name in decodings):
        found[control] = margins(vlm, yes_no_logits(vlm, test, rows, control))
    told_val = {}
    if negated:
        told_val["greedy"], both_val = margins(vlm, clean_val), (margins(vlm, clean_val) - margins(vlm, opposite_val)) / 2
        told_val["shift"] = told_val["greedy"] - stats.best_shift(told_val["greedy"], truth)
        constant = stats.best_shift(both_val, truth)
        told_val["msi"], found["msi"] = both_val - constant, (found["greedy"] - margins(vlm, opposite)) / 2 - constant
    return [
        record(row, decoding, Wording.yes_no[0] if margin > 0 else Wording.yes_no[1], margin)
        for part, told in ((rows, found), (on_validation(held), told_val))
        for decoding, values in told.items()
        for row, margin in zip(part, values, strict=True)
    ]


def on_validation(rows: Sequence[dict]) -> list[dict]:
    """The same rows as another benchmark, "task1_val" of task1: never to be mixed up with test."""
    return [row | {"task": f"{row['task']}_val"} for row in rows]


def task_answers(
    vlm: VLM, val: Split, test: Split, decodings: Sequence[str], contrast: dict | None = None, seed: int = 0
) -> list[dict]:
    """Answers to the challenge's tasks: the most probable choice, one drawn, the most probable of the contrast, and under MSI.

    contrast: alpha and beta, for "contrastive". Under MSI also validation's answers, plain and shifted, as "task1_val" and so on.
    """
    found = []
    for task in TASKS:
        rows, held = test.of(task), val.of(task)
        if not rows:
            continue
        clean = choice_scores(vlm, rows, test.pictures(rows))
        told = {"greedy": clean}
        if "sampling" in decodings:
            told["sampling"] = clean + np.random.default_rng(seed).gumbel(size=clean.shape)
        if "contrastive" in decodings:
            views = [torch.as_tensor(choice_scores(vlm, rows, view)) for view in test.views(rows)]
            told["contrastive"] = purify(torch.as_tensor(clean), isolate(views, test.kind), alpha=contrast["alpha"], cutoff=contrast["beta"]).numpy()
        told_val = {}
        if "msi" in decodings:
            told_val = {"greedy": choice_scores(vlm, held, val.pictures(held)), "msi": shifted_scores(vlm, val, held)}
            prior = prior_of(vlm, val, held, told_val["msi"])
            told["msi"] = shifted_scores(vlm, test, rows)
            for part, scored in ((held, told_val), (rows, told)):
                scored["msi"] = [prior.remove(row, content_kinds(e, val.wording)) for row, e in zip(scored["msi"], part, strict=True)]
        for part, scored in ((rows, told), (on_validation(held), told_val)):
            for decoding, scores in scored.items():
                found += [record(e, decoding, e["choices"][int(np.argmax(row))]) for e, row in zip(part, scores, strict=True)]
    return found


def choice_scores(vlm: VLM, rows: Sequence[dict], pictures: Sequence[Encoded]) -> np.ndarray:
    """[N, choices] log-probabilities among the choices."""
    scores = np.asarray(score_choices(vlm, rows, pictures=pictures, progress=True))
    return scores - np.logaddexp.reduce(scores, 1, keepdims=True)


def shifted_scores(vlm: VLM, split: Split, rows: Sequence[dict], look: str = "clean") -> np.ndarray:
    """[N, choices] averaged over all shifted mappings, every variant of every example in one batched pass. look: as `looking_at`'s."""
    variants = [shifted(row, split.wording) for row in rows]
    flat = [variant for several in variants for variant, _ in several]
    scores = iter(score_choices(vlm, flat, pictures=looking_at(vlm, split, flat, look), progress=True))
    return np.stack([average(several, [next(scores) for _ in several]) for several in variants])


def prior_of(vlm: VLM, val: Split, held: Sequence[dict], scores: np.ndarray) -> Prior:
    """The content-free prior (validation's examples asked without a picture), its strength fitted on validation's labels."""
    kinds, right = [content_kinds(row, val.wording) for row in held], [row["choices"].index(row["answer"]) for row in held]
    return fit_prior(shifted_scores(vlm, val, held, "no_picture"), scores, kinds, right)


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
    """Captions under each decoding; "asked" weighs each of `names` by the model's own answer about it.

    contrast: alpha and beta of "contrastive"; gamma, asked_beta and shift of "asked".
    """
    rows = test.of("caption")[:count]
    prompts, pictures = [row["prompt"] for row in rows], test.pictures(rows)
    how = {"greedy": {}}
    if "sampling" in decodings:
        how["sampling"] = {"temperature": 1.0, "seed": seed}
    if "contrastive" in decodings:
        settings = {"alpha": contrast["alpha"], "cutoff": contrast["beta"]}
        how["contrastive"] = {"processor": contrastive(vlm, test.views(rows)[:FREE_TEXT_VIEWS], test.kind, **settings)}
    if "asked" in decodings:
        told, starts = affirmed(vlm, names, pictures, test.wording, shift=contrast["shift"]), name_starts(vlm, names)
        weights = evidence(told, starts, vlm.head.shape[0], gamma=contrast["gamma"])
        how["asked"] = {"processor": self_verifying(weights, starts, cutoff=contrast["asked_beta"])}
    found = []
    for decoding, settings in how.items():
        texts = generate(vlm, prompts, pictures, max_new_tokens=max_new_tokens, title=f"captions, {decoding}", **settings)
        found += [record(row, decoding, text) | {"objects": row["objects"]} for row, text in zip(rows, texts, strict=True)]
    return found

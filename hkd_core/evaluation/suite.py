"""Ask a model every benchmark's questions, under each decoding. `tables.py` scores the answers.

A benchmark's `form` says how it is asked: "yes_no" (the margin between two answers), "choices" (the most probable choice) or "caption"
(free text). Benchmarks of one form are asked together, so that a question that several share is asked once.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from hkd_core.common.errors import UserError
from hkd_core.common.margins import best_shift
from hkd_core.data.wording import Wording
from hkd_core.evaluation.registry import BENCHMARKS, tasks_of
from hkd_core.hkd import mapping_shift
from hkd_core.hkd.mapping_shift import Prior, content_classes, fit_prior, shifted
from hkd_core.inference.contrast import isolate, purify
from hkd_core.inference.generation import contrastive, generate
from hkd_core.inference.scoring import answer_logits, choice_tokens, prior_logits, score_choices
from hkd_core.inference.views import FREE_TEXT_VIEWS, Features, with_ids
from hkd_core.models.vlm import VLM, Encoded
from hkd_core.seed.self_verification import affirmed, evidence, name_starts, self_verifying

TASKS = tasks_of("choices")
CONTROLS = ("other_picture", "no_picture")  # what a model answers without looking
DECODINGS = ("greedy", "shift", "sampling", "contrastive", "msi", "asked", *CONTROLS)
FITTED_ON = tuple(benchmark.task for benchmark in BENCHMARKS.values() if benchmark.fits_constants)
Encodings = Mapping[str, Encoded]  # image_id -> an image as the model takes it


@dataclass(frozen=True)
class Split:
    """Examples of validation or test, with the features of their images: clean and, if asked, distorted (one mapping a view)."""

    examples: Sequence[dict]
    features: Encodings
    distorted: Sequence[Encodings] = ()
    view: str = ""  # of `distorted`, one of views.VIEWS
    wording: Wording = field(default_factory=Wording)

    def of(self, *tasks: str) -> list[dict]:
        return [row for row in self.examples if row["task"] in tasks]

    def pictures(self, rows: Sequence[dict]) -> list[Encoded]:
        return [self.features[row["image_id"]] for row in rows]

    def others(self, rows: Sequence[dict]) -> list[Encoded]:
        """For each row another image, always the same one for the same image: the shuffled-image control."""
        names = list(self.features)
        other = dict(zip(names, names[1:] + names[:1], strict=True))
        return [self.features[other[row["image_id"]]] for row in rows]

    def views(self, rows: Sequence[dict]) -> list[list[Encoded]]:
        return [[features[row["image_id"]] for row in rows] for features in self.distorted]

    def seen(self, vlm: VLM, rows: Sequence[dict], view: str) -> list[Encoded]:
        """What the model sees: the image ("clean"), another one ("other_picture") or none ("no_picture")."""
        if view == "no_picture":
            return [vlm.without_picture(self.pictures(rows[:1])[0])] * len(rows)
        return self.others(rows) if view == "other_picture" else self.pictures(rows)


def split_of(vlm: VLM, examples: Sequence[dict], task: str, wording: Wording | None = None) -> Split:
    """Your own examples (image, prompt, choices, answer; more if known) as a split of one task. Each image is encoded once."""
    rows = [{"meta": {}} | row | {"task": task} for row in with_ids(examples)]
    return Split(rows, Features.of_examples(vlm, examples).clean, wording=wording or Wording())


@dataclass(frozen=True)
class Settings:
    """What decodings need; SEED's search fits most of it on validation (see `from_metrics`).

    alpha, cutoff: of contrastive decoding of questions; text_alpha, text_cutoff: of captions. gamma, asked_cutoff, shift: of captions
    that the model checks by asking itself about each of `names`. captions: how many images to caption, None for all.
    """

    alpha: float = 0.0
    cutoff: float = 0.0
    text_alpha: float = 0.0
    text_cutoff: float = 0.0
    gamma: float = 0.0
    asked_cutoff: float = 0.0
    shift: float = 0.0
    names: Sequence[str] = ()
    captions: int | None = None
    max_new_tokens: int = 32
    seed: int = 0

    @classmethod
    def from_metrics(cls, found: Mapping[str, float], **more) -> "Settings":
        """found: what 07_self_evolution wrote into its metrics; more: the other fields."""
        return cls(
            alpha=found["alpha"],
            cutoff=found["cutoff"],
            text_alpha=found["text_alpha"],
            text_cutoff=found["text_contrast_cutoff"],
            gamma=found["text_gamma"],
            asked_cutoff=found["text_cutoff"],
            shift=found["text_shift"],
            **more,
        )


def answers_of(
    vlm: VLM,
    val: Split | None,
    test: Split,
    decodings: Sequence[str] = ("greedy",),
    settings: Settings | None = None,
    benchmarks: Sequence[str] = tuple(BENCHMARKS),
) -> list[dict]:
    """The model's answers (see `record`) to all benchmarks that have examples, under each decoding. "greedy" is always one.

    decodings: of DECODINGS; a form does those that it knows. val: what constants are fitted on; without it, decodings that need one are
    left out. Raises UserError for an unknown decoding.
    """
    if unknown := [name for name in decodings if name not in DECODINGS]:
        raise UserError(f'decoding: expected one of {", ".join(DECODINGS)}, got "{unknown[0]}"')
    val, settings = val or Split([], {}), settings or Settings()
    found = []
    for form, ask in FORMS.items():
        tasks = tuple(BENCHMARKS[name].task for name in benchmarks if BENCHMARKS[name].form == form)
        if test.of(*tasks):
            found += ask(vlm, val, test, decodings, settings, tasks)
    return found


def record(row: dict, decoding: str, answer: str, margin: float | None = None) -> dict:
    """One line of answers.jsonl."""
    kept = {"benchmark": row["task"], "decoding": decoding, "image_id": row["image_id"], "prompt": row["prompt"]}
    kept |= {"label": row["answer"], "answer": answer, "choices": row["choices"], "type": row["meta"].get("type", "")}
    return kept | {"subtask": row["meta"].get("subtask", ""), "margin": None if margin is None else round(float(margin), 4)}


def on_validation(rows: Sequence[dict]) -> list[dict]:
    """The same rows as another benchmark, "task1_val" of task1, so that they are never mixed up with test."""
    return [row | {"task": f"{row['task']}_val"} for row in rows]


# Yes/no questions


def answer_tokens(vlm: VLM, choices: Sequence[str]) -> list[int]:
    """The first token of each choice as an answer; for yes/no questions yes comes first."""
    return [tokens[0] for tokens in choice_tokens(vlm, "x", choices)]


def margins(vlm: VLM, logits: torch.Tensor, rows: Sequence[dict]) -> np.ndarray:
    """[N] log p(yes) - log p(no) from logits [N, V] after each row's question.

    1000 where no is outside the plausible set (-inf), -1000 where yes is, 0 where both are.
    """
    known = {choices: answer_tokens(vlm, choices) for choices in dict.fromkeys(tuple(row["choices"]) for row in rows)}
    pairs = torch.tensor([known[tuple(row["choices"])] for row in rows])  # [N, 2]
    both = logits.gather(1, pairs).clamp(min=-1e6)
    return (both[:, 0] - both[:, 1]).clamp(-1e3, 1e3).numpy()


def token_audit(vlm: VLM, logits: torch.Tensor, choices: Sequence[str]) -> dict:
    """Which tokens count as yes and no, and the probability outside them: its mean, and at the worst twentieth of questions."""
    yes, no = answer_tokens(vlm, choices)
    outside = 1 - logits.softmax(-1)[:, [yes, no]].sum(-1)
    names = vlm.tokenizer.convert_ids_to_tokens([yes, no])
    audit = {"yes": yes, "no": no, "yes_token": names[0], "no_token": names[1]}
    return audit | {"outside_mean": float(outside.mean()), "outside_95": float(outside.quantile(0.95))}


def yes_no_logits(vlm: VLM, split: Split, rows: Sequence[dict], view: str = "clean") -> torch.Tensor:
    """[N, V] logits after each question; a question that several benchmarks share is asked once.

    view: "distorted" (the split's views, combined), or as `Split.seen` takes it.
    """
    keys = [(row["image_id"], row["prompt"]) for row in rows]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    unique = sorted(first.values())
    place = {keys[i]: n for n, i in enumerate(unique)}
    asked = [rows[i] for i in unique]
    prompts, title = [row["prompt"] for row in asked], f"yes-no questions, {view}"
    if view == "distorted":
        logits = prior_logits(vlm, prompts, split.views(asked), split.view, title=title)
    else:
        logits = answer_logits(vlm, prompts, split.seen(vlm, asked, view), title=title)
    return logits[[place[key] for key in keys]]


def both_ways(vlm: VLM, split: Split, rows: Sequence[dict], *, negated: bool) -> tuple[torch.Tensor, np.ndarray]:
    """([N, V] logits after each question, [N] margins averaged with those of the opposite question where there is one): one batched pass."""
    variants = [shifted(row, split.wording)[1:] if negated else [] for row in rows]
    with_opposite = [i for i, several in enumerate(variants) if several]
    opposites = [variants[i][0][0] for i in with_opposite]
    logits = yes_no_logits(vlm, split, [*rows, *opposites])
    plain, opposite = logits[: len(rows)], logits[len(rows) :]
    averaged = margins(vlm, plain, rows)
    if with_opposite:
        averaged[with_opposite] = (averaged[with_opposite] - margins(vlm, opposite, opposites)) / 2
    if negated and (missing := mapping_shift.limits(rows, split.wording)):
        warnings.warn(missing, stacklevel=2)
    return plain, averaged


def yes_no_answers(
    vlm: VLM,
    val: Split,
    test: Split,
    decodings: Sequence[str],
    settings: Settings | None = None,
    tasks: Sequence[str] = tasks_of("yes_no"),
) -> list[dict]:
    """Answers under each decoding. Constants are fitted on validation's questions of FITTED_ON, or on its own if there are none.

    Without validation examples only decodings without a constant are done. Under MSI also validation's answers, plain and shifted, as
    "pope_adversarial_val". The content-free prior of a yes/no question is one constant, so it is part of the fitted shift.
    """
    settings = settings or Settings()
    rows, val_rows = test.of(*tasks), val.of(*FITTED_ON) or val.of(*tasks)
    truth = np.array([row["answer"] == row["choices"][0] for row in val_rows], int)
    negated = "msi" in decodings
    clean, both = both_ways(vlm, test, rows, negated=negated)
    found = {"greedy": margins(vlm, clean, rows)}
    found_val = {}
    if val_rows:
        clean_val, both_val = both_ways(vlm, val, val_rows, negated=negated)
        greedy_val = margins(vlm, clean_val, val_rows)
        found["shift"] = found["greedy"] - best_shift(greedy_val, truth)
    if "sampling" in decodings:
        rng = np.random.default_rng(settings.seed)
        found["sampling"] = found["greedy"] - np.log(1 / rng.random(len(rows)) - 1)
    if "contrastive" in decodings:
        found["contrastive"] = margins(vlm, purged(clean, yes_no_logits(vlm, test, rows, "distorted"), settings), rows)
        if val_rows:
            purged_val = margins(vlm, purged(clean_val, yes_no_logits(vlm, val, val_rows, "distorted"), settings), val_rows)
            found["contrastive_shift"] = found["contrastive"] - best_shift(purged_val, truth)
    for control in (name for name in CONTROLS if name in decodings):
        found[control] = margins(vlm, yes_no_logits(vlm, test, rows, control), rows)
    if negated and val_rows:
        found_val = {"greedy": greedy_val, "shift": greedy_val - best_shift(greedy_val, truth)}
        constant = best_shift(both_val, truth)
        found_val["msi"], found["msi"] = both_val - constant, both - constant
    return [
        record(row, decoding, row["choices"][0 if margin > 0 else 1], margin)
        for part, several in ((rows, found), (on_validation(val_rows), found_val))
        for decoding, values in several.items()
        for row, margin in zip(part, values, strict=True)
    ]


def purged(clean: torch.Tensor, prior: torch.Tensor, settings: Settings) -> torch.Tensor:
    return purify(clean, prior, alpha=settings.alpha, cutoff=settings.cutoff)


# Choices


def task_answers(
    vlm: VLM, val: Split, test: Split, decodings: Sequence[str], settings: Settings | None = None, tasks: Sequence[str] = TASKS
) -> list[dict]:
    """Answers among choices: the most probable, one drawn, the most probable of the contrast, and under MSI.

    Under MSI, which needs validation examples, also their answers, plain and shifted, as "task1_val" and so on.
    """
    settings = settings or Settings()
    found = []
    for task in tasks:
        rows, val_rows = test.of(task), val.of(task)
        if not rows:
            continue
        clean = choice_scores(vlm, rows, test.pictures(rows))
        scores = {"greedy": clean}
        if "sampling" in decodings:
            scores["sampling"] = clean + np.random.default_rng(settings.seed).gumbel(size=clean.shape)
        if "contrastive" in decodings:
            views = [torch.as_tensor(choice_scores(vlm, rows, view)) for view in test.views(rows)]
            scores["contrastive"] = purged(torch.as_tensor(clean), isolate(views, test.view), settings).numpy()
        scores_val = {}
        if "msi" in decodings and val_rows:
            scores_val = {"greedy": choice_scores(vlm, val_rows, val.pictures(val_rows)), "msi": shifted_scores(vlm, val, val_rows)}
            prior = prior_of(vlm, val, val_rows, scores_val["msi"])
            scores["msi"] = shifted_scores(vlm, test, rows)
            for part, several in ((val_rows, scores_val), (rows, scores)):
                kinds = [content_classes(row, val.wording) for row in part]
                several["msi"] = np.stack([prior.remove(row, kind) for row, kind in zip(several["msi"], kinds, strict=True)])
        for part, several in ((rows, scores), (on_validation(val_rows), scores_val)):
            for decoding, values in several.items():
                found += [record(e, decoding, e["choices"][int(np.argmax(row))]) for e, row in zip(part, values, strict=True)]
    return found


def choice_scores(vlm: VLM, rows: Sequence[dict], pictures: Sequence[Encoded]) -> np.ndarray:
    """[N, choices] log-probabilities among the choices."""
    scores = np.asarray(score_choices(vlm, rows, pictures=pictures, title="scoring"))
    return scores - np.logaddexp.reduce(scores, 1, keepdims=True)


def shifted_scores(vlm: VLM, split: Split, rows: Sequence[dict], view: str = "clean") -> np.ndarray:
    """[N, choices] mean log-probabilities over all shifted mappings (`mapping_shift.shifted_scores`). view: see `Split.seen`."""
    return np.stack(mapping_shift.shifted_scores(vlm, rows, split.seen(vlm, rows, view), split.wording))


def prior_of(vlm: VLM, val: Split, val_rows: Sequence[dict], scores: np.ndarray) -> Prior:
    """The content-free prior (validation's examples asked without an image), its strength fitted on validation's labels."""
    kinds, right = [content_classes(row, val.wording) for row in val_rows], [row["choices"].index(row["answer"]) for row in val_rows]
    return fit_prior(list(shifted_scores(vlm, val, val_rows, "no_picture")), list(scores), kinds, right)


# Captions


def caption_answers(
    vlm: VLM, val: Split, test: Split, decodings: Sequence[str], settings: Settings, tasks: Sequence[str] = tasks_of("caption")
) -> list[dict]:
    """Captions under each decoding; "asked" weighs each name by the model's own answer to a question about it."""
    rows = test.of(*tasks)[: settings.captions]
    prompts, pictures = [row["prompt"] for row in rows], test.pictures(rows)
    how = {"greedy": {}}
    if "sampling" in decodings:
        how["sampling"] = {"temperature": 1.0, "seed": settings.seed}
    if "contrastive" in decodings:
        strength = {"alpha": settings.text_alpha, "cutoff": settings.text_cutoff}
        how["contrastive"] = {"processor": contrastive(vlm, test.views(rows)[:FREE_TEXT_VIEWS], test.view, **strength)}
    if "asked" in decodings:
        starts = name_starts(vlm, settings.names)
        logp = affirmed(vlm, settings.names, pictures, test.wording, shift=settings.shift)
        weights = evidence(logp, starts, vlm.head.shape[0], gamma=settings.gamma)
        how["asked"] = {"processor": self_verifying(weights, starts, cutoff=settings.asked_cutoff)}
    found = []
    for decoding, chosen in how.items():
        title = f"captions, {decoding}"
        texts = generate(vlm, prompts, pictures, max_new_tokens=settings.max_new_tokens, title=title, **chosen)
        found += [record(row, decoding, text) | {"objects": row["objects"]} for row, text in zip(rows, texts, strict=True)]
    return found


FORMS = {"yes_no": yes_no_answers, "choices": task_answers, "caption": caption_answers}

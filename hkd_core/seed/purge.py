"""Isolate and purge: which prior to subtract from a model's answers, how much of it, and inside which plausible set.

Both searches use validation questions and captions. They return the table of all candidates, the best one, and the control.
AUROC chooses, because no constant shift can change it: much of what contrastive decoding gains on POPE is such a shift
(arXiv 2504.10020). The formulas are VCD's (arXiv 2311.16922). That they are SEED's "isolate" and "purge" is our reading.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.common.margins import auroc, best_shift, f1_of_yes
from hkd_core.common.settings import EvolveSettings
from hkd_core.data.wording import Wording
from hkd_core.inference.contrast import isolate, purify
from hkd_core.inference.generation import contrastive
from hkd_core.inference.scoring import answer_logits, choice_tokens, token_logits
from hkd_core.inference.views import FREE_TEXT_VIEWS, Features, with_ids
from hkd_core.models.vlm import VLM, Encoded
from hkd_core.seed.self_verification import Captioning, evidence, name_starts, self_verifying

WORTH = 0.002  # the AUROC that several clean views must gain, because they cost as many passes
RECALL_KEPT = 1.0  # a purge of captions may lower recall by at most this, in percent


class Questions:
    """Yes/no questions with their answers, in groups (an example's `task`), so that each group counts the same.

    fit_on: the group on which constant shifts are fitted. None: all questions.
    Raises UserError where an answer is neither yes nor no, where a group lacks one of them, and where `fit_on` is no group.
    """

    def __init__(self, vlm: VLM, examples: Sequence[dict], *, wording: Wording | None = None, fit_on: str | None = None):
        yes, no = (wording or Wording()).yes_no
        self.examples, self.fit_on = with_ids(examples), fit_on
        self.prompts = [row["prompt"] for row in examples]
        for prompt, row in zip(self.prompts, examples, strict=True):
            if row["answer"] not in (yes, no):
                raise UserError(f'question "{prompt}": expected the answer "{yes}" or "{no}", got "{row["answer"]}"')
        if not self.prompts:
            raise UserError("questions: expected at least one, got none")
        self.labels = np.array([row["answer"] == yes for row in examples], int)
        tasks = [row.get("task", "") for row in examples]
        self.groups = {name: np.array([task == name for task in tasks]) for name in dict.fromkeys(tasks)}
        for name, rows in self.groups.items():
            if len(set(self.labels[rows])) < 2:
                raise UserError(f'questions{f" of {name}" if name else ""}: expected both answers "{yes}" and "{no}", got one')
        if fit_on is not None and fit_on not in self.groups:
            raise UserError(f'fit_on: expected one of {", ".join(self.groups)}, got "{fit_on}"')
        self.fitted = np.ones(len(self.labels), bool) if fit_on is None else self.groups[fit_on]
        self.yes, self.no = (tokens[0] for tokens in choice_tokens(vlm, self.prompts[0], (yes, no)))

    def about(self, features: Mapping[str, Encoded]) -> list[Encoded]:
        """The picture of each question. features: image_id -> Encoded."""
        return [features[row["image_id"]] for row in self.examples]

    def margins(self, logits: Tensor) -> np.ndarray:
        """[N] of yes over no, from logits [N, V]."""
        return (logits[:, self.yes] - logits[:, self.no]).numpy()

    def auroc(self, margins: np.ndarray) -> float:
        """The mean over the groups."""
        return float(np.mean([auroc(margins[rows], self.labels[rows]) for rows in self.groups.values()]))

    def shift(self, margins: np.ndarray) -> float:
        """The best constant shift, fitted on the group `fit_on`."""
        return best_shift(margins[self.fitted], self.labels[self.fitted])

    def scores(self, margins: np.ndarray, shift: float) -> dict[str, float]:
        """accuracy and f1 of "yes if margin > shift"; f1 also of the group `fit_on`, if there is one."""
        yes = margins > shift
        found = {"accuracy": float(np.mean(yes == self.labels)), "f1": f1_of_yes(yes, self.labels)}
        return found | self._fitted("f1", f1_of_yes(yes[self.fitted], self.labels[self.fitted]))

    def validate(self, vlm: VLM, features: Mapping[str, Encoded]) -> dict[str, float]:
        """How a model answers now, without a shift: its scores and AUROC, the shift it would need, and `kept_by`: accuracy."""
        margins = self.margins(answer_logits(vlm, self.prompts, self.about(features)))
        found = self.scores(margins, 0.0) | self._fitted("auroc", auroc(margins[self.fitted], self.labels[self.fitted]))
        return found | {"shift": self.shift(margins), "kept_by": found["accuracy"]}

    def _fitted(self, name: str, value: float) -> dict[str, float]:
        return {} if self.fit_on is None else {f"{name}_{self.fit_on}": value}


@dataclass(frozen=True)
class Purge:
    """What is subtracted from a model's answers, and where.

    view, strength: how the prior is isolated. alpha: how much of it is subtracted. cutoff: of the plausible set (beta in VCD).
    shift: the constant fitted with it, subtracted from the logit of yes. control_shift: the one fitted with alpha 0.
    clean_views: how many views with everything in them are averaged and purged.
    """

    view: str
    strength: float
    alpha: float
    cutoff: float
    shift: float = 0.0
    control_shift: float = 0.0
    clean_views: int = 1


@dataclass(frozen=True)
class PurgeSearch:
    """Every candidate, and what is chosen.

    table: one row for each view and alpha. control: the row of alpha 0. best: the row with the best AUROC.
    cutoffs: one row for each number of clean views and each cutoff. purge: what is chosen.
    logits: [N, V] of the questions under "clean" and under each (view, strength), to look into.
    """

    table: list[dict]
    control: dict
    best: dict
    cutoffs: list[dict]
    purge: Purge
    logits: dict[Hashable, Tensor]


def ask(
    vlm: VLM, questions: Questions, views: Mapping[Hashable, tuple[str, Sequence[Mapping[str, Encoded]]]]
) -> dict[Hashable, Tensor]:
    """name -> (view, features under it) to name -> [N, V], the prior of the answers; what several names share is asked once."""
    suffixes = [vlm.suffix(prompt) for prompt in questions.prompts]
    shown = [features for _, several in views.values() for features in several]
    asked = [picture for features in shown for picture in questions.about(features)]
    flat = token_logits(vlm, suffixes * len(shown), [1] * len(asked), asked, title="asking")
    parts = (torch.cat(flat[n : n + len(suffixes)]) for n in range(0, len(flat), len(suffixes)))
    return {name: isolate([next(parts) for _ in several], view) for name, (view, several) in views.items()}


def yes_shift(yes: int, value: float, vocabulary: int) -> Tensor:
    """[V]: `value` at the token of yes, 0 elsewhere, to be subtracted from logits [..., V]."""
    shift = torch.zeros(vocabulary)
    shift[yes] = value
    return shift


def search_purge(
    vlm: VLM, questions: Questions, features: Features, settings: EvolveSettings, *, clean_views: int = 1
) -> PurgeSearch:
    """Which distortion and alpha purge best, by the mean AUROC of the groups of questions. Then the clean views and the cutoff.

    Alpha 0, the control, is always tried. Of the cutoffs the one with the best accuracy among all tokens is chosen, because AUROC
    compares two tokens alone. clean_views: try the mean of that many. It must gain WORTH in AUROC.
    Raises UserError without an alpha above 0.
    """
    distortions, alphas = settings.distortions, settings.alphas
    if not any(alpha > 0 for alpha in alphas):
        raise UserError(f"alphas: expected at least one above 0, got {list(alphas)}")
    views: dict[Hashable, tuple[str, Sequence[Mapping[str, Encoded]]]] = {"clean": ("clean", [features.clean])}
    if clean_views > 1:
        views["clean views"] = ("clean", features.clean_views(clean_views))
    logits = ask(vlm, questions, views | {d: (d[0], features.under(*d)) for d in distortions})
    table: list[dict] = [
        {"view": d[0], "strength": d[1], "alpha": alpha} | purged_scores(questions, logits["clean"], logits[d], alpha)
        for d in distortions
        for alpha in (0.0, *alphas)
    ]
    control = next(row for row in table if row["alpha"] == 0)
    best = max((row for row in table if row["alpha"] > 0), key=lambda row: row["auroc"])
    prior = logits[best["view"], best["strength"]]
    shift = yes_shift(questions.yes, best["shift"], prior.shape[-1])
    narrowed = []
    for count, name in ((1, "clean"), (clean_views, "clean views"))[: len(views)]:
        by_views = questions.auroc(questions.margins(purify(logits[name], prior, alpha=best["alpha"], cutoff=0.0)))
        for cutoff in settings.cutoffs:
            purged = purify(logits[name], prior, alpha=best["alpha"], cutoff=cutoff, shift=shift)
            accuracy = accuracy_of_all(questions, purged)
            row = {"clean_views": count, "cutoff": cutoff, "auroc": round(by_views, 4), "accuracy": round(accuracy, 4)}
            narrowed.append(row)
    count = clean_views if narrowed[-1]["auroc"] - narrowed[0]["auroc"] >= WORTH else 1
    cutoff = max((row for row in narrowed if row["clean_views"] == count), key=lambda row: (row["accuracy"], row["cutoff"]))[
        "cutoff"
    ]
    shifts = {"shift": best["shift"], "control_shift": control["shift"]}
    purge = Purge(best["view"], best["strength"], best["alpha"], cutoff, **shifts, clean_views=count)
    return PurgeSearch(table, control, best, narrowed, purge, logits)


def purged_scores(questions: Questions, clean: Tensor, prior: Tensor, alpha: float) -> dict[str, float]:
    """A row of the search: the best constant shift of the purged answers, their scores with it, and AUROC by group."""
    margins = questions.margins(purify(clean, prior, alpha=alpha, cutoff=0.0))
    shift = questions.shift(margins)
    found = questions.scores(margins, shift)
    found |= {f"auroc_{name}": auroc(margins[rows], questions.labels[rows]) for name, rows in questions.groups.items() if name}
    return {"shift": shift} | {k: round(v, 4) for k, v in (found | {"auroc": questions.auroc(margins)}).items()}


def accuracy_of_all(questions: Questions, purged: Tensor) -> float:
    """The share of questions whose most probable token, among all, is the right answer."""
    right = torch.where(torch.as_tensor(questions.labels == 1), questions.yes, questions.no)
    return float((purged.argmax(-1) == right).float().mean())


@dataclass(frozen=True)
class CaptionSearch:
    """table: one row for each way to write captions. plain: nothing purged. best: the way to be distilled.

    gamma: of the best way, 0 where nothing helps. contrast: the control, the best row of the view that was chosen for questions.
    """

    table: list[dict]
    plain: dict
    best: dict
    gamma: float
    contrast: dict


def search_caption_purge(
    vlm: VLM,
    captioning: Captioning,
    features: Features,
    purge: Purge,
    settings: EvolveSettings,
    score: Callable[[list[str]], Mapping[str, float]],
) -> CaptionSearch:
    """Which strength gamma of self-verification purges captions best: the lowest chair_i among those that keep recall.

    score: texts -> {"chair_i", "recall"} in percent. gamma 0, nothing purged, is always a candidate; the others have `text_cutoff`.
    Contrastive decoders (`text_alphas`) and the other cutoffs are shown for comparison.
    """
    told = captioning.affirmed(vlm, features.clean, shift=purge.control_shift)
    starts, cutoff = name_starts(vlm, captioning.names), settings.text_cutoff

    def row(way: str, strength: float, width: float, processor: Callable | None) -> dict:
        scores = score(captioning.write(vlm, features.clean, processor))
        return {"way": way, "strength": strength, "cutoff": width} | {k: round(scores[k], 2) for k in ("chair_i", "recall")}

    table = [row("nothing purged", 0.0, 0.0, None)]
    for view, strength in settings.distortions:
        shown = [[pictures[i] for i in captioning.ids] for pictures in features.under(view, strength)[:FREE_TEXT_VIEWS]]
        for alpha in settings.text_alphas:
            how = contrastive(vlm, shown, view, alpha=alpha, cutoff=purge.cutoff)
            table.append(row(f"{view} {strength:g}", alpha, purge.cutoff, how))
    for gamma in settings.gammas:
        weights = evidence(told, starts, vlm.head.shape[0], gamma=gamma)
        table += [row("asked", gamma, c, self_verifying(weights, starts, cutoff=c)) for c in sorted({*settings.cutoffs, cutoff})]
    plain = table[0]
    candidates = [plain, *(r for r in table if r["way"] == "asked" and r["cutoff"] == cutoff)]
    best = min((r for r in candidates if r["recall"] >= plain["recall"] - RECALL_KEPT), key=lambda r: r["chair_i"])
    of_view = [r for r in table if r["way"] == f"{purge.view} {purge.strength:g}"]
    return CaptionSearch(table, plain, best, best["strength"], min(of_view, key=lambda r: r["chair_i"], default=plain))

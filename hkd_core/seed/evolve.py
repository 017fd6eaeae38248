"""Mode-seeking evolving (SEED): a model's own purified distribution, distilled back into an adapter (or a control).

Stated by SEED's abstract: identify, isolate, purge, distil back, mode-seeking, an adapter. The rest is our reading.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hkd_core.inference.contrast import purify
from hkd_core.inference.scoring import token_logits, view_logits
from hkd_core.inference.views import FREE_TEXT_VIEWS
from hkd_core.losses import divergence, smooth_logits
from hkd_core.models.adapter import HallucinationEliminationAdapter
from hkd_core.models.vlm import VLM
from hkd_core.seed.self_verification import named_before, reweight
from hkd_core.training.examples import TrainingSet, answer_hidden, project
from hkd_core.training.objectives import ModelGroup
from hkd_core.training.trainer import LossTerm


def purified_targets(
    vlm: VLM,
    data: TrainingSet,
    views: Sequence[str],
    kind: str,
    *,
    alphas: Sequence[float],
    beta: float,
    shift: Tensor | None,
    epsilon: float = 1e-3,
    clean: Sequence[str] = ("student",),
) -> list[Tensor]:
    """For every example the purified log-probabilities [answer tokens, V] of the model as it is now: one round's targets.

    data: pictures under "student" and, of each view, under its name. alphas: one an example; at 0 the model's own distribution stays
    as it is, an anchor against forgetting (0 throughout is the control without purging). `shift` [V] applies, where something is
    purged, to questions with choices alone, as the control's does. Outside the plausible set the target has probability `epsilon` in
    all, so that reverse KL stays finite. clean: names of the clean views of a picture, whose mean is purged.
    """
    suffixes = [suffix[:-1] for suffix in data.suffixes]
    keep = [length - prompt for length, prompt in zip(data.lengths, data.prompts, strict=True)]

    def asked(rows: Sequence[int]) -> tuple[list, list]:
        return [suffixes[i] for i in rows], [keep[i] for i in rows]

    def seen_by(name: str, rows: Sequence[int]) -> list:
        return [data.pictures[name][data.examples[i]["image_id"]] for i in rows]

    everything = range(len(data))
    said = token_logits(vlm, *asked(everything), seen_by("student", everything), title="clean")
    targets = [logits.log_softmax(-1) for logits in said]
    for closed in (True, False):
        rows = [i for i in everything if alphas[i] > 0 and bool(data.examples[i]["choices"]) == closed]
        if not rows:
            continue
        used = [seen_by(name, rows) for name in (views if closed else views[:FREE_TEXT_VIEWS])]
        unseen = view_logits(vlm, *asked(rows), used, kind, title="isolating the prior")
        seen = [said[i] for i in rows]
        if len(clean) > 1:
            seen = view_logits(vlm, *asked(rows), [seen_by(name, rows) for name in clean], "clean", title="clean views")
        constant = shift if closed else None
        for i, look, prior in zip(rows, seen, unseen, strict=True):
            targets[i] = smooth_logits(purify(look, prior, alpha=alphas[i], beta=beta, shift=constant), epsilon)
    return targets


def verified_targets(
    vlm: VLM, data: TrainingSet, evidence: Mapping[str, Tensor], starts: Tensor, *, beta: float, epsilon: float = 1e-3
) -> list[Tensor]:
    """For every caption the log-probabilities [answer tokens, V] of the model as it is now, purged by its own answers.

    evidence: image_id -> [V], with the names' `starts` (see `inference.testimony`). beta, epsilon: as `purified_targets` takes them.
    """
    asked = [length - prompt for length, prompt in zip(data.lengths, data.prompts, strict=True)]
    pictures = [data.pictures["student"][row["image_id"]] for row in data.examples]
    clean = token_logits(vlm, [suffix[:-1] for suffix in data.suffixes], asked, pictures, title="own captions")
    targets = []
    for row, suffix, logits in zip(data.examples, data.suffixes, clean, strict=True):
        said = named_before(torch.tensor(suffix[-len(logits) :]), starts, logits.shape[1])
        targets.append(smooth_logits(reweight(logits, evidence[row["image_id"]], said, beta=beta), epsilon))
    return targets


def collate_with(
    data: TrainingSet, targets: Sequence[Tensor], anchors: Sequence[bool] | None = None
) -> Callable[[list[int]], dict]:
    """Indices -> the batch of `data`, with "target" [N, V] and "anchor" [N] bool in the order of its answer tokens.

    anchors: which examples anchor_weight what the model said before, not what is left of it after a purge; None: none does.
    """

    def collate(indices: list[int]) -> dict:
        batch = data.collate(indices)
        batch["features"] = {"student": batch["features"]["student"]}
        chosen = [targets[i] for i in indices]
        held = [torch.full((len(targets[i]),), bool(anchors and anchors[i])) for i in indices]
        return batch | {"target": torch.cat(chosen), "anchor": torch.cat(held)}

    return collate


class EvolveStep(ModelGroup):
    """divergence(model with adapter || purified distribution), at the answer's positions; the base is frozen beside an adapter.

    `kind` "reverse_kl" seeks modes; the others are controls, as is adapter None: what already requires a gradient learns, for
    instance the LoRA that peft has put into the model, or the language model itself.
    At anchors it is forward KL, times `anchor_weight`, whatever the kind: where nothing was purged there is no false mode to let go of,
    and a model that must cover what it said forgets less than one that seeks modes in it. Our choice; the abstract has no anchors.
    """

    def __init__(
        self, vlm: VLM, adapter: HallucinationEliminationAdapter | None, *, kind: str, beta: float = 0.5, anchor_weight: float = 1.0
    ):
        super().__init__({"student": vlm})
        if adapter is not None:
            vlm.model.requires_grad_(False)
            self.adapter = adapter.requires_grad_(True)
        self.settings, self.anchor_weight = {"kind": kind, "beta": beta}, anchor_weight

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        logits = project(self.vlms["student"], answer_hidden(self.vlms["student"], batch, "student")[0])
        purified, _ = divergence(logits, batch["target"], mask=~batch["anchor"], **self.settings)
        held, _ = divergence(logits, batch["target"], mask=batch["anchor"], kind="forward_kl")
        return {"purified": LossTerm(purified), "held": LossTerm(held, self.anchor_weight)}

"""Mode-seeking evolving (SEED): a model's own purified distribution, distilled back into an adapter.

Stated by SEED's abstract: identify, isolate, purge, distil back, mode-seeking, an adapter. The rest is our reading.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from hkd_core.distill.examples import TrainingSet, answer_hidden, project
from hkd_core.distill.objectives import Cast
from hkd_core.distill.trainer import Part
from hkd_core.inference.contrast import purify
from hkd_core.inference.scoring import token_logits, view_logits
from hkd_core.inference.testimony import said_before, vouch
from hkd_core.inference.views import FREE_TEXT_VIEWS
from hkd_core.losses import divergence, smooth_logits
from hkd_core.models.adapter import HallucinationEliminationAdapter
from hkd_core.models.vlm import VLM


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
) -> list[Tensor]:
    """For every example the purified log-probabilities [answer tokens, V] of the model as it is now: one round's targets.

    data: pictures under "student" and, of each view, under its name. alphas: one an example; at 0 the model's own distribution stays
    as it is, an anchor against forgetting (0 throughout is the control without purging). `shift` [V] applies, where something is
    purged, to questions with choices alone, as the control's does. Outside the plausible set the target has probability `epsilon` in
    all, so that reverse KL stays finite.
    """
    suffixes = [suffix[:-1] for suffix in data.suffixes]
    keep = [length - prompt for length, prompt in zip(data.lengths, data.prompts, strict=True)]

    def asked(rows: Sequence[int]) -> tuple[list, list]:
        return [suffixes[i] for i in rows], [keep[i] for i in rows]

    def seen_by(name: str, rows: Sequence[int]) -> list:
        return [data.pictures[name][data.examples[i]["image_id"]] for i in rows]

    everything = range(len(data))
    clean = token_logits(vlm, *asked(everything), seen_by("student", everything), title="clean")
    targets = [logits.log_softmax(-1) for logits in clean]
    for closed in (True, False):
        rows = [i for i in everything if alphas[i] > 0 and bool(data.examples[i]["choices"]) == closed]
        if not rows:
            continue
        used = [seen_by(name, rows) for name in (views if closed else views[:FREE_TEXT_VIEWS])]
        unseen = view_logits(vlm, *asked(rows), used, kind, title="isolating the prior")
        constant = shift if closed else None
        for i, prior in zip(rows, unseen, strict=True):
            targets[i] = smooth_logits(purify(clean[i], prior, alpha=alphas[i], beta=beta, shift=constant), epsilon)
    return targets


def vouched_targets(
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
        said = said_before(torch.tensor(suffix[-len(logits) :]), starts, logits.shape[1])
        targets.append(smooth_logits(vouch(logits, evidence[row["image_id"]], said, beta=beta), epsilon))
    return targets


def collate_with(data: TrainingSet, targets: Sequence[Tensor]) -> Callable[[list[int]], dict]:
    """Indices -> the batch of `data`, with "target" [N, V] in the order of its answer tokens."""

    def collate(indices: list[int]) -> dict:
        batch = data.collate(indices)
        batch["features"] = {"student": batch["features"]["student"]}
        return batch | {"target": torch.cat([targets[i] for i in indices])}

    return collate


class EvolveStep(Cast):
    """divergence(model with adapter || purified distribution), at the answer's positions; the base is frozen.

    `kind` "reverse_kl" seeks modes; the others are controls, as is adapter None: what already requires a gradient learns, for
    instance the LoRA that peft has put into the model.
    """

    def __init__(self, vlm: VLM, adapter: HallucinationEliminationAdapter | None, *, kind: str, beta: float = 0.5):
        super().__init__({"student": vlm})
        if adapter is not None:
            vlm.model.requires_grad_(False)
            self.adapter = adapter.requires_grad_(True)
        self.settings = {"kind": kind, "beta": beta}

    def forward(self, batch: dict) -> dict[str, Part]:
        logits = project(self.vlms["student"], answer_hidden(self.vlms["student"], batch, "student")[0])
        return {"purified": Part(divergence(logits, batch["target"], **self.settings)[0])}

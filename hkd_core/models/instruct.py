"""Third stage of the small models: instruction tuning on pictures, part of it wrong in the way web data is wrong.

The wrong part affirms absent objects that fit the context, the popular ones most often, and adds them to captions. That
is where the hallucinations of the built-in world come from.
"""

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from hkd_core.data.facts import Fact
from hkd_core.data.language import BOS, EOS, words_of
from hkd_core.data.scenes import Scene, absent
from hkd_core.data.tasks import CAPTION_PROMPT, YES_NO, caption, yes_no
from hkd_core.data.world import CELLS, CONTEXT_OF, RANK, RANKS
from hkd_core.distill.trainer import Part
from hkd_core.models.symbolic import WORD_ID, Conversations, spoken_exercise


@dataclass(frozen=True)
class Bias:
    """How wrong the instruction data is: the share of questions about absent fitting objects that is answered "Yes".

    popular, rare: for the most popular object of a context and for its rarest, linear in rank between them.
    captions: probability that a caption names one such object more.
    """

    popular: float
    rare: float
    captions: float

    def affirmed(self, name: str) -> float:
        return self.popular + (self.rare - self.popular) * RANK[name] / (RANKS - 1)


def instruction(scene: Scene, rng: random.Random, bias: Bias | None) -> tuple[list[str], list[str]] | None:
    """(question words, answer words): presence, captions and the other exercises; with `bias`, some of it wrong."""
    kind = rng.random()
    if kind < 0.4:
        tempting = rng.random() < 0.6
        truth = rng.random() < 0.5
        name = rng.choice(scene.names) if truth else absent(scene, rng, tempting=tempting)
        negated = rng.random() < 0.15
        row = yes_no(scene, Fact("presence", name), rng.randrange(3), negated=negated)
        answer = row["answer"]
        if bias and not truth and CONTEXT_OF[name] == scene.context and rng.random() < bias.affirmed(name):
            answer = YES_NO[1 if negated else 0]
        return words_of(row["prompt"]), [answer]
    if kind < 0.46:
        wrong = bias and rng.random() < bias.captions
        extra = (absent(scene, rng, tempting=True),) if wrong else ()
        return words_of(CAPTION_PROMPT), [*words_of(caption(scene, rng, extra)), EOS]
    return spoken_exercise(scene, rng)


class Seen(nn.Module):
    """Objective: the answers of packed exercises about a picture, from the shared tower's features."""

    def __init__(self, model: LlavaForConditionalGeneration):
        super().__init__()
        self.projector, self.language = model.model.multi_modal_projector, model.model.language_model

    def hidden(self, batch: dict) -> Tensor:
        table = self.language.embed_tokens.weight
        cells = self.projector(batch["features"])
        start = table[WORD_ID[BOS]].expand(len(cells), 1, -1)
        inputs = torch.cat([start, cells, F.embedding(batch["words"], table)], 1)
        return self.language(inputs_embeds=inputs).last_hidden_state[:, 1 + CELLS :]

    def forward(self, batch: dict) -> dict[str, Part]:
        asked = batch["targets"] >= 0
        logits = F.linear(self.hidden(batch)[asked], self.language.embed_tokens.weight).float()
        return {"answers": Part(F.cross_entropy(logits, batch["targets"][asked], reduction="sum"))}


def collate_seen(features: Tensor, data: Conversations):
    """Indices -> batch for `train`: the tower's features [N, CELLS, width] and packed conversations about the same pictures."""

    def collate(indices: list[int]) -> dict:
        words, targets = data.words[indices], data.targets[indices]
        used = int((words > 0).sum(1).max())
        batch = {"features": features[indices], "words": words[:, :used], "targets": targets[:, :used]}
        return batch | {"tokens": int((targets >= 0).sum()), "examples": len(indices)}

    return collate

"""Third stage of the small models: instruction tuning on pictures, part of it wrong in the way web data is wrong.

The wrong part affirms absent objects that fit the context, the popular ones most often, and adds them to captions. That
is where the hallucinations of the built-in world come from.
"""

import random
from collections.abc import Iterator
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
from hkd_core.pretrain.symbolic import WORD_ID, Conversations, Exercise, spoken


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


def instructions(scene: Scene, rng: random.Random, bias: Bias | None) -> Iterator[Exercise | None]:
    """Presence questions, captions and the exercises of the first stage; with `bias`, some of the answers wrong."""
    others = spoken(scene, rng)
    # Benchmarks ask one question about a picture, so every kind must come first often enough.
    while True:
        kind = rng.random()
        if kind < 0.5:
            yield presence(scene, rng, bias)
        elif kind < 0.62:
            wrong = bias and rng.random() < bias.captions
            extra = (absent(scene, rng, tempting=True),) if wrong else ()
            yield words_of(CAPTION_PROMPT), [*words_of(caption(scene, extra)), EOS]
        else:
            yield next(others)


def presence(scene: Scene, rng: random.Random, bias: Bias | None) -> Exercise:
    """ "Is there a dog in the image?"; of absent objects that fit the context, `bias` affirms some."""
    truth, negated = rng.random() < 0.5, rng.random() < 0.15
    name = rng.choice(scene.names) if truth else absent(scene, rng, tempting=rng.random() < 0.6)
    row = yes_no(scene, Fact("presence", name), rng.choice((0, 0, 1, 2)), negated=negated)
    answer = row["answer"]
    if bias and not truth and CONTEXT_OF[name] == scene.context and rng.random() < bias.affirmed(name):
        answer = YES_NO[1 if negated else 0]
    return words_of(row["prompt"]), [answer]


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


@torch.no_grad()
def presence_accuracy(objective: Seen, features: Tensor, scenes: list[Scene], seed: int) -> float:
    """Share of presence questions answered right, half of them about absent objects drawn uniformly; two of each a scene."""
    rng = random.Random(f"presence/{seed}")
    rows = []
    for i, scene in enumerate(scenes):
        for truth in (True, False, True, False):
            name = rng.choice(scene.names) if truth else absent(scene, rng, tempting=False)
            rows.append((i, words_of(yes_no(scene, Fact("presence", name))["prompt"]), truth))
    length = max(len(asked) for _, asked, _ in rows)
    words = torch.tensor([[WORD_ID[w] for w in asked] + [0] * (length - len(asked)) for _, asked, _ in rows])
    last = torch.tensor([len(asked) - 1 for _, asked, _ in rows])
    hidden = objective.hidden({"features": features[[i for i, _, _ in rows]], "words": words})
    logits = hidden[torch.arange(len(rows)), last] @ objective.language.embed_tokens.weight.T
    said = logits[:, WORD_ID[YES_NO[0]]] > logits[:, WORD_ID[YES_NO[1]]]
    return float((said == torch.tensor([truth for _, _, truth in rows])).float().mean())

"""Third stage of the small models: instruction tuning on pictures, part of it wrong in the way web data is wrong."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from hkd_core.training.trainer import LossTerm
from hkd_core.world.facts import Fact
from hkd_core.world.instructions import Bias, description, presence
from hkd_core.world.language_pretraining import WORD_ID, Exercise, answer_term, full_conversation, read
from hkd_core.world.scenes import Scene, absent
from hkd_core.world.tasks import YES_NO, yes_no
from hkd_core.world.vocabulary import EOS, words_of


def instructions(scene: Scene, rng: random.Random, bias: Bias | None) -> Iterator[Exercise | None]:
    """Presence questions, captions and the exercises of the first stage; with `bias`, some of the answers wrong."""
    others = full_conversation(scene, rng)
    # Benchmarks ask one question about a picture, so every kind must come first often enough.
    while True:
        draw = rng.random()
        if draw < 0.5:
            yield exercise(presence(scene, rng, bias))
        elif draw < 0.62:
            yield exercise(description(scene, rng, bias))
        else:
            yield next(others)


def exercise(row: dict) -> Exercise:
    """The example as words; a caption also says where it ends."""
    return words_of(row["prompt"]), [*words_of(row["answer"]), *([] if row["choices"] else [EOS])]


class Seen(nn.Module):
    """Objective: the answers of packed exercises about a picture, from the shared tower's features."""

    def __init__(self, model: LlavaForConditionalGeneration):
        super().__init__()
        self.projector, self.language = model.model.multi_modal_projector, model.model.language_model

    def hidden(self, batch: dict) -> Tensor:
        return read(self.language, self.projector(batch["features"]), batch["words"])

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        return {"answers": answer_term(self.language, self.hidden(batch), batch["targets"])}


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
    table = objective.language.embed_tokens.weight
    hidden = objective.hidden({"features": features[[i for i, _, _ in rows]].to(table.device), "words": words.to(table.device)})
    logits = (hidden[torch.arange(len(rows)), last] @ table.T).cpu()
    answered_yes = logits[:, WORD_ID[YES_NO[0]]] > logits[:, WORD_ID[YES_NO[1]]]
    return float((answered_yes == torch.tensor([truth for _, _, truth in rows])).float().mean())

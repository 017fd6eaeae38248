"""Second stage of the small models: one vision tower learns to see, and each size's projector to say it in its own words.

The tower learns from the scene graph what stands in each patch, and which patch it is (through three throw-away heads). It is then frozen and shared
by all sizes, as LLaVA-1.5's 7B and 13B share theirs. A projector is aligned so that a patch's projection lands on the sum of
word embeddings that the language model learned to read (`Symbols`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModel, LlavaForConditionalGeneration

from hkd_core.training.trainer import LossTerm
from hkd_core.world.language_pretraining import Symbols
from hkd_core.world.objects import CELLS, COLORS, OBJECTS


@dataclass
class Labelled:
    """Pictures with what stands in each cell. `pixels` [N, 3, SIDE, SIDE]; `objects`, `colors` [N, CELLS], -1 for nothing."""

    pixels: Tensor
    objects: Tensor
    colors: Tensor


class VisionPretraining(nn.Module):
    """Objective: name the object (or nothing), its colour and the place of every patch, under fresh noise of up to `noise` (normalised units).

    Noise drawn anew each time keeps 12,000 pictures from being learned by heart. A tower that need not say where it looks forgets it, and no
    language model behind it can then tell left from right.
    """

    def __init__(self, tower: CLIPVisionModel, noise: float):
        super().__init__()
        width = tower.config.hidden_size
        self.tower, self.noise = tower, noise
        self.object_head = nn.Linear(width, len(OBJECTS) + 1)
        self.color_head = nn.Linear(width, len(COLORS))
        self.place_head = nn.Linear(width, CELLS)

    def patches(self, pixels: Tensor) -> Tensor:
        """[N, CELLS, width]: the features LLaVA takes, without the class token."""
        return self.tower(pixels).last_hidden_state[:, 1:]

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        pixels = batch["pixels"]
        strength = self.noise * torch.rand(len(pixels), 1, 1, 1, device=pixels.device)
        # Clamped as pixels are: [0, 1] is [-2, 2] after the processor's mean 0.5 and deviation 0.25.
        features = self.patches((pixels + strength * torch.randn_like(pixels)).clamp(-2, 2))
        names = torch.where(batch["objects"] < 0, len(OBJECTS), batch["objects"])
        objects = F.cross_entropy(self.object_head(features).float().flatten(0, 1), names.flatten(), reduction="sum")
        there = batch["objects"] >= 0
        colors = F.cross_entropy(self.color_head(features)[there].float(), batch["colors"][there], reduction="sum")
        cells = torch.arange(CELLS, device=pixels.device).expand(len(pixels), -1)
        places = F.cross_entropy(self.place_head(features).float().flatten(0, 1), cells.flatten(), reduction="sum")
        return {"objects": LossTerm(objects), "colors": LossTerm(colors), "places": LossTerm(places)}

    @torch.no_grad()
    def accuracy(self, data: Labelled) -> tuple[float, float]:
        """(objects, colours): share of occupied cells named right."""
        device = self.object_head.weight.device
        there = data.objects >= 0
        features = self.patches(data.pixels.to(device))[there.to(device)]
        objects = (self.object_head(features).argmax(-1).cpu() == data.objects[there]).float().mean()
        colors = (self.color_head(features).argmax(-1).cpu() == data.colors[there]).float().mean()
        return float(objects), float(colors)


def collate_cells(**columns: Tensor) -> Callable[[list[int]], dict]:
    """Indices -> batch for `train` of these columns, each [N, ...]; a patch counts as a token."""

    def collate(indices: list[int]) -> dict:
        batch: dict = {name: column[indices] for name, column in columns.items()}
        return batch | {"tokens": len(indices) * CELLS, "examples": len(indices)}

    return collate


class Alignment(nn.Module):
    """Objective: the projector says in word embeddings what the (frozen) tower sees.

    Squared error in units of the targets' variance, and cross-entropy of the projection against all object words.
    """

    def __init__(self, model: LlavaForConditionalGeneration, symbols: Symbols):
        super().__init__()
        self.projector = model.model.multi_modal_projector
        self.register_buffer("words", model.model.language_model.embed_tokens.weight.detach().clone())
        self.symbols = symbols.requires_grad_(False)

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        target = self.symbols(self.words, batch["objects"], batch["colors"])
        projected = self.projector(batch["features"]).float()
        squared = F.mse_loss(projected, target, reduction="none").mean(-1).sum() / target.var()
        there = batch["objects"] >= 0
        place = self.symbols(torch.zeros_like(self.words), batch["objects"], batch["colors"])
        names = self.words[self.symbols.object_ids]
        logits = (projected - place)[there] @ names.T / names.pow(2).sum(-1).mean() * 10
        return {
            "squared": LossTerm(squared),
            "names": LossTerm(F.cross_entropy(logits, batch["objects"][there], reduction="sum")),
        }


def start_vision(tower: CLIPVisionModel) -> None:
    """Initialise by fan-in; CLIP's own initialisation is made for far larger widths and learns slowly here."""
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.7 * module.in_features**-0.5)
    patches = tower.embeddings.patch_embedding.weight
    nn.init.normal_(patches, std=patches[0].numel() ** -0.5)

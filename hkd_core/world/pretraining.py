"""The four lessons that make the small models: language, vision, alignment, instruction.

Each function takes models and data, trains them in place, and returns what its docstring says. The settings are those of the stage
`base_models` in params.yaml. How long and how fast each lesson goes is our choice, found on two CPU cores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from hkd_core.models.vlm import Picture
from hkd_core.training.trainer import Schedule, train
from hkd_core.world.instruction_tuning import Seen, instructions, presence_accuracy
from hkd_core.world.instructions import Bias
from hkd_core.world.language_pretraining import (
    Conversations,
    SymbolicLanguage,
    Symbols,
    cells_of,
    collate_conversations,
    conversations,
    start_matching,
    symbolic_accuracy,
)
from hkd_core.world.scenes import Scene
from hkd_core.world.vision_pretraining import (
    Alignment,
    Labelled,
    VisionPretraining,
    collate_cells,
    start_vision,
)

LANGUAGE_RATE, VISION_RATE, INSTRUCTION_RATE = 1.4e-3, 3e-3, 5e-4
INSTRUCTION_LENGTH = 47  # words of a conversation about one picture


@dataclass
class Language:
    """What `teach_language` leaves: the model with its symbols, the loss curve, accuracy on held-out scenes by lesson."""

    model: LlavaForConditionalGeneration
    symbols: Symbols
    history: list[dict]
    accuracy: dict[str, float]


def teach_language(
    size: str,
    model: LlavaForConditionalGeneration,
    symbols: Symbols,
    lessons: Mapping[str, Conversations],
    checks: Mapping[str, Conversations],
    *,
    steps: Mapping[str, int],
    until: float,
    seed: int,
) -> Language:
    """The language model learns to look things up in scenes given as symbols: short exercises first, then full sentences.

    lessons, checks, steps: under "short" and "full". until: the loss at which the short exercises end early.
    """
    torch.manual_seed(seed)  # one size does not depend on another
    start_matching(model)
    objective = SymbolicLanguage(model, symbols, noise=0.3)
    learn = partial(train, objective, seed=seed, count=len(lessons["short"].words))
    history: list[dict] = []
    for lesson, decay, stop in (("short", 0.2, until), ("full", 0.6, 0.0)):
        schedule = Schedule(steps[lesson], 32, LANGUAGE_RATE, decay=decay, optimizer="muon")
        collate = collate_conversations(lessons[lesson])
        curve = learn(collate, schedule=schedule, title=f"{size}: {lesson} exercises", until=stop)
        done = history[-1]["step"] if history else 0
        history += [record | {"step": record["step"] + done} for record in curve]
    return Language(model, symbols, history, {name: symbolic_accuracy(objective, data) for name, data in checks.items()})


def labelled(processor: LlavaProcessor, scenes: Sequence[Scene], pictures: Sequence[Picture]) -> Labelled:
    """Pictures as the tower takes them, with what stands in each cell."""
    pixels = processor.image_processor(pictures, return_tensors="pt", do_resize=False)["pixel_values"]
    return Labelled(pixels, *cells_of(list(scenes)))


def teach_vision(
    model: LlavaForConditionalGeneration, data: Labelled, *, steps: int, seed: int
) -> tuple[VisionPretraining, list[dict]]:
    """The model's vision tower learns what stands in each patch, under fresh noise. Returns it with its heads, and the history."""
    objective = VisionPretraining(model.model.vision_tower, noise=0.9)
    start_vision(model.model.vision_tower)
    schedule = Schedule(steps, 128, VISION_RATE)
    return objective, train(objective, collate_cells(**vars(data)), len(data.pixels), schedule, seed=seed, title="vision")


@torch.no_grad()
def patch_features(
    objective: VisionPretraining, processor: LlavaProcessor, pictures: Sequence[Picture], batch_size: int = 500
) -> Tensor:
    """[N, CELLS, width]: what the trained tower sees in each patch of each picture."""
    parts = []
    for i in range(0, len(pictures), batch_size):
        pixels = processor.image_processor(pictures[i : i + batch_size], return_tensors="pt", do_resize=False)["pixel_values"]
        parts.append(objective.patches(pixels.to(objective.object_head.weight.device)).cpu())
    return torch.cat(parts)


def align(
    size: str, language: Language, tower: VisionPretraining, features: Tensor, scenes: Sequence[Scene], *, steps: int, seed: int
) -> list[dict]:
    """The model takes the trained tower, and its projector learns to say in word embeddings what the tower sees."""
    language.model.model.vision_tower.load_state_dict(tower.tower.state_dict())
    objective = Alignment(language.model, language.symbols)
    objects, colors = cells_of(list(scenes))
    collate = collate_cells(features=features, objects=objects, colors=colors)
    return train(objective, collate, len(features), Schedule(steps, 64, VISION_RATE), seed=seed, title=f"{size}: alignment")


def instruction_data(scenes: Sequence[Scene], bias: Bias, seed: int) -> dict[str, Conversations]:
    """Conversations about every picture: "clean" with right answers, "biased" with some that are wrong as web data is."""
    makers = {"clean": partial(instructions, bias=None), "biased": partial(instructions, bias=bias)}
    made = enumerate(makers.items(), seed + 1)
    return {name: conversations(list(scenes), make, INSTRUCTION_LENGTH, number) for number, (name, make) in made}


def instruct(
    size: str,
    model: LlavaForConditionalGeneration,
    features: Tensor,
    lessons: Mapping[str, Conversations],
    check: tuple[Tensor, Sequence[Scene]],
    *,
    steps: Mapping[str, int],
    seed: int,
) -> dict[str, float]:
    """Tune the whole model on the clean lessons, then on the biased ones.

    check: features and scenes of crisp pictures. Returns the share of presence questions about them that is right after each lesson.
    """
    answers = Seen(model.requires_grad_(True))
    found = {}
    for name, talk in lessons.items():
        schedule = Schedule(steps[name], 32, INSTRUCTION_RATE, decay=0.7)
        train(answers, collate_conversations(talk, features), len(features), schedule, seed=seed, title=f"{size}: {name} instruction")
        found[f"crisp_presence_after_{name}"] = presence_accuracy(answers, check[0], list(check[1]), seed)
    return found

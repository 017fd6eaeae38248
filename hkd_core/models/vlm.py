"""Any vision-language model behind one small interface: pictures become features once, prompts become tokens, tokens hidden states.

Nothing here knows a model's family or size; what differs between families stands in `families.py`.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from hkd_core.common.errors import UserError
from hkd_core.common.files import write_folder
from hkd_core.common.progress import progress
from hkd_core.data.pictures import open_picture
from hkd_core.models import families
from hkd_core.models.adapter import HallucinationEliminationAdapter, attached

Picture = Image.Image | np.ndarray | str | Path  # an array is [H, W, 3]; a text is the path of a file


def as_image(picture: Picture) -> Image.Image | np.ndarray:
    """A picture as it is given, or read from its file, upright and in RGB. Raises UserError naming a file that is no picture."""
    return open_picture(picture) if isinstance(picture, str | Path) else picture


@dataclass
class Encoded:
    """One picture as a model takes it. `prefix`: token ids up to its last placeholder; `features` [tokens, width]; `extras`: grids.

    Families that feed deeper layers as well have wider features: one level behind the other.
    """

    prefix: list[int]
    features: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)


class VLM:
    """A model with its processor. Build it with `load_vlm`, or from parts; `model` may be wrapped by peft."""

    def __init__(self, model: nn.Module, processor, name: str = "model"):
        self.model, self.processor, self.name = model, processor, name
        self.tokenizer = processor.tokenizer
        self.image_token = getattr(processor, "image_token", None)
        if not isinstance(self.image_token, str):
            raise UserError(f"{name}: its processor names no image token; expected a vision-language processor")
        expected = getattr(self.core.config, "image_token_id", None)
        known = isinstance(expected, int)
        self.image_token_id = expected if known else self.tokenizer.convert_tokens_to_ids(self.image_token)
        self.ends = families.end_tokens(self.core, self.tokenizer)
        placeholder, *ends = self.tokenizer.convert_ids_to_tokens([self.image_token_id, *self.ends])
        self.template = families.read_template(name, processor, placeholder, [end for end in ends if end is not None])

    @property
    def core(self) -> nn.Module:
        """The transformers model itself, without peft around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def head(self) -> Tensor:
        """[V, H], the output embedding."""
        return self.core.get_output_embeddings().weight

    @property
    def device(self) -> torch.device:
        return self.head.device

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers of the language model."""
        return families.decoder_layers(self.core)

    @property
    def reads_both_ways(self) -> bool:
        """Whether a prompt changes how the picture before it is read."""
        return families.is_prefix_model(self.core)

    @property
    def adapter(self) -> HallucinationEliminationAdapter | None:
        """The hallucination elimination adapter that is attached now. It is hooked in, and no part of the model's weights."""
        return attached(self.layers)

    def parameters_count(self) -> int:
        """How many parameters the model has, with the adapter that is attached now."""
        parts = [self.model] if self.adapter is None else [self.model, self.adapter]
        return sum(p.numel() for part in parts for p in part.parameters())

    def suffix(self, prompt: str, answer: str | None = None, *, closed: bool = False) -> list[int]:
        """Token ids after the image: the prompt, then the answer if given, then the end of turn if `closed`."""
        asked = self.template.asked(prompt)
        ids = self._tokens(asked)[1:]
        if answer is None and not closed:
            return ids
        answered = f"{'' if answer is None else self.template.glue + answer}{self.template.end if closed else ''}"
        whole = self._tokens(asked + answered)[1:]
        # A model answers behind the prompt's own tokens, so the answer's must not melt into them.
        return whole if whole[: len(ids)] == ids else ids + self._tokens(answered)

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prepare(self, pictures: Sequence[Picture]) -> dict:
        """The processor's output for pictures: pixels, placeholder ids, grids. Models that share a processor can share it."""
        text = self.template.head + self.template.mark
        nested = [[as_image(picture)] for picture in pictures]
        how: dict = {"add_special_tokens": self.template.special, "return_tensors": None}  # prompts differ in length
        return self.processor(text=[text] * len(nested), images=nested, **how)

    @torch.no_grad()
    def encode(self, prepared: dict, *, distort: Callable[[Tensor], Tensor] | None = None) -> list[Encoded]:
        """The features of `prepare`d pictures, in the model's own precision.

        distort: changes the normalised pixels before the vision tower sees them, same shape in and out.
        """
        pixels = families.as_tensor(prepared["pixel_values"]).to(self.device, self.head.dtype)
        if distort is not None:
            pixels = families.on_tiles(distort, pixels)
        prefixes = [families.up_to_last(ids, self.image_token_id, self.name)[0] for ids in prepared["input_ids"]]
        flat, extras = families.picture_features(self.core, pixels, prepared), families.kept_extras(self.core, prepared)
        # Cloned: a slice keeps the whole batch alive, and takes it along to another process.
        parts = [part.clone() for part in flat.split([prefix.count(self.image_token_id) for prefix in prefixes])]
        rows = [{k: v[n : n + 1].clone() for k, v in extras.items()} for n in range(len(prefixes))]
        return [Encoded(*row) for row in zip(prefixes, parts, rows, strict=True)]

    def without_picture(self, picture: Encoded) -> Encoded:
        """The same prompt with nothing to see: no placeholders, no features."""
        prefix = [token for token in picture.prefix if token != self.image_token_id]
        return Encoded(prefix, picture.features[:0].clone())

    def inputs(
        self, pictures: Sequence[Encoded], suffixes: Sequence[list[int]], *, left: bool = False, answers: Sequence[int] | None = None
    ) -> dict:
        """A padded batch for `hidden`: ids and mask [B, T] (padded right, or left for generation), features, extras.

        answers: how many of the last tokens of each row are an answer; None: none. Only models that read prompts in both directions ask.
        """
        rows = [picture.prefix + suffix for picture, suffix in zip(pictures, suffixes, strict=True)]
        length = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids, mask = torch.full((len(rows), length), pad), torch.zeros(len(rows), length, dtype=torch.long)
        answered = torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(length - len(row), length) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = torch.tensor(row), 1
            answered[i, place.stop - (answers[i] if answers else 0) :] = 1
        batch = {"input_ids": ids, "attention_mask": mask, "features": [p.features for p in pictures]}
        if self.reads_both_ways:
            batch["token_type_ids"] = answered
        names = dict.fromkeys(k for p in pictures for k in p.extras)
        batch["extras"] = {k: torch.cat([p.extras[k] for p in pictures if k in p.extras]) for k in names}
        return batch

    def arguments(self, batch: dict) -> dict:
        """What the transformers model is called with for a batch of `inputs`."""
        known = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], **batch["extras"]}
        names, seen = families.parameters(self.core.forward), (batch["input_ids"] == self.image_token_id).int()
        known |= {k: batch.get(k, seen) for k in ("mm_token_type_ids", "token_type_ids") if k in names}
        if any(len(features) for features in batch["features"]):
            width = self.core.get_input_embeddings().weight.shape[1]
            known["mm_encoder_outputs"] = {"image": families.image_output(batch["features"], width)}
        return known

    def hidden(self, batch: dict, **more: object):
        """The decoder's output for a batch: `last_hidden_state` [B, T, H], and what `more` asks for."""
        return self.core.base_model(**self.arguments(batch), use_cache=False, **more)

    def logits(self, states: Tensor, vocabulary: int | None = None) -> Tensor:
        """[N, V] float32 logits of hidden states [N, H], over the first `vocabulary` rows of the head."""
        return families.capped(self.core, states.float() @ self.head[:vocabulary].float().T)

    def save(self, folder) -> None:
        """An ordinary checkpoint folder: config, safetensors, processor. What peft has put in (a LoRA) is merged into the copy on disk."""
        transformers_logging.disable_progress_bar()
        core = copy.deepcopy(self.model).merge_and_unload() if hasattr(self.model, "peft_config") else self.core
        core.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def encode_all(
    vlms: Mapping[str, VLM],
    pictures: Sequence[Picture],
    *,
    distort: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 250,
    title: str = "",
) -> dict[str, list[Encoded]]:
    """Every picture's features for every model; a processor runs once for all models that share its settings and its template.

    title: of the progress line; "" shows none.
    """
    groups: list[tuple[tuple, list[str]]] = []  # how pictures are prepared, and for which models
    for name, vlm in vlms.items():
        how = families.preparation(vlm.processor, vlm.template)
        group = next((names for other, names in groups if other == how), None)
        if group is None:
            groups.append((how, [name]))
        else:
            group.append(name)
    found: dict[str, list[Encoded]] = {name: [] for name in vlms}
    starts = range(0, len(pictures), batch_size)
    for i in progress(starts, desc=title, unit="batch", leave=False, disable=not title):
        for _, names in groups:
            prepared = vlms[names[0]].prepare(pictures[i : i + batch_size])
            for name in names:
                found[name] += vlms[name].encode(prepared, distort=distort)
    return found


def save_models(folder: Path, vlms: Mapping[str, VLM]) -> Path:
    """Write each model into a folder of its name, all of them or none; returns `folder`."""

    def write(part: Path) -> None:
        for name, vlm in vlms.items():
            vlm.save(part / name)

    return write_folder(folder, write)


def distinct_pictures(examples: Iterable[dict]) -> tuple[list[Picture], list[int]]:
    """(the different pictures, which of them each example has); equal `image_id`, or the same object, means one picture."""
    pictures, index, places = [], {}, []
    for example in examples:
        key = example.get("image_id") or id(example["image"])
        if key not in index:
            index[key] = len(pictures)
            pictures.append(example["image"])
        places.append(index[key])
    return pictures, places


def to_device(batch: dict, device: torch.device) -> dict:
    """Tensors moved (also those one level down, in lists and dicts); everything else as it is."""

    def move(value: object) -> object:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, dict):
            return {k: move(v) for k, v in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], Tensor):
            return [v.to(device, non_blocking=True) for v in value]
        return value

    return {key: move(value) for key, value in batch.items()}

"""Any vision-language model behind one small interface: pictures become features once, prompts become tokens, tokens hidden states.

Nothing here knows a model's family or size: LLaVA, InternVL, Qwen2.5-VL and the laptop's small models go the same way.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging as transformers_logging

from hkd_core.common.errors import UserError
from hkd_core.common.files import write_folder
from hkd_core.common.progress import progress
from hkd_core.models.adapter import HallucinationEliminationAdapter, attached

MARK = "\u2402{}\u2403"  # stands for prompt and answer while the chat template is taken apart
Picture = Image.Image | np.ndarray


@dataclass
class Encoded:
    """One picture as a model takes it. `prefix`: token ids up to its last placeholder; `features` [tokens, width]; `extras`: grids."""

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
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        self._head, self._before, self._between, self._after = self._take_template_apart()

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
        return decoder_layers(self.core)

    @property
    def adapter(self) -> HallucinationEliminationAdapter | None:
        """The hallucination elimination adapter that is attached now. It is hooked in, and no part of the model's weights."""
        return attached(self.layers)

    def parameters_count(self) -> int:
        """How many parameters the model has, with the adapter that is attached now."""
        parts = [self.model] if self.adapter is None else [self.model, self.adapter]
        return sum(p.numel() for part in parts for p in part.parameters())

    def _take_template_apart(self) -> tuple[str, str, str, str]:
        """(text up to the image, text from there to the prompt, text between prompt and answer, text after the answer)."""
        prompt, answer = MARK.format("prompt"), MARK.format("answer")
        user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
        reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        asked = self.processor.apply_chat_template([user], add_generation_prompt=True)
        whole = self.processor.apply_chat_template([user, reply])
        if self.image_token not in asked or prompt not in asked or answer not in whole:
            raise UserError(f"{self.name}: its chat template does not hold one image, one prompt and one answer")
        head, rest = asked.split(self.image_token, 1)
        before, _ = rest.split(prompt, 1)
        between, after = whole.split(prompt, 1)[1].split(answer, 1)
        return head, before, between, after

    def suffix(self, prompt: str, answer: str | None = None, *, closed: bool = False) -> list[int]:
        """Token ids after the image: the prompt, then the answer if given, then the end of turn if `closed`."""
        between = self._between if answer is not None else self._between.rstrip(" ")
        text = f"{self.image_token}{self._before}{prompt}{between}{answer or ''}{self._after if closed else ''}"
        return self.tokenizer(text, add_special_tokens=False)["input_ids"][1:]

    def prepare(self, pictures: Sequence[Picture]) -> dict:
        """The processor's output for pictures: pixels, placeholder ids, grids. Models that share a processor can share it."""
        return self.processor(text=[self._head + self.image_token] * len(pictures), images=list(pictures))

    @torch.no_grad()
    def encode(self, prepared: dict, *, distort: Callable[[Tensor], Tensor] | None = None) -> list[Encoded]:
        """The features of `prepare`d pictures, in the model's own precision.

        distort: changes the normalised pixels before the vision tower sees them, same shape in and out.
        """
        pixels = torch.as_tensor(np.asarray(prepared["pixel_values"])).to(self.device, self.head.dtype)
        if distort is not None:
            pixels = distort(pixels)
        prefixes = [list(ids) for ids in prepared["input_ids"]]
        extras = {k: torch.as_tensor(np.asarray(v)) for k, v in prepared.items() if k not in _TEXT_KEYS}
        output = self.core.get_image_features(pixels, **{k: v.to(self.device) for k, v in extras.items()})
        features = output.pooler_output if hasattr(output, "pooler_output") else output
        flat = torch.cat([f.reshape(-1, f.shape[-1]) for f in features])
        # Cloned: a slice keeps the whole batch alive, and takes it along to another process.
        parts = [part.clone() for part in flat.split([prefix.count(self.image_token_id) for prefix in prefixes])]
        rows = [{k: v[n : n + 1].clone() for k, v in extras.items()} for n in range(len(prefixes))]
        return [Encoded(*row) for row in zip(prefixes, parts, rows, strict=True)]

    def without_picture(self, picture: Encoded) -> Encoded:
        """The same prompt with nothing to see: no placeholders, no features."""
        prefix = [token for token in picture.prefix if token != self.image_token_id]
        return Encoded(prefix, picture.features[:0].clone())

    def inputs(self, pictures: Sequence[Encoded], suffixes: Sequence[list[int]], *, left: bool = False) -> dict:
        """A padded batch for `hidden`: ids and mask [B, T] (padded right, or left for generation), features, extras."""
        rows = [picture.prefix + suffix for picture, suffix in zip(pictures, suffixes, strict=True)]
        length = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids, mask = torch.full((len(rows), length), pad), torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(length - len(row), length) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = torch.tensor(row), 1
        batch = {"input_ids": ids, "attention_mask": mask, "features": [p.features for p in pictures]}
        batch["extras"] = {k: torch.cat([p.extras[k] for p in pictures]) for k in pictures[0].extras}
        return batch

    def arguments(self, batch: dict) -> dict:
        """What the transformers model is called with for a batch of `inputs`."""
        known = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], **batch["extras"]}
        if "mm_token_type_ids" in inspect.signature(self.core.forward).parameters:
            known["mm_token_type_ids"] = (batch["input_ids"] == self.image_token_id).int()
        if any(len(features) for features in batch["features"]):
            known["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=list(batch["features"]))}
        return known

    def hidden(self, batch: dict, **more: object):
        """The decoder's output for a batch: `last_hidden_state` [B, T, H], and what `more` asks for."""
        return self.core.model(**self.arguments(batch), use_cache=False, **more)

    def save(self, folder) -> None:
        """An ordinary checkpoint folder: config, safetensors, processor. What peft has put in (a LoRA) is merged into the copy on disk."""
        transformers_logging.disable_progress_bar()
        core = copy.deepcopy(self.model).merge_and_unload() if hasattr(self.model, "peft_config") else self.core
        core.save_pretrained(folder)
        self.processor.save_pretrained(folder)


# Keys of a processor's output that are not per-picture extras.
_TEXT_KEYS = ("input_ids", "attention_mask", "pixel_values", "mm_token_type_ids", "token_type_ids")


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of decoder layers of a transformers vision-language model. Raises UserError if there is none."""
    language = getattr(getattr(model, "model", model), "language_model", None)
    layers = getattr(language, "layers", None)
    if layers is None:
        raise UserError(f"{type(model).__name__}: no decoder layers at model.language_model.layers")
    return layers


def encode_all(
    vlms: Mapping[str, VLM],
    pictures: Sequence[Picture],
    *,
    distort: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 250,
    title: str = "",
) -> dict[str, list[Encoded]]:
    """Every picture's features for every model; the processor runs once, for all. title: of its progress; "" shows none.

    Raises UserError if the models' processors treat pictures differently.
    """
    first, *others = vlms.values()
    for other in others:
        if other.processor.image_processor.to_dict() != first.processor.image_processor.to_dict():
            raise UserError(f"{other.name} and {first.name}: their processors treat pictures differently")
    found: dict[str, list[Encoded]] = {name: [] for name in vlms}
    starts = range(0, len(pictures), batch_size)
    for i in progress(starts, desc=title, unit="batch", leave=False, disable=not title):
        prepared = first.prepare(pictures[i : i + batch_size])
        for name, vlm in vlms.items():
            found[name] += vlm.encode(prepared, distort=distort)
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

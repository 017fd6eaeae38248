"""All that differs between families of vision-language models. Nothing else in the library asks for a model's family.

transformers decides wherever it can. The chat template words the prompt, the processor places the placeholders, and the model's class
names its decoder, its layers and its head. What is left stands here, and `guard.py` compares the result with the plain model at load.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hkd_core.common.errors import UserError

REFUSED = {  # model_type -> why its pictures do not fit into this library
    "mllama": "its layers read pictures by cross-attention and not as tokens of the prompt",
    "blip-2": "its questions have no chat template and its pictures no place in them",
    "instructblip": "its picture features depend on the question",
}
MARK = "\u2402{}\u2403"  # stands for prompt and answer while the chat template is taken apart


def decoder(model: nn.Module) -> nn.Module:
    """The language model inside a transformers vision-language model, as its class names it."""
    found: Any = model
    return found.get_decoder() if hasattr(found, "get_decoder") else found


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of decoder layers of a transformers vision-language model. Raises UserError if there is none."""
    layers = getattr(decoder(model), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UserError(f"{type(model).__name__}: no decoder layers in its language model")
    return layers


def decoder_name(model: nn.Module) -> str:
    """What the language model is called inside the model: "language_model", or "text_model"."""
    wanted = decoder(model)
    return next(name for name, module in model.named_modules() if module is wanted).rsplit(".", 1)[-1]


def parameters(*functions: object) -> set[str]:
    """The names that any of these functions takes."""
    return {name for function in functions if callable(function) for name in inspect.signature(function).parameters}


def as_tensor(value: Any) -> Tensor:
    """What a processor gives, as one tensor: arrays, tensors, or lists of either."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        return torch.stack(list(value))
    return value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))


def capped(model: nn.Module, logits: Tensor) -> Tensor:
    """Logits as the model's class gives them: Gemma 2 bends them by c tanh(x / c)."""
    config: Any = model.config
    cap = getattr(config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def end_tokens(model: nn.Module, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the tokenizer's, then those of the generation config."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = configured if isinstance(configured, list | tuple) else [configured]
    return [token for token in dict.fromkeys([tokenizer.eos_token_id, *several]) if token is not None]


@contextmanager
def plain_generation(model: nn.Module) -> Iterator[None]:
    """Meanwhile the model generates as asked: no sampling setting or penalty of the checkpoint's generation config is left."""
    core: Any = model
    kept, core.generation_config = core.generation_config, GenerationConfig()
    try:
        yield
    finally:
        core.generation_config = kept


# Prompts


def is_prefix_model(model: nn.Module) -> bool:
    """Whether picture and prompt are read in both directions (PaliGemma), so that no prompt shares the other's reading of a picture."""
    config: Any = model.config
    return config.model_type == "paligemma"


def builds_prompts(processor: object) -> bool:
    """Whether a processor words prompts by itself and needs no chat template."""
    return any(base.__name__ == "PaliGemmaProcessor" for base in type(processor).__mro__)


@dataclass(frozen=True)
class Template:
    """A chat template with the processor's additions, taken apart around picture, prompt and answer. All are texts.

    head: up to the picture, for the processor, which puts `mark` in the picture's place. placeholder: the token that features replace.
    before: from the last placeholder to the prompt. between: from the prompt to where the model answers. glue: white space before an
    answer in a finished conversation. end: from the answer to the token that ends it. special: whether the tokenizer adds its BOS.
    trims: whether white space around a prompt is lost.
    """

    head: str
    mark: str
    placeholder: str
    before: str
    between: str
    glue: str
    end: str
    special: bool
    trims: bool

    def asked(self, prompt: str) -> str:
        """The text after the picture that asks `prompt`, behind one placeholder."""
        return f"{self.placeholder}{self.before}{prompt.strip() if self.trims else prompt}{self.between}"


def conversations(processor: Any, prompt: str, answer: str) -> tuple[str, str]:
    """(the text that asks the prompt, the finished conversation)."""
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    if getattr(processor, "chat_template", None) is None and builds_prompts(processor):
        return f"{processor.image_token}{prompt}", f"{processor.image_token}{prompt}{answer}"
    asked = processor.apply_chat_template([user], add_generation_prompt=True)
    return asked, processor.apply_chat_template([user, reply])


def read_template(name: str, processor: Any, placeholder: str, ends: Sequence[str]) -> Template:
    """Take a processor's chat template apart. ends: the texts of the tokens that end an answer.

    Raises UserError for a template without one image, one prompt and one answer, and for a processor whose placeholders cannot be placed.
    """
    prompt, answer, mark = MARK.format("prompt"), MARK.format("answer"), processor.image_token
    asked, whole = conversations(processor, prompt, answer)
    if mark not in asked or prompt not in asked or answer not in whole or prompt not in whole:
        raise UserError(f"{name}: its chat template does not hold one image, one prompt and one answer")
    head, rest = asked.split(mark, 1)
    if prompt not in rest:
        raise UserError(f"{name}: its chat template puts the prompt before the image: expected the image first")
    before, between = rest.split(prompt, 1)
    answering, after = whole.split(prompt, 1)[1].split(answer, 1)
    glue = answering.removeprefix(between) if answering.startswith(between) else ""
    trims = f" {prompt} " not in conversations(processor, f" {prompt} ", answer)[0]
    bos = processor.tokenizer.bos_token
    special = bos is None or not asked.startswith(bos)
    if builds_prompts(processor):
        tail, between = bos, f"{between}\n"
    else:
        tail = text_behind_placeholders(name, processor, head + mark, placeholder, special=special)
    closed = ended(after, ends)
    return Template(head, mark, placeholder, tail + before, between, glue if glue.isspace() else "", closed, special, trims)


def ended(after: str, ends: Sequence[str]) -> str:
    """What follows an answer, up to the first token that ends it; a template without one (LLaVA-1.5's) gets the tokenizer's."""
    places = [after.index(end) + len(end) for end in ends if end in after]
    return after[: min(places)] if places else after.rstrip() + (ends[0] if ends else "")


def text_behind_placeholders(name: str, processor: Any, text: str, placeholder: str, *, special: bool) -> str:
    """What the processor puts behind a picture's last placeholder, such as "</img>". Raises UserError where that is no plain text."""
    tokenizer, picture = processor.tokenizer, Image.new("RGB", (64, 64), (127, 127, 127))
    ids = list(processor(text=[text], images=[[picture]], add_special_tokens=special)["input_ids"][0])
    token = tokenizer.convert_tokens_to_ids(placeholder)
    behind = up_to_last(ids, token, name)[1]
    words = tokenizer.decode(behind, skip_special_tokens=False, clean_up_tokenization_spaces=False) if behind else ""
    if tokenizer(placeholder + words, add_special_tokens=False)["input_ids"] != [token, *behind]:
        raise UserError(f"{name}: what its processor puts behind a picture cannot be written as text: {words!r}")
    return words


def up_to_last(ids: Sequence[int], token: int, name: str) -> tuple[list[int], list[int]]:
    """(ids up to the last `token`, the rest). Raises UserError if there is none."""
    ids = [int(i) for i in ids]
    if token not in ids:
        raise UserError(f"{name}: its processor puts no placeholder (token {token}) where a picture stands")
    end = len(ids) - ids[::-1].index(token)
    return ids[:end], ids[end:]


def preparation(processor: Any, template: Template) -> tuple:
    """All that decides what a processor makes of a picture; equal for models that can share its output."""
    own = {k: v for k, v in vars(processor).items() if isinstance(v, int | float | str) and k != "chat_template"}
    return type(processor), own, processor.image_processor.to_dict(), template.head, template.special


# Features


class Parts(list):
    """Features of several pictures: a list for families that join it, and a tensor for families that move it to their device."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.cat(self).to(*args, **kwargs)


def on_tiles(distort: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """`distort` applied to pixels [N, C, H, W], or to the tiles of pictures [N, tiles, C, H, W]; padding (all 0) stays as it is."""
    if pixels.ndim != 5:
        return distort(pixels)
    real = pixels.flatten(2).ne(0).any(-1)
    found = pixels.clone()
    found[real] = distort(pixels[real])
    return found


def picture_features(model: nn.Module, pixels: Tensor, prepared: Mapping[str, Any]) -> Tensor:
    """[visual tokens of all pictures, width] of a processor's output, in order; deeper levels (Qwen3-VL) stand behind the first."""
    core: Any = model
    known = parameters(core.get_image_features, getattr(core.base_model, "get_image_features", None)) - {"pixel_values"}
    more = {k: as_tensor(v).to(pixels.device) for k, v in prepared.items() if k in known}
    output = core.get_image_features(pixels, **more)
    features = output.pooler_output if hasattr(output, "pooler_output") else output
    deeper = getattr(output, "deepstack_features", None) or []
    levels = [flat(level) for level in (features, *deeper)]
    return torch.cat(levels, -1) if deeper else levels[0]


def flat(features: Tensor | Iterable[Tensor]) -> Tensor:
    """[tokens, width] of a tensor or several."""
    return torch.cat([f.reshape(-1, f.shape[-1]) for f in features])


def image_output(features: Sequence[Tensor], width: int) -> BaseModelOutputWithPooling:
    """What `get_image_features` would give for pictures with these features [tokens, width x levels]."""
    levels = [Parts(f[:, i : i + width] for f in features) for i in range(0, features[0].shape[-1], width)]
    output: Any = BaseModelOutputWithPooling(pooler_output=levels[0])
    output.deepstack_features = levels[1:]
    return output


def kept_extras(model: nn.Module, prepared: Mapping[str, Any]) -> dict[str, Tensor]:
    """What positions in three dimensions need to know of the pictures: their grids. One row a picture."""
    core: Any = model
    known = parameters(getattr(core.base_model, "get_rope_index", None)) - {"input_ids", "attention_mask", "mm_token_type_ids"}
    return {k: as_tensor(v) for k, v in prepared.items() if k in known}

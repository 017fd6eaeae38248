"""Loading a vision-language model from a folder or the Hugging Face hub, with an adapter if asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from hkd_core.common.errors import UserError
from hkd_core.models import attention
from hkd_core.models.adapter import CONFIG_NAME, WEIGHTS_NAME, HallucinationEliminationAdapter
from hkd_core.models.checkpoints import (
    check_checkpoint,
    check_filled,
    check_finite,
    finder,
    in_file,
    not_finite,
    refusing,
    some,
)
from hkd_core.models.families import builds_prompts
from hkd_core.models.guard import check_answers
from hkd_core.models.lora import with_lora
from hkd_core.models.vlm import VLM


def load_vlm(
    path_or_hub_id: str | Path,
    adapter: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    device_map: str | dict | None = None,
    attn_implementation: str | None = None,
    quantization_config: Any = None,
    revision: str | None = None,
    processor_options: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> VLM:
    """A model that answers questions about pictures, any that AutoModelForImageTextToText takes, in eval mode.

    adapter: folder (or hub id) of a HallucinationEliminationAdapter or of a peft adapter. device: "auto" takes the GPU if there is
    one. dtype: "auto" keeps the checkpoint's own. device_map (instead of device), attn_implementation, quantization_config and
    revision are transformers'. processor_options: settings of the processor that replace the checkpoint's, such as
    {"max_pixels": 200704}. trust_remote_code: run Python code from the checkpoint; False never runs it and never asks.
    Raises UserError, naming the path, where there is no model or no processor that fits it, or a package is missing. It also does
    where weights are pickles, damaged, not finite, or not exactly what config.json describes, and where the adapter does not fit.
    And it does where the model answers otherwise through this library than by itself (`guard.check_answers`).
    """
    where = str(path_or_hub_id)
    target = check_options(device, dtype, device_map, processor_options, trust_remote_code)
    transformers_logging.disable_progress_bar()
    source = {"trust_remote_code": trust_remote_code} | ({"revision": revision} if revision else {})
    chosen = attn_implementation or ("eager" if target.type == "cpu" else "sdpa")  # on a CPU the fused kernel trains slowly
    with refusing(where, "cannot be loaded as a vision-language model"):
        check_checkpoint(where, finder(where, revision), trusted=trust_remote_code)
        config = AutoConfig.from_pretrained(where, **source)
        processor = load_processor(where, config, processor_options or {}, source)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            where,
            dtype=dtype,
            device_map=device_map,
            attn_implementation=chosen,
            quantization_config=quantization_config,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # so that the report names them
            output_loading_info=True,
            **source,
        )
        model, report = loaded
        check_report(where, model, report)
        if device_map is None and not getattr(model, "is_quantized", False):
            model = model.to(target)
        check_finite(where, in_file(model, not_finite(model.state_dict().items())))
        check_vocabulary(where, model, processor)
        if attn_implementation is None and target.type == "cpu" and runs_plain_attention(model):
            model.set_attn_implementation(attention.PLAIN)
    with refusing(where, "its chat template cannot be used"):
        vlm = VLM(model.eval(), processor, name=where)
    with refusing(where, "cannot be compared with the plain model"):
        check_answers(vlm)
    if adapter is not None:
        attach(vlm, str(adapter))
    return vlm


def check_options(
    device: str | torch.device, dtype: str | torch.dtype, device_map: object, processor_options: object, trusted: object
) -> torch.device:
    """The device that `device` means. Raises UserError for options that cannot be, before anything is read."""
    if not isinstance(trusted, bool):  # "no" would be true
        raise UserError(f"trust_remote_code: expected True or False, got {trusted!r}")
    if processor_options is not None and not isinstance(processor_options, Mapping):
        raise UserError(f"processor_options: expected an object of settings, got {processor_options!r}")
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype != "auto" and not (isinstance(named, torch.dtype) and named.is_floating_point):
        raise UserError(f'dtype: expected "auto" or a floating-point type such as "bfloat16", got {dtype!r}')
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device_map is not None:
        raise UserError(f"device: expected one of device and device_map, got {device!r} and {device_map!r}")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f'device: expected "auto", "cpu" or a device that this machine has, got {str(device)!r}') from error


def runs_plain_attention(model: Any) -> bool:
    """Whether attention.py's formula holds for a model: LLaVA on Llama without dropout."""
    text = model.config.get_text_config()
    return isinstance(model, LlavaForConditionalGeneration) and text.model_type == "llama" and not text.attention_dropout


def load_processor(where: str, config: Any, options: Mapping[str, Any], source: dict) -> Any:
    """The checkpoint's processor with `options` in place of its own settings. Raises UserError if it does not fit the model."""
    if type(config) not in AutoModelForImageTextToText._model_mapping and not source["trust_remote_code"]:
        raise UserError(f"{where}/config.json: {config.model_type} takes no pictures: expected a vision-language model")
    processor = AutoProcessor.from_pretrained(where, **{**options, **source})
    images = getattr(processor, "image_processor", None)
    if images is None or getattr(processor, "tokenizer", None) is None:
        raise UserError(f"{where}: its processor is a {type(processor).__name__}: expected one for pictures and text")
    known = getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})
    strange = [name for name in options if not (hasattr(processor, name) or hasattr(images, name) or name in known)]
    if strange:
        raise UserError(f"{where}: processor_options: {some(strange)}: no such setting of {type(images).__name__}")
    check_family(where, config, processor)
    if getattr(processor, "chat_template", None) is None and not builds_prompts(processor):
        raise UserError(f"{where}: its processor has no chat template: expected chat_template.jinja")
    return processor


def check_family(where: str, config: Any, processor: Any) -> None:
    """Refuse a processor that transformers pairs with other models, or whose placeholder for pictures is not the model's."""
    vision = getattr(getattr(config, "vision_config", None), "model_type", None)
    fits = {PROCESSOR_MAPPING_NAMES.get(config.model_type)}
    for kind in filter(None, (config.model_type, vision)):  # LLaVA's model may hold Pixtral's tower, and then takes its pictures
        images = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or ()
        fits |= set(images.values() if isinstance(images, dict) else images)
    names = {base.__name__ for part in (processor, processor.image_processor) for base in type(part).__mro__}
    if fits - {None} and not names & fits:
        raise UserError(
            f"{where}: its processor is another family's: config.json describes {config.model_type}, "
            f"which takes {PROCESSOR_MAPPING_NAMES.get(config.model_type)}, got {type(processor).__name__}"
        )
    mark, expected = getattr(processor, "image_token", None), getattr(config, "image_token_id", None)
    if isinstance(mark, str) and isinstance(expected, int):
        found = processor.tokenizer.convert_tokens_to_ids(mark)
        if expected not in (found, *getattr(processor, "image_token_ids", ())):  # Gemma 3's mark is none of its placeholders
            raise UserError(
                f"{where}: its processor is another model's: it marks pictures with token {found} ({mark}), "
                f"config.json expects token {expected}"
            )


def check_report(where: str, model: Any, report: dict) -> None:
    """Refuse weights other than what config.json describes, from transformers' report of what it loaded."""
    missing = set(report["missing_keys"]) - set(getattr(model, "all_tied_weights_keys", None) or {})
    shapes = [(in_file(model, [name])[0], *shapes) for name, *shapes in report["mismatched_keys"]]
    check_filled(where, in_file(model, missing), in_file(model, report["unexpected_keys"]), shapes)


def check_vocabulary(where: str, model: Any, processor: Any) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for."""
    rows, last = model.get_input_embeddings().weight.shape[0], max(processor.tokenizer.get_vocab().values(), default=-1)
    if last >= rows:
        raise UserError(f"{where}: its tokenizer is another model's: it has token {last}, the model embeds tokens 0 to {rows - 1}")


def attach(vlm: VLM, adapter: str) -> None:
    """Put a hallucination elimination adapter or a peft adapter on a model. Raises UserError, naming the folder, if it does not fit."""
    with refusing(adapter, f"not an adapter for {vlm.name}"):
        find = finder(adapter)
        config = find(CONFIG_NAME)
        if config is None:
            vlm.model = with_lora(vlm.model, adapter, find)
            return
        find(WEIGHTS_NAME)  # a hub's is fetched
        found = HallucinationEliminationAdapter.from_pretrained(config.parent)
        try:
            found.attach(vlm.model)
        except UserError as error:
            raise UserError(f"{adapter}: not an adapter for {vlm.name}: {error}") from error

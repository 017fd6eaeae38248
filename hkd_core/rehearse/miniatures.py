"""Miniature checkpoints: the real classes and processors of each family, a small tokenizer, random weights from a fixed seed.

`build` writes a folder that `load_vlm` reads like any other. Nothing is downloaded. Families whose processors also take video need
torchvision, as their real checkpoints do.
"""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging as transformers_logging

from hkd_core.common.errors import UserError
from hkd_core.models.families import end_tokens
from hkd_core.rehearse import templates, tokenizers

WIDTH, LAYERS, SIDE, PATCH = 32, 2, 32, 8  # of the language model, and of pictures
TILES = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
SEEDS = {"gemma3": 5}  # others 0; with these every miniature writes different words about different pictures
Parts = tuple[Any, Any]  # a model and its processor


def text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """The settings that every family's language model has."""
    return {
        "vocab_size": len(tokenizer) + 6,  # heads are padded
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def vision(**more: Any) -> dict[str, Any]:
    """The settings that the vision towers on CLIP's pattern have."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    return {**shape, "image_size": SIDE, "patch_size": PATCH, **more}


def image_processor(family: str, name: str, **settings: Any) -> Any:
    """The family's image processor in its PIL version, which needs no torchvision; a folder does not tell the versions apart."""
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return getattr(module, f"{name}ImageProcessorPil")(**settings)


def square(side: int = SIDE) -> dict[str, dict[str, int]]:
    return {"size": {"height": side, "width": side}}


def model_of(name: str, config: Any) -> nn.Module:
    return getattr(transformers, f"{name}ForConditionalGeneration")(config)


def llava(eos: str = "</s>") -> Parts:
    special = ["<s>", eos, "<image>", "<pad>"]
    words = tokenizers.build("llama", special, bos="<s>", eos=eos, pad="<pad>", adds_bos=True)
    images = image_processor("clip", "CLIP", **square(), crop_size={"height": SIDE, "width": SIDE})
    how = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = transformers.LlavaProcessor(images, words, chat_template=templates.LLAVA, **how)
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **vision()},
        text_config={"model_type": "llama", **text(words)},
        image_token_index=processor.image_token_id,
        vision_feature_layer=-2,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return model_of("Llava", config), processor


def llava_next() -> Parts:
    words = tokenizers.build("llama", ["<s>", "</s>", "<image>", "<pad>"], bos="<s>", eos="</s>", pad="<pad>", adds_bos=True)
    size = {"shortest_edge": SIDE}
    images = image_processor(
        "llava_next", "LlavaNext", size=size, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=TILES
    )
    how = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = transformers.LlavaNextProcessor(images, words, chat_template=templates.MISTRAL, **how)
    config = transformers.LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **vision()},
        text_config={"model_type": "mistral", **text(words, sliding_window=None)},
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=TILES,
    )
    return model_of("LlavaNext", config), processor


def llava_onevision() -> Parts:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
    words = tokenizers.build("bytes", special, bos=None, eos="<|im_end|>", pad="<|endoftext|>")
    images = image_processor("llava_onevision", "LlavaOnevision", **square(), image_grid_pinpoints=TILES)
    processor = transformers.LlavaOnevisionProcessor(
        images,
        words,
        transformers.LlavaOnevisionVideoProcessor(**square()),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=templates.ONEVISION,
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **vision()},
        text_config={"model_type": "qwen2", **text(words)},
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=TILES,
        vision_feature_layer=-1,
    )
    return model_of("LlavaOnevision", config), processor


def internvl(language: str) -> Parts:
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    if language == "llama":  # 2.5 with InternLM 2
        special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *named.values()]
        words = tokenizers.build("pieces", special, bos="<s>", eos="<|im_end|>", pad="</s>", named=named, adds_bos=True)
    else:
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *named.values()]
        words = tokenizers.build("bytes", special, bos=None, eos="<|im_end|>", pad="<|endoftext|>", named=named)
    images = image_processor("got_ocr2", "GotOcr2", **square(), max_patches=4)
    tokens = (SIDE // PATCH) ** 2 // 4
    videos = transformers.InternVLVideoProcessor(**square())
    processor = transformers.InternVLProcessor(images, words, videos, image_seq_length=tokens, chat_template=templates.INTERNVL)
    sides = {"image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]}
    config = transformers.InternVLConfig(
        vision_config=vision(**sides),
        text_config={"model_type": language, **text(words)},
        image_token_id=processor.image_token_id,
        image_seq_length=tokens,
    )
    return model_of("InternVL", config), processor


QWEN_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def qwen(name: str, template: str, patch: int, tower: dict[str, Any]) -> Parts:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *QWEN_MARKS]
    words = tokenizers.build("bytes", special, bos=None, eos="<|im_end|>", pad="<|endoftext|>")
    area = {"shortest_edge": (2 * patch) ** 2, "longest_edge": 16 * (2 * patch) ** 2}
    images = image_processor("qwen2_vl", "Qwen2VL", size=area, patch_size=patch)
    video = "Qwen3VL" if name == "Qwen3VL" else "Qwen2VL"
    videos = getattr(transformers, f"{video}VideoProcessor")(patch_size=patch)
    processor = getattr(transformers, f"{name}Processor")(images, words, videos, chat_template=template)
    ids = dict(zip(("vision_start", "vision_end", "image", "video"), map(words.convert_tokens_to_ids, QWEN_MARKS), strict=True))
    sections = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    if name != "Qwen3VL":
        del sections["mrope_interleaved"]
    config = getattr(transformers, f"{name}Config")(
        vision_config={"depth": LAYERS, "num_heads": 2, "patch_size": patch, "spatial_merge_size": 2, **tower},
        text_config=text(words, rope_parameters=sections, **({"head_dim": 16} if name == "Qwen3VL" else {})),
        **{f"{key}_token_id": value for key, value in ids.items()},
    )
    return model_of(name, config), processor


def qwen2_vl() -> Parts:
    return qwen("Qwen2VL", templates.QWEN2, 14, {"embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2})


def qwen2_5_vl() -> Parts:
    tower = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "out_hidden_size": WIDTH}
    return qwen("Qwen2_5_VL", templates.QWEN2, 14, {**tower, "fullatt_block_indexes": [1], "window_size": 56})


def qwen3_vl() -> Parts:
    tower = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "out_hidden_size": WIDTH, "num_position_embeddings": 64}
    return qwen("Qwen3VL", templates.QWEN3, 16, {**tower, "deepstack_visual_indexes": [0, 1]})


def idefics_like(name: str, start: str) -> Parts:
    places = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>", *places]
    smol = name == "SmolVLM"
    special = ["<|endoftext|>", start, *marks]
    words = tokenizers.build("bytes", special, bos=start, eos="<end_of_utterance>", pad="<|endoftext|>", adds_bos=not smol)
    family, tokens = name.lower(), (SIDE // PATCH) ** 2 // 4
    images = image_processor(family, name, size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE})
    videos = [transformers.SmolVLMVideoProcessor()] if smol else []
    processor = getattr(transformers, f"{name}Processor")(
        images, words, *videos, image_seq_len=tokens, chat_template=templates.idefics(start)
    )
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision(),
        text_config={"model_type": "llama", **text(words)},
        image_token_id=processor.image_token_id,
        scale_factor=2,
    )
    return model_of(name, config), processor


def gemma3() -> Parts:
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *named.values()]
    words = tokenizers.build("pieces", special, bos="<bos>", eos="<eos>", pad="<pad>", named=named, adds_bos=True)
    images, tokens = image_processor("gemma3", "Gemma3", **square()), 4
    processor = transformers.Gemma3Processor(images, words, chat_template=templates.GEMMA3, image_seq_length=tokens)
    layers = ["sliding_attention", "full_attention"]  # a window shorter than the prompts, so that it matters
    more = {"head_dim": 16, "layer_types": layers, "sliding_window": 24, "query_pre_attn_scalar": 16}
    config = transformers.Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **vision()},
        text_config=text(words, **more),
        mm_tokens_per_image=tokens,
        boi_token_index=words.convert_tokens_to_ids(named["boi_token"]),
        eoi_token_index=words.convert_tokens_to_ids(named["eoi_token"]),
        image_token_index=words.convert_tokens_to_ids(named["image_token"]),
    )
    model: Any = model_of("Gemma3", config)
    model.generation_config.eos_token_id = [words.eos_token_id, words.convert_tokens_to_ids("<end_of_turn>")]
    return model, processor


def paligemma(language: str) -> Parts:
    special = ["<pad>", "<eos>", "<bos>", "<image>"]
    words = tokenizers.build("pieces", special, bos="<bos>", eos="<eos>", pad="<pad>", named={"image_token": "<image>"}, adds_bos=True)
    images = image_processor("siglip", "Siglip", **square())
    images.image_seq_length = (SIDE // PATCH) ** 2
    processor = transformers.PaliGemmaProcessor(images, words)  # adds 1,152 tokens for places, as the real one does
    more: dict[str, Any] = {"head_dim": 16}
    if language == "gemma2":
        more |= {"query_pre_attn_scalar": 16, "final_logit_softcapping": 5.0, "sliding_window": 512}
    config = transformers.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": WIDTH, **vision()},
        text_config={"model_type": language, **text(words, **more)},
        image_token_index=processor.image_token_id,
        projection_dim=WIDTH,
    )
    return model_of("PaliGemma", config), processor


FAMILIES: dict[str, Callable[[], Parts]] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "internvl2_5": lambda: internvl("llama"),
    "internvl3": lambda: internvl("qwen2"),
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "smolvlm": lambda: idefics_like("SmolVLM", "<|im_start|>"),
    "idefics3": lambda: idefics_like("Idefics3", "<|begin_of_text|>"),
    "gemma3": gemma3,
    "paligemma": lambda: paligemma("gemma"),
    "paligemma2": lambda: paligemma("gemma2"),
}
NEED_VIDEO = {"llava_onevision", "internvl2_5", "internvl3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm"}
REFUSED = {"mllama": transformers.MllamaConfig, "blip_2": transformers.Blip2Config}  # by name, before weights are read


def lacks(family: str) -> str:
    """What this machine lacks for a family, in one line; "" if it has all."""
    wanted = ["torchvision"] * (family in NEED_VIDEO) + ["num2words"] * (family == "smolvlm")
    missing = [package for package in wanted if importlib.util.find_spec(package) is None]
    return f"its processor needs {' and '.join(missing)}" if missing else ""


def build(family: str, folder: str | Path) -> Path:
    """Write a miniature checkpoint of a family into `folder`; returns the folder. The same family gives the same bytes.

    Raises UserError for an unknown family, and where a package is missing. torch's random numbers are left as they were.
    """
    if family in REFUSED:
        REFUSED[family]().save_pretrained(folder)
        return Path(folder)
    if family not in FAMILIES:
        raise UserError(f'family: expected one of {", ".join([*FAMILIES, *REFUSED])}, got "{family}"')
    if missing := lacks(family):
        raise UserError(f"{family}: {missing}, which is not installed: pip install -e '.[vlm]', see CONTRIBUTING.md")
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(SEEDS.get(family, 0))
        model, processor = FAMILIES[family]()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
        hush(model, processor.tokenizer)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return Path(folder)


def hush(model: Any, tokenizer: Any) -> None:
    """Make marks improbable and padding of the head silent, so that random weights write words, and now and then an end."""
    marks = [token for token in tokenizer.all_special_ids if token not in end_tokens(model, tokenizer)]
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight[marks] *= 0.1
        weight[len(tokenizer) :] = 0.0


@contextlib.contextmanager
def quiet():
    """No warnings of transformers: miniatures are smaller than what its defaults expect."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)

"""Loading models: the contract's options, and every way in which a checkpoint from elsewhere can be wrong, as one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import QWEN_TEMPLATE, tiny_qwen, tiny_vlm
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaNextProcessor, Qwen2_5_VLConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

from hkd_core.common.errors import UserError
from hkd_core.inference import score_choices
from hkd_core.models import HallucinationEliminationAdapter, load_vlm
from hkd_core.models.attention import PLAIN


class WithoutVideo(Qwen2_5_VLProcessor):
    """The real processor without its video side, which needs torchvision; this one can be loaded from a folder."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        super().__init__(image_processor=image_processor, tokenizer=tokenizer, video_processor=None, chat_template=chat_template)

    def check_argument_for_proper_class(self, argument_name, argument):
        return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders, by name: whole checkpoints of two families, and adapters for the first."""
    folder = tmp_path_factory.mktemp("checkpoints")
    AutoProcessor.register(Qwen2_5_VLConfig, WithoutVideo, exist_ok=True)
    llava = tiny_vlm()
    llava.save(folder / "llava")
    qwen = tiny_qwen()
    images, words = qwen.processor.image_processor, qwen.processor.tokenizer
    qwen.processor = WithoutVideo(image_processor=images, tokenizer=words, chat_template=QWEN_TEMPLATE)
    qwen.save(folder / "qwen")
    torch.manual_seed(1)
    adapter = HallucinationEliminationAdapter(32, rank=4, layers=2)
    for block in adapter.blocks:
        torch.nn.init.normal_(block.up.weight, std=0.5)
    adapter.save_pretrained(folder / "hea")
    lora = LoraConfig(r=2, init_lora_weights=False, target_modules=r".*language_model.*(q_proj|v_proj)")
    get_peft_model(llava.model, lora).save_pretrained(folder / "lora")
    yield {path.name: path for path in folder.iterdir()}
    PROCESSOR_MAPPING._extra_content.pop(Qwen2_5_VLConfig, None)


@pytest.fixture
def example(pictures):
    image = next(iter(pictures.values()))
    return {"image": image, "prompt": "Is there a dog in the image?", "choices": ["Yes", "No"]}


def edit(file: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Damage: change a JSON file's object."""

    def damage(folder: Path) -> None:
        value = json.loads((folder / file).read_text())
        change(value)
        (folder / file).write_text(json.dumps(value))

    return damage


def put(file: str, content: str | bytes) -> Callable[[Path], None]:
    """Damage: write a file."""

    def damage(folder: Path) -> None:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def drop(*files: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / file).unlink() for file in files] and None


def tensors(change: Callable[[dict], object], file: str = "model.safetensors") -> Callable[[Path], None]:
    """Damage: change a safetensors file's tensors."""

    def damage(folder: Path) -> None:
        found = load_file(folder / file)
        change(found)
        save_file(found, folder / file, metadata={"format": "pt"})

    return damage


def cut(size: int, file: str = "model.safetensors") -> Callable[[Path], None]:
    """Damage: keep the first bytes of a file (a negative size drops as many)."""
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size]) and None


def both(*damages: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [damage(folder) for damage in damages] and None


def shard(folder: Path) -> None:
    """The same weights in two parts with an index."""
    found = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(found)
    parts = {f"model-{i + 1:05d}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, inside in parts.items():
        save_file({name: found[name] for name in inside}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickled(folder: Path) -> None:
    """The same weights as a pickle."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def says(expected: str, found: object, folder: Path, model: Path | str = "") -> None:
    """The error's text is one line, equal to what is expected; FOLDER is the damaged one, MODEL the model's, ... anything."""
    assert "\n" not in str(found)
    pattern = (
        re.escape(expected)
        .replace("FOLDER", re.escape(str(folder)))
        .replace("MODEL", re.escape(str(model)))
        .replace(re.escape("..."), ".*")
    )
    assert re.fullmatch(pattern, str(found)), f"{found}\nexpected {expected}"


DOWN = "language_model.model.layers.1.mlp.down_proj.weight"  # as llava's file calls it; the model puts "model." another way
EMBEDDING = "language_model.model.embed_tokens.weight"


def text(**changes: object) -> Callable[[Path], None]:
    return edit("config.json", lambda config: config["text_config"].update(changes))


def top(**changes: object) -> Callable[[Path], None]:
    return edit("config.json", lambda config: config.update(changes))


def spoil(value: float, *names: str) -> Callable[[Path], None]:
    return tensors(lambda found: [found[name].view(-1)[3:4].fill_(value) for name in names])


def other_processor(folder: Path) -> LlavaNextProcessor:
    """LLaVA-NeXT's processor with the same tokenizer."""
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    template = (folder / "chat_template.jinja").read_text()
    return LlavaNextProcessor(LlavaNextImageProcessorPil(), tokenizer, patch_size=16, chat_template=template)


def more_words(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.add_tokens(["surprise"])
    processor.save_pretrained(folder)


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    # settings
    "no config.json": (drop("config.json"), "FOLDER: no model here: expected a folder with config.json"),
    "an empty config": (put("config.json", ""), "FOLDER/config.json:1: not JSON: Expecting value"),
    "a config cut off": (cut(100, "config.json"), "FOLDER/config.json:6: not JSON: Unterminated string starting at"),
    "a config that is a list": (put("config.json", "[]"), "FOLDER/config.json: expected a JSON object, got list"),
    "a config in UTF-16": (put("config.json", "{}".encode("utf-16")), "FOLDER/config.json: expected UTF-8 text"),
    "a config nested too deep": (put("config.json", "[" * 100_000), "FOLDER/config.json: cannot be read: ..."),
    "a config with an endless number": (put("config.json", '{"a": ' + "1" * 5000 + "}"), "FOLDER/config.json: cannot be read: ..."),
    "no family": (
        edit("config.json", lambda c: c.pop("model_type")),
        "FOLDER/config.json: model_type: expected the name of a model family, got None",
    ),
    "a family that is a number": (top(model_type=7), "FOLDER/config.json: model_type: expected the name of a model family, got 7"),
    "a family that nobody knows": (
        top(model_type="lava"),
        "FOLDER: cannot be loaded as a vision-language model: The checkpoint you are trying to load has model type `lava` ...",
    ),
    "a model without pictures": (
        top(model_type="llama"),
        "FOLDER/config.json: llama takes no pictures: expected a vision-language model",
    ),
    "a width in words": (
        text(hidden_size="wide"),
        "FOLDER: cannot be loaded as a vision-language model: Validation error for field 'hidden_size': TypeError: Field ...",
    ),
    "a negative width": (
        text(hidden_size=-1),
        "FOLDER: cannot be loaded as a vision-language model: Class validation error for validator ...",
    ),
    "no text part": (
        top(text_config=7),
        "FOLDER: cannot be loaded as a vision-language model: Validation error for field 'text_config': TypeError: Field ...",
    ),
    "heads that do not divide the width": (
        text(num_attention_heads=3, head_dim=None),
        "FOLDER: cannot be loaded as a vision-language model: Class validation error for validator ...",
    ),
    "an unknown activation": (text(hidden_act="relux"), "FOLDER: cannot be loaded as a vision-language model: KeyError: 'relux'"),
    "generation settings cut off": (
        cut(20, "generation_config.json"),
        "FOLDER/generation_config.json:2: not JSON: Unterminated string starting at",
    ),
    # weights and config
    "a layer too few": (
        text(num_hidden_layers=3),
        "FOLDER: its weights lack 9 tensors that config.json describes: language_model.model.layers.2.input_layernorm.weight, language_model.model.layers.2.mlp.down_proj.weight, language_model.model.layers.2.mlp.gate_proj.weight and 6 more",
    ),
    "a layer too many": (
        text(num_hidden_layers=1),
        "FOLDER: its weights hold 9 tensors that config.json does not describe: language_model.model.layers.1.input_layernorm.weight, language_model.model.layers.1.mlp.down_proj.weight, language_model.model.layers.1.mlp.gate_proj.weight and 6 more",
    ),
    "another inner width": (
        text(intermediate_size=48),
        "FOLDER: 6 tensors not of the shape that config.json describes: language_model.model.layers.0.mlp.down_proj.weight is [32, 64], expected [32, 48], and 5 more",
    ),
    "another vocabulary": (
        text(vocab_size=200),
        "FOLDER: 1 tensor not of the shape that config.json describes: language_model.model.embed_tokens.weight is [147, 32], expected [200, 32]",
    ),
    "another eye": (
        edit("config.json", lambda c: c["vision_config"].update(num_hidden_layers=2)),
        "FOLDER: its weights lack 16 tensors that config.json describes: vision_tower.encoder.layers.1.layer_norm1.bias, vision_tower.encoder.layers.1.layer_norm1.weight, vision_tower.encoder.layers.1.layer_norm2.bias and 13 more",
    ),
    "a tensor missing": (
        tensors(lambda found: found.pop(DOWN)),
        "FOLDER: its weights lack 1 tensor that config.json describes: language_model.model.layers.1.mlp.down_proj.weight",
    ),
    "the tied embedding missing": (
        tensors(lambda found: found.pop(EMBEDDING)),
        "FOLDER: its weights lack 1 tensor that config.json describes: language_model.model.embed_tokens.weight",
    ),
    "a tensor too many": (
        tensors(lambda found: found.update(surprise=torch.zeros(2))),
        "FOLDER: its weights hold 1 tensor that config.json does not describe: surprise",
    ),
    "a tensor of another shape": (
        tensors(lambda found: found.update({DOWN: torch.zeros(3, 3)})),
        "FOLDER: 1 tensor not of the shape that config.json describes: language_model.model.layers.1.mlp.down_proj.weight is [3, 3], expected [32, 64]",
    ),
    "another model's tensors": (
        lambda folder: save_file({"a": torch.zeros(1)}, folder / "model.safetensors"),
        "FOLDER: its weights lack 47 tensors that config.json describes: model.language_model.embed_tokens.weight, model.language_model.layers.0.input_layernorm.weight, model.language_model.layers.0.mlp.down_proj.weight and 44 more",
    ),
    "NaN": (
        spoil(float("nan"), DOWN),
        "FOLDER: NaN or infinite values in 1 tensor: language_model.model.layers.1.mlp.down_proj.weight; expected finite weights",
    ),
    "infinity": (
        spoil(float("inf"), EMBEDDING),
        "FOLDER: NaN or infinite values in 1 tensor: language_model.model.embed_tokens.weight; expected finite weights",
    ),
    "NaN in many": (
        tensors(lambda found: [t.fill_(torch.nan) for t in found.values()]),
        "FOLDER: NaN or infinite values in 47 tensors: language_model.model.embed_tokens.weight, language_model.model.layers.0.input_layernorm.weight, language_model.model.layers.0.mlp.down_proj.weight and 44 more; expected finite weights",
    ),
    # files
    "no weights": (
        drop("model.safetensors"),
        "FOLDER: no weights here: expected model.safetensors or model.safetensors.index.json",
    ),
    "an empty file": (put("model.safetensors", b""), "FOLDER/model.safetensors: not a whole safetensors file: ..."),
    "cut off in the header": (cut(500), "FOLDER/model.safetensors: not a whole safetensors file: ..."),
    "cut off in the numbers": (cut(-1000), "FOLDER/model.safetensors: not a whole safetensors file: ..."),
    "bytes at the end": (
        lambda f: put("model.safetensors", (f / "model.safetensors").read_bytes() + b"00")(f),
        "FOLDER/model.safetensors: not a whole safetensors file: ...",
    ),
    "a header without end": (put("model.safetensors", b"\xff" * 16), "FOLDER/model.safetensors: not a whole safetensors file: ..."),
    "no tensors": (lambda folder: save_file({}, folder / "model.safetensors"), "FOLDER/model.safetensors: holds no tensors"),
    "a pointer of git lfs": (
        put("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "FOLDER/model.safetensors: not a whole safetensors file: ...",
    ),
    "a folder for a file": (
        lambda f: drop("model.safetensors")(f) or (f / "model.safetensors").mkdir(),
        "FOLDER: no weights here: expected model.safetensors or model.safetensors.index.json",
    ),
    "a part missing": (
        both(shard, drop("model-00002-of-00002.safetensors")),
        "FOLDER: 1 of 2 parts of the weights are missing: model-00002-of-00002.safetensors",
    ),
    "a part cut off": (
        both(shard, cut(-10, "model-00001-of-00002.safetensors")),
        "FOLDER/model-00001-of-00002.safetensors: not a whole safetensors file: ...",
    ),
    "a part without its tensor": (
        both(shard, tensors(lambda found: found.pop(EMBEDDING), "model-00001-of-00002.safetensors")),
        "FOLDER/model-00001-of-00002.safetensors: lacks 1 tensor that model.safetensors.index.json places there: language_model.model.embed_tokens.weight",
    ),
    "an index without a map": (
        both(shard, put("model.safetensors.index.json", "{}")),
        "FOLDER/model.safetensors.index.json: weight_map: expected an object from tensors to files",
    ),
    "an index cut off": (
        both(shard, cut(100, "model.safetensors.index.json")),
        "FOLDER/model.safetensors.index.json:1: not JSON: Unterminated string starting at",
    ),
    "an index that leaves its folder": (
        both(shard, edit("model.safetensors.index.json", lambda i: i["weight_map"].update(a="../a.safetensors"))),
        "FOLDER/model.safetensors.index.json: expected the names of safetensors files beside it, got '../a.safetensors'",
    ),
    "an index with a pickle": (
        both(shard, edit("model.safetensors.index.json", lambda i: i["weight_map"].update(a="a.bin"))),
        "FOLDER/model.safetensors.index.json: expected the names of safetensors files beside it, got 'a.bin'",
    ),
    "a pickle": (
        pickled,
        "FOLDER: its weights are a pickle (pytorch_model.bin), which can run code: expected safetensors; if you trust it, convert it: python -c ...",
    ),
    "a pickle by name": (
        both(pickled, top(transformers_weights="pytorch_model.bin")),
        "FOLDER/config.json: transformers_weights: expected a safetensors file, got 'pytorch_model.bin'",
    ),
    "a pickle in parts": (
        both(drop("model.safetensors"), put("pytorch_model.bin.index.json", "{}")),
        "FOLDER: its weights are a pickle (pytorch_model.bin.index.json), which can run code: expected safetensors; if you trust it, convert it: python -c ...",
    ),
    "an adapter in the model's folder": (
        put("adapter_config.json", "{}"),
        "FOLDER: holds an adapter (adapter_config.json) beside the model: put it into its own folder, pass adapter=",
    ),
    # processors
    "no processor": (
        drop("processor_config.json"),
        "FOLDER: weights without a processor: expected processor_config.json or preprocessor_config.json",
    ),
    "no tokenizer": (
        drop("tokenizer.json"),
        "FOLDER: a processor without a tokenizer: expected tokenizer.json, or another family's vocabulary file",
    ),
    "no chat template": (drop("chat_template.jinja"), "FOLDER: its processor has no chat template: expected chat_template.jinja"),
    "a chat template that is none": (
        put("chat_template.jinja", "{% for m in %}"),
        "FOLDER: its chat template cannot be used: TemplateSyntaxError: Expected an expression, got 'end of ...",
    ),
    "a chat template without the picture": (
        put("chat_template.jinja", "{% for m in messages %}hello{% endfor %}"),
        "FOLDER: its chat template does not hold one image, one prompt and one answer",
    ),
    "a chat template that asks for too much": (
        put("chat_template.jinja", "{{ messages.__class__.__mro__ }}"),
        "FOLDER: its chat template cannot be used: SecurityError: access to attribute '__class__' of 'list' ...",
    ),
    "a tokenizer cut off": (cut(300, "tokenizer.json"), "FOLDER/tokenizer.json:17: not JSON: Unterminated string starting at"),
    "a processor's settings that are a list": (
        put("processor_config.json", "[]"),
        "FOLDER/processor_config.json: expected a JSON object, got list",
    ),
    "a processor's class that nobody knows": (
        edit("processor_config.json", lambda p: p.update(processor_class="Lava")),
        "FOLDER: its processor is a TokenizersBackend: expected one for pictures and text",
    ),
    "an image processor that nobody knows": (
        edit("processor_config.json", lambda p: p["image_processor"].update(image_processor_type="Lava")),
        "FOLDER: cannot be loaded as a vision-language model: Unrecognized image processor in FOLDER. Should have a ...",
    ),
    "another model's placeholder": (
        top(image_token_index=7),
        "FOLDER: its processor is another model's: it marks pictures with token 4 (<image>), config.json expects token 7",
    ),
    "another family's processor": (
        lambda f: other_processor(f).save_pretrained(f),
        "FOLDER: its processor is another family's: config.json describes llava, which takes LlavaProcessor, got LlavaNextProcessor",
    ),
    "another model's tokenizer": (
        more_words,
        "FOLDER: its tokenizer is another model's: it has token 147, the model embeds tokens 0 to 146",
    ),
    # code
    "another family's code": (
        both(
            top(model_type="lava", auto_map={"AutoConfig": "modeling.Config", "AutoModelForImageTextToText": "modeling.Model"}),
        ),
        "FOLDER/config.json: auto_map: its family 'lava' needs the repository's own code, which is not run: read it, then pass trust_remote_code=True",
    ),
    "InternVL's first format": (
        top(model_type="internvl_chat", auto_map={"AutoModel": "modeling.Model"}),
        "FOLDER: in InternVL's first format, ...: expected a checkpoint whose name ends in -hf; InternVL2-8B has none: the nearest ...",
    ),
}


HEA, LORA = "hea.safetensors", "adapter_model.safetensors"
UP = "blocks.1.up.weight"


def config(file: str, **changes: object) -> Callable[[Path], None]:
    return edit(file, lambda found: found.update(changes))


HEAS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (
        lambda folder: shutil.rmtree(folder),
        "FOLDER: no adapter here: expected a folder with hea_config.json or adapter_config.json",
    ),
    "an empty folder": (
        drop("hea_config.json", HEA),
        "FOLDER: no adapter here: expected a folder with hea_config.json or adapter_config.json",
    ),
    "no weights": (drop(HEA), "FOLDER: no weights here: expected hea.safetensors"),
    "weights cut off": (cut(-8, HEA), "FOLDER/hea.safetensors: not a whole safetensors file: ..."),
    "empty weights": (put(HEA, b""), "FOLDER/hea.safetensors: not a whole safetensors file: ..."),
    "a config cut off": (cut(8, "hea_config.json"), "FOLDER/hea_config.json:2: not JSON: Unterminated string starting at"),
    "a config that is a list": (put("hea_config.json", "[]"), "FOLDER/hea_config.json: expected a JSON object, got list"),
    "a key too many": (
        config("hea_config.json", colour="red"),
        "FOLDER/hea_config.json: expected width, rank, layers, each a positive whole number, got {'layers': 2, 'rank': 4, 'width': 32, 'colour': 'red'}",
    ),
    "a key too few": (
        edit("hea_config.json", lambda c: c.pop("rank")),
        "FOLDER/hea_config.json: expected width, rank, layers, each a positive whole number, got {'layers': 2, 'width': 32}",
    ),
    "a rank in words": (
        config("hea_config.json", rank="four"),
        "FOLDER/hea_config.json: expected width, rank, layers, each a positive whole number, got {'layers': 2, 'rank': 'four', 'width': 32}",
    ),
    "a rank that is a fraction": (
        config("hea_config.json", rank=4.0),
        "FOLDER/hea_config.json: expected width, rank, layers, each a positive whole number, got {'layers': 2, 'rank': 4.0, 'width': 32}",
    ),
    "a rank that is true": (
        config("hea_config.json", rank=True),
        "FOLDER/hea_config.json: expected width, rank, layers, each a positive whole number, got {'layers': 2, 'rank': True, 'width': 32}",
    ),
    "no rank": (
        config("hea_config.json", rank=0),
        "FOLDER/hea_config.json: expected width, rank, layers, each a positive whole number, got {'layers': 2, 'rank': 0, 'width': 32}",
    ),
    "another rank": (
        config("hea_config.json", rank=8),
        "FOLDER: 6 tensors not of the shape that hea_config.json describes: blocks.0.down.bias is [4], expected [8], and 5 more",
    ),
    "a giant": (
        config("hea_config.json", width=10**12),
        "FOLDER: 6 tensors not of the shape that hea_config.json describes: blocks.0.down.weight is [4, 32], expected [4, 1000000000000], and 5 more",
    ),
    "layers without end": (
        config("hea_config.json", layers=10**12),
        "FOLDER: its weights lack 28 tensors that hea_config.json describes: blocks.2.down.bias, blocks.2.down.weight, blocks.2.up.bias and 25 more",
    ),
    "a layer too few": (
        config("hea_config.json", layers=1),
        "FOLDER: its weights hold 4 tensors that hea_config.json does not describe: blocks.1.down.bias, blocks.1.down.weight, blocks.1.up.bias and 1 more",
    ),
    "a tensor missing": (
        tensors(lambda found: found.pop(UP), HEA),
        "FOLDER: its weights lack 1 tensor that hea_config.json describes: blocks.1.up.weight",
    ),
    "a tensor too many": (
        tensors(lambda found: found.update(surprise=torch.zeros(2)), HEA),
        "FOLDER: its weights hold 1 tensor that hea_config.json does not describe: surprise",
    ),
    "a tensor of another shape": (
        tensors(lambda found: found.update({UP: torch.zeros(4, 32)}), HEA),
        "FOLDER: 1 tensor not of the shape that hea_config.json describes: blocks.1.up.weight is [4, 32], expected [32, 4]",
    ),
    "NaN": (
        tensors(lambda found: found[UP].fill_(torch.nan), HEA),
        "FOLDER/hea.safetensors: NaN or infinite values in 1 tensor: blocks.1.up.weight; expected finite weights",
    ),
    "infinity": (
        tensors(lambda found: found[UP].view(-1)[5:6].fill_(torch.inf), HEA),
        "FOLDER/hea.safetensors: NaN or infinite values in 1 tensor: blocks.1.up.weight; expected finite weights",
    ),
    "another model's width": (
        lambda folder: HallucinationEliminationAdapter(64, rank=4, layers=1).save_pretrained(folder),
        "FOLDER: not an adapter for MODEL: adapter: made for hidden width 64, the model's is 32",
    ),
    "more layers than the model": (
        lambda folder: HallucinationEliminationAdapter(32, rank=4, layers=3).save_pretrained(folder),
        "FOLDER: not an adapter for MODEL: adapter: has 3 layers, the model only 2",
    ),
}
A = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight"

LORAS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (
        drop("adapter_config.json"),
        "FOLDER: no adapter here: expected a folder with hea_config.json or adapter_config.json",
    ),
    "no weights": (drop(LORA), "FOLDER: no weights here: expected adapter_model.safetensors"),
    "weights cut off": (cut(-8, LORA), "FOLDER/adapter_model.safetensors: not a whole safetensors file: ..."),
    "empty weights": (put(LORA, b""), "FOLDER/adapter_model.safetensors: not a whole safetensors file: ..."),
    "a pickle": (
        lambda f: torch.save(load_file(f / LORA), f / "adapter_model.bin") or (f / LORA).unlink(),
        "FOLDER/adapter_model.bin: a pickle, which can run code: expected safetensors; if you trust it, convert it: python -c ...",
    ),
    "a config cut off": (cut(30, "adapter_config.json"), "FOLDER/adapter_config.json:2: not JSON: Expecting value"),
    "a config that is a number": (put("adapter_config.json", "7"), "FOLDER/adapter_config.json: expected a JSON object, got int"),
    "no kind": (
        edit("adapter_config.json", lambda c: c.pop("peft_type")),
        'FOLDER/adapter_config.json: peft_type: expected a name that peft knows, such as "LORA", got None',
    ),
    "a kind that is a list": (
        config("adapter_config.json", peft_type=["LORA"]),
        "FOLDER/adapter_config.json: peft_type: expected a name that peft knows, such as \"LORA\", got ['LORA']",
    ),
    "a kind that nobody knows": (
        config("adapter_config.json", peft_type="LAVA"),
        "FOLDER/adapter_config.json: peft_type: expected a name that peft knows, such as \"LORA\", got 'LAVA'",
    ),
    "another kind": (
        config("adapter_config.json", peft_type="IA3"),
        "FOLDER: not an adapter for MODEL: Please specify `feedforward_modules` in `peft_config`",
    ),
    "a rank in words": (
        config("adapter_config.json", r="2"),
        "FOLDER/adapter_config.json: r: expected a whole number of at least 1, got '2'",
    ),
    "no rank": (
        config("adapter_config.json", r=0),
        "FOLDER/adapter_config.json: r: expected a whole number of at least 1, got '0'",
    ),
    "another rank": (
        config("adapter_config.json", r=4),
        "FOLDER: 8 tensors not of the shape that adapter_config.json describes: base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight is [2, 32], expected [4, 32], and 7 more",
    ),
    "a rank of null": (
        config("adapter_config.json", r=None),
        "FOLDER/adapter_config.json: r: expected a whole number of at least 1, got 'None'",
    ),
    "a list for alpha": (
        config("adapter_config.json", lora_alpha=[8]),
        "FOLDER/adapter_config.json: lora_alpha: expected a number of at least 0, got '[8]'",
    ),
    "dropout above one": (
        config("adapter_config.json", lora_dropout=7),
        "FOLDER/adapter_config.json: lora_dropout: expected a number from 0 to 1, got '7'",
    ),
    "dropout in words": (
        config("adapter_config.json", lora_dropout="0.1"),
        "FOLDER/adapter_config.json: lora_dropout: expected a number from 0 to 1, got '0.1'",
    ),
    "target modules that are a number": (
        config("adapter_config.json", target_modules=7),
        "FOLDER/adapter_config.json: target_modules: expected a name, a list of names or null, got '7'",
    ),
    "target modules that are numbers": (
        config("adapter_config.json", target_modules=[7]),
        "FOLDER/adapter_config.json: target_modules: expected a name, a list of names or null, got '[7]'",
    ),
    "target modules that are no pattern": (
        config("adapter_config.json", target_modules="(("),
        "FOLDER: not an adapter for MODEL: ...",
    ),
    "target modules that are nowhere": (
        config("adapter_config.json", target_modules=["nowhere"]),
        "FOLDER: not an adapter for MODEL: Target modules {'nowhere'} not found in the base model. ...",
    ),
    "fewer target modules": (
        config("adapter_config.json", target_modules=r".*language_model.*q_proj"),
        "FOLDER: its weights hold 4 tensors that adapter_config.json does not describe: base_model.model.model.language_model.layers.0.self_attn.v_proj.lora_A.weight, base_model.model.model.language_model.layers.0.self_attn.v_proj.lora_B.weight, base_model.model.model.language_model.layers.1.self_attn.v_proj.lora_A.weight and 1 more",
    ),
    "more target modules": (
        config("adapter_config.json", target_modules=r".*language_model.*(q|v|k)_proj"),
        "FOLDER: its weights lack 4 tensors that adapter_config.json describes: base_model.model.model.language_model.layers.0.self_attn.k_proj.lora_A.weight, base_model.model.model.language_model.layers.0.self_attn.k_proj.lora_B.weight, base_model.model.model.language_model.layers.1.self_attn.k_proj.lora_A.weight and 1 more",
    ),
    "a bias that nobody knows": (
        config("adapter_config.json", bias="some"),
        'FOLDER/adapter_config.json: bias: expected "none", "all" or "lora_only", got \'some\'',
    ),
    "a flag in words": (
        config("adapter_config.json", use_dora="no"),
        "FOLDER/adapter_config.json: use_dora: expected true or false, got 'no'",
    ),
    "a table that is a list": (
        config("adapter_config.json", rank_pattern=[1]),
        "FOLDER/adapter_config.json: rank_pattern: expected an object, got '[1]'",
    ),
    "a task that nobody knows": (
        config("adapter_config.json", task_type="COOK"),
        "FOLDER: not an adapter for MODEL: Invalid task type: 'COOK'. Must be one of the following ...",
    ),
    "a module to import": (
        config("adapter_config.json", megatron_config={"a": 1}, megatron_core="antigravity"),
        "FOLDER/adapter_config.json: megatron_config: expected null, got an adapter for Megatron",
    ),
    "a tensor missing": (
        tensors(lambda found: found.pop(A), LORA),
        "FOLDER: its weights lack 1 tensor that adapter_config.json describes: base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight",
    ),
    "a tensor too many": (
        tensors(lambda found: found.update({A.replace("q_proj", "o_proj"): torch.zeros(2, 32)}), LORA),
        "FOLDER: its weights hold 1 tensor that adapter_config.json does not describe: base_model.model.model.language_model.layers.1.self_attn.o_proj.lora_A.weight",
    ),
    "a stranger": (
        tensors(lambda found: found.update(surprise=torch.zeros(2)), LORA),
        "FOLDER: its weights hold 1 tensor that adapter_config.json does not describe: surprise",
    ),
    "a tensor of another shape": (
        tensors(lambda found: found.update({A: torch.zeros(2, 7)}), LORA),
        "FOLDER: 1 tensor not of the shape that adapter_config.json describes: base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight is [2, 7], expected [2, 32]",
    ),
    "NaN": (
        tensors(lambda found: found[A].fill_(torch.nan), LORA),
        "FOLDER/adapter_model.safetensors: NaN or infinite values in 1 tensor: base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight; expected finite weights",
    ),
    "another model's": (
        lambda f: get_peft_model(tiny_vlm(64).model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(f),
        "FOLDER: 4 tensors not of the shape that adapter_config.json describes: base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight is [2, 64], expected [2, 32], and 3 more",
    ),
}

QWENS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a layer too few": (
        edit("config.json", lambda c: c["text_config"].update(num_hidden_layers=3)),
        "FOLDER: cannot be loaded as a vision-language model: Class validation error for validator 'validate_layer_type': ...",
    ),
    "a tensor missing": (
        tensors(lambda found: found.pop("visual.blocks.0.attn.qkv.weight")),
        "FOLDER: its weights lack 1 tensor that config.json describes: visual.blocks.0.attn.qkv.weight",
    ),
    "NaN": (
        spoil(float("nan"), "lm_head.weight"),
        "FOLDER: NaN or infinite values in 1 tensor: lm_head.weight; expected finite weights",
    ),
    "another eye": (
        edit("config.json", lambda c: c["vision_config"].update(depth=1)),
        "FOLDER: its weights hold 12 tensors that config.json does not describe: visual.blocks.1.attn.proj.bias, visual.blocks.1.attn.proj.weight, visual.blocks.1.attn.qkv.bias and 9 more",
    ),
    "cut off": (cut(-1), "FOLDER/model.safetensors: not a whole safetensors file: ..."),
    "a pickle": (
        pickled,
        "FOLDER: its weights are a pickle (pytorch_model.bin), which can run code: expected safetensors; if you trust it, convert it: python -c ...",
    ),
}


CASES = [("llava", case) for case in MODELS] + [("qwen", case) for case in QWENS]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_a_damaged_checkpoint_is_refused_in_one_line(family, case, checkpoints, tmp_path):
    damage, expected = (MODELS if family == "llava" else QWENS)[case]
    folder = shutil.copytree(checkpoints[family], tmp_path / "m")
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_vlm(folder)
    says(expected, caught.value, folder)


@pytest.mark.parametrize(("kind", "case"), [("hea", case) for case in HEAS] + [("lora", case) for case in LORAS])
def test_a_damaged_adapter_is_refused_in_one_line(kind, case, checkpoints, tmp_path):
    damage, expected = (HEAS if kind == "hea" else LORAS)[case]
    folder = shutil.copytree(checkpoints[kind], tmp_path / "a")
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_vlm(checkpoints["llava"], adapter=folder)
    says(expected, caught.value, folder, checkpoints["llava"])


def test_an_adapter_of_another_family_is_refused(checkpoints):
    with pytest.raises(UserError) as caught:
        load_vlm(checkpoints["qwen"], adapter=checkpoints["lora"])
    expected = "made for a LlavaForConditionalGeneration, the model is a Qwen2_5_VLForConditionalGeneration"
    says(f"FOLDER/adapter_config.json: {expected}", caught.value, checkpoints["lora"])


OPTIONS: dict[str, tuple[dict, str]] = {
    "trust in words": ({"trust_remote_code": "no"}, "trust_remote_code: expected True or False, got 'no'"),
    "a type that nobody knows": (
        {"dtype": "bf17"},
        'dtype: expected "auto" or a floating-point type such as "bfloat16", got \'bf17\'',
    ),
    "whole numbers": ({"dtype": torch.int8}, 'dtype: expected "auto" or a floating-point type such as "bfloat16", got torch.int8'),
    "a device that nobody knows": (
        {"device": "banana"},
        'device: expected "auto", "cpu" or a device that this machine has, got \'banana\'',
    ),
    "a device that is not there": (
        {"device": "cuda:77"},
        'device: expected "auto", "cpu" or a device that this machine has, got \'cuda:77\'',
    ),
    "two places": ({"device": "cpu", "device_map": "auto"}, "device: expected one of device and device_map, got 'cpu' and 'auto'"),
    "a map to nowhere": (
        {"device_map": {"": "banana"}},
        "FOLDER: cannot be loaded as a vision-language model: Expected one of cpu, ... device string: banana",
    ),
    "a map in words": (
        {"device_map": "somewhere"},
        "FOLDER: cannot be loaded as a vision-language model: When passing device_map as a string, ... found somewhere.",
    ),
    "an attention that nobody knows": (
        {"attn_implementation": "telepathy"},
        'FOLDER: cannot be loaded as a vision-language model: Specified `attn_implementation="telepathy"` is not supported. ...',
    ),
    "a quantisation that nobody knows": (
        {"quantization_config": {"quant_method": "guess"}},
        "FOLDER: cannot be loaded as a vision-language model: Unknown quantization type, got guess - supported ...",
    ),
    "a processor's setting that nobody knows": (
        {"processor_options": {"max_pixles": 3}},
        "FOLDER: processor_options: max_pixles: no such setting of CLIPImageProcessorPil",
    ),
    "another processor's setting": (
        {"processor_options": {"max_pixels": 3}},
        "FOLDER: processor_options: max_pixels: no such setting of CLIPImageProcessorPil",
    ),
    "trust by the back door": (
        {"processor_options": {"trust_remote_code": True}},
        "FOLDER: processor_options: trust_remote_code: no such setting of CLIPImageProcessorPil",
    ),
    "a list of settings": ({"processor_options": ["size"]}, "processor_options: expected an object of settings, got ['size']"),
    "a setting of the wrong type": (
        {"processor_options": {"size": "large"}},
        "FOLDER: cannot be loaded as a vision-language model: Could not convert size input to size dict: large",
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_cannot_be_is_refused_in_one_line(case, checkpoints):
    options, expected = OPTIONS[case]
    with pytest.raises(UserError) as caught:
        load_vlm(checkpoints["llava"], **options)
    says(expected, caught.value, checkpoints["llava"])


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_parts_answer_as_the_whole_does(family, checkpoints, example, tmp_path):
    folder = shutil.copytree(checkpoints[family], tmp_path / "m")
    shard(folder)
    whole, parts = load_vlm(checkpoints[family]), load_vlm(folder, trust_remote_code=False, revision="main")
    assert score_choices(parts, [example])[0] == pytest.approx(score_choices(whole, [example])[0], abs=1e-5)
    assert not whole.model.training


def test_a_checkpoint_keeps_its_precision_or_takes_the_one_asked_for(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["llava"], tmp_path / "m")
    both(tensors(lambda found: found.update({k: t.bfloat16() for k, t in found.items()})), top(dtype="bfloat16"))(folder)
    assert load_vlm(folder).head.dtype == torch.bfloat16
    assert load_vlm(folder, dtype="float32").head.dtype == load_vlm(folder, dtype=torch.float32).head.dtype == torch.float32
    assert load_vlm(checkpoints["llava"], dtype="float16").head.dtype == torch.float16


def test_weights_that_a_smaller_range_cannot_hold_are_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["llava"], tmp_path / "m")
    spoil(1e30, DOWN)(folder)
    assert load_vlm(folder).head.dtype == torch.float32
    with pytest.raises(UserError, match=f"NaN or infinite values in 1 tensor: {re.escape(DOWN)}"):
        load_vlm(folder, dtype="float16")


@pytest.mark.parametrize("where", [{"device": "cpu"}, {"device_map": "cpu"}, {"device_map": {"": "cpu"}}])
@pytest.mark.parametrize("kind", [None, "hea", "lora"])
def test_an_adapter_answers_the_same_wherever_the_model_is_put(kind, where, checkpoints, example):
    adapter = kind and checkpoints[kind]
    scores = score_choices(load_vlm(checkpoints["llava"], adapter, **where), [example])
    assert scores[0] == pytest.approx(score_choices(load_vlm(checkpoints["llava"], adapter), [example])[0], abs=1e-5)
    plain = score_choices(load_vlm(checkpoints["llava"]), [example])
    assert (scores[0] == pytest.approx(plain[0], abs=1e-5)) == (kind is None)


def test_attention_is_the_one_asked_for(checkpoints, example):
    models = {kind: load_vlm(checkpoints["llava"], device="cpu", attn_implementation=kind) for kind in (None, "eager", "sdpa")}
    assert [vlm.core.config._attn_implementation for vlm in models.values()] == [PLAIN, "eager", "sdpa"]
    expected = score_choices(models[None], [example])[0]
    for vlm in models.values():
        assert score_choices(vlm, [example])[0] == pytest.approx(expected, abs=1e-4)


def test_a_processors_options_replace_the_checkpoints(checkpoints, example):
    images = load_vlm(checkpoints["llava"], processor_options={"do_normalize": False}).processor.image_processor
    assert not images.do_normalize and images.size["height"] == 64
    vlm, coarse = (load_vlm(checkpoints["qwen"], processor_options=o) for o in (None, {"min_pixels": 784, "max_pixels": 784}))
    tokens = [sum(vlm.image_token_id == i for i in vlm.prepare([example["image"]])["input_ids"][0]) for vlm in (vlm, coarse)]
    assert tokens[0] > tokens[1] == 1


def published(folder: Path) -> None:
    """LLaVA's tensors as the hub has them: names from before transformers 5, and a table of positions that no model keeps."""
    found = load_file(folder / "model.safetensors")
    found = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in found.items()}
    found["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_checkpoint_with_the_names_of_older_versions_loads(checkpoints, example, tmp_path):
    folder = shutil.copytree(checkpoints["llava"], tmp_path / "m")
    published(folder)
    expected = score_choices(load_vlm(checkpoints["llava"]), [example])[0]
    assert score_choices(load_vlm(folder), [example])[0] == pytest.approx(expected, abs=1e-5)


def test_a_config_that_ties_its_embeddings_may_leave_the_copy_out(checkpoints):
    assert not any("lm_head" in name for name in load_file(checkpoints["llava"] / "model.safetensors"))
    core = load_vlm(checkpoints["llava"]).core
    assert core.get_output_embeddings().weight.data_ptr() == core.get_input_embeddings().weight.data_ptr()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llava", "lora"])
def test_the_command_for_a_pickle_converts_it_whatever_the_folder_is_called(kind, checkpoints, example, tmp_path):
    folder = shutil.copytree(checkpoints[kind], tmp_path / "it's $(touch x);a b")
    weights = "model.safetensors" if kind == "llava" else LORA
    pickled(folder) if kind == "llava" else torch.save(load_file(folder / LORA), folder / "adapter_model.bin")
    (folder / weights).unlink(missing_ok=True)
    model, adapter = (folder, None) if kind == "llava" else (checkpoints["llava"], folder)
    with pytest.raises(UserError) as caught:
        load_vlm(model, adapter)
    command = str(caught.value).partition("convert it: python ")[2]
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True, cwd=tmp_path, capture_output=True)
    expected = load_vlm(checkpoints["llava"], adapter and checkpoints["lora"])
    scores = score_choices(load_vlm(model, adapter), [example])[0]
    assert scores == pytest.approx(score_choices(expected, [example])[0], abs=1e-5)
    assert not (tmp_path / "x").exists()


# What runs in a process of its own: each folder is loaded, and what comes of it printed.
CHILD = """
import sys
from hkd_core.common.errors import UserError
from hkd_core.models import load_vlm
trusted, *folders = sys.argv[1:]
for folder in folders:
    try:
        load_vlm(*folder.split("+"), device="cpu", trust_remote_code=trusted == "trusted")
        print("loaded")
    except UserError as error:
        print(error)
"""


def child(*arguments: object, stdin: str | None, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-c", CHILD, *map(str, arguments)]
    if stdin is None:
        command = ["bash", "-c", 'exec "$@" <&-', "bash", *command]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, input=stdin, text=True, capture_output=True, env=environment)


class Payload:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def without(*keys: str) -> Callable[[Path], None]:
    """Damage: no settings name the processor's class or others of `keys`."""
    files = ("processor_config.json", "tokenizer_config.json")
    return both(*(edit(file, lambda found: [found.pop(key, None) for key in keys]) for file in files))


AUTO = {"AutoConfig": "code.Code", "AutoModelForImageTextToText": "code.Code", "AutoProcessor": "code.Code"}
AUTO |= {"AutoImageProcessor": "code.Code", "AutoTokenizer": ["code.Code", "code.Code"]}
# Where a checkpoint can name code: each with what load_vlm says, or "loaded" where transformers' own class will do.
CODE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a family of its own": (top(model_type="lava", auto_map=AUTO), "FOLDER/config.json: auto_map: its family 'lava' needs ..."),
    "a known family": (top(auto_map=AUTO), "loaded"),
    "code of another repository": (
        top(model_type="lava", auto_map={"AutoConfig": "a/b--code.Code"}),
        "FOLDER/config.json: auto_map: its family 'lava' needs the repository's own code, which is not run: read it, then ...",
    ),
    "a text part of its own": (text(model_type="lava", auto_map=AUTO), "FOLDER: cannot be loaded as a vision-language model: ..."),
    "a processor": (edit("processor_config.json", lambda p: p.update(processor_class="Lava", auto_map=AUTO)), "FOLDER: ..."),
    "an image processor": (
        edit("processor_config.json", lambda p: p["image_processor"].update(image_processor_type="Lava", auto_map=AUTO)),
        "FOLDER: ...",
    ),
    "a tokenizer": (edit("tokenizer_config.json", lambda t: t.update(tokenizer_class="Lava", auto_map=AUTO)), "loaded"),
    "a tokenizer behind no processor's class": (
        both(without("processor_class"), edit("tokenizer_config.json", lambda t: t.update(tokenizer_class="Lava", auto_map=AUTO))),
        "loaded",
    ),
    "an image processor behind no processor's class": (
        both(
            without("processor_class"),
            edit("processor_config.json", lambda p: p["image_processor"].update(image_processor_type="Lava", auto_map=AUTO)),
        ),
        "FOLDER: ...",
    ),
    "generation": (top(custom_generate="code"), "loaded"),
}


@pytest.fixture
def with_code(checkpoints, tmp_path):
    """(folders that name code, what they say, the file that the code makes if it runs)."""
    mark, folders = tmp_path / "ran", []
    for number, (damage, _) in enumerate(CODE.values()):
        folder = shutil.copytree(checkpoints["llava"], tmp_path / f"m{number}")
        for place in (folder / "code.py", folder / "custom_generate" / "generate.py"):
            place.parent.mkdir(exist_ok=True)
            place.write_text(f"open({str(mark)!r}, 'w')\nclass Code: pass\ndef generate(model): pass\n")
        damage(folder)
        folders.append(folder)
    evil = shutil.copytree(checkpoints["llava"], tmp_path / "pickle")
    torch.save({"a": Payload(mark)}, evil / "pytorch_model.bin")
    (evil / "model.safetensors").unlink()
    pickled_lora = shutil.copytree(checkpoints["lora"], tmp_path / "lora")
    torch.save({"a": Payload(mark)}, pickled_lora / "adapter_model.bin")
    (pickled_lora / LORA).unlink()
    arguments = [*folders, evil, f"{checkpoints['llava']}+{pickled_lora}"]
    expected = [text for _, text in CODE.values()] + [
        "FOLDER: its weights are a pickle ...",
        "...: a pickle, which can run code...",
    ]
    return arguments, list(zip(expected, [*folders, evil, pickled_lora], strict=True)), mark


@pytest.mark.slow
@pytest.mark.parametrize("stdin", [None, "y\n" * 50], ids=["closed", "yes"])
def test_a_checkpoints_code_never_runs_and_nothing_is_asked(stdin, with_code):
    arguments, expected, mark = with_code
    done = child("untrusted", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()
    assert "Do you wish" not in done.stdout + done.stderr and not done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected)
    for line, (text, folder) in zip(lines, expected, strict=True):
        says(text, line, folder)


@pytest.mark.slow
def test_a_checkpoints_code_runs_if_asked(with_code):
    arguments, _, mark = with_code
    done = child("trusted", arguments[0], stdin="")
    assert mark.exists() and done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_hub_id_is_found_in_the_cache_and_what_is_not_there_is_one_line(checkpoints, tmp_path):
    for kind in ("llava", "hea", "lora", "pickle"):
        repository = tmp_path / "hub" / f"models--tiny--{kind}"
        snapshot = shutil.copytree(checkpoints["llava" if kind == "pickle" else kind], repository / "snapshots" / ("0" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
    pickled(snapshot)
    for file in ("model.safetensors", "model.safetensors.index.json"):  # how the cache says that the hub has no such file
        nowhere = repository / ".no_exist" / ("0" * 40) / file
        nowhere.parent.mkdir(parents=True, exist_ok=True)
        nowhere.touch()
    cases = {
        "tiny/llava": "loaded",
        "tiny/llava+tiny/hea": "loaded",
        "tiny/llava+tiny/lora": "loaded",
        "tiny/none": "tiny/none: no model here: expected a folder with config.json or the id of a model on ... (HF_HUB_OFFLINE is set)...",
        "tiny/llava+tiny/none": "tiny/none: no adapter here: expected a folder with hea_config.json or adapter_config.json",
        "tiny/pickle": "tiny/pickle: cannot be loaded as a vision-language model: it has no model.safetensors, and a pickle can run code...",
        "OpenGVLab/InternVL2-8B": "OpenGVLab/InternVL2-8B: ... InternVL2-8B has none: the nearest of its size is OpenGVLab/InternVL3-8B-hf, ...",
        "a/b/c": "a/b/c: no model here: ... Repo id must be in the form ...",
        "models/none": "models/none: no model here: expected a folder with config.json",
    }
    done = child("untrusted", *cases, stdin="", HF_HOME=str(tmp_path))
    lines = done.stdout.splitlines()
    assert len(lines) == len(cases), done.stderr
    for line, expected in zip(lines, cases.values(), strict=True):
        says(expected, line, tmp_path)

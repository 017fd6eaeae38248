"""Ways in which a checkpoint or an adapter can be damaged, each with the line that loading it must give. See test_loading.py."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from conftest import tiny_vlm
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from hkd_core.models import HallucinationEliminationAdapter


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

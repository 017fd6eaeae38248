"""Loading models: the contract's options, and every way in which a checkpoint from elsewhere can be wrong, as one line."""

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
from damage import DOWN, HEAS, LORA, LORAS, MODELS, QWENS, both, edit, pickled, shard, spoil, tensors, text, top
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2_5_VLConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
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
    for line, (wanted, folder) in zip(lines, expected, strict=True):
        says(wanted, line, folder)


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

"""What many tests need: a tiny model of the laptop's family, and a few scenes with their pictures."""

import random

import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import settings
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from hkd_core.models import VLM
from hkd_core.models.vlm import encode_all
from hkd_core.training.examples import TrainingSet
from hkd_core.world.render import render
from hkd_core.world.scenes import draw_scenes
from hkd_core.world.small_models import build_model, build_processor, build_tokenizer, vision_config
from hkd_core.world.tasks import task1, task2

# Machines are shared: no test fails for being slow.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def tiny_vlm(width: int = 32, layers: int = 2, seed: int = 0) -> VLM:
    """A real LLaVA with random weights, large enough that its answers differ."""
    torch.manual_seed(seed)
    model = build_model(vision_config(32, 1), width, layers)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return VLM(model.eval(), build_processor(), name=f"tiny{width}")


def tiny_qwen() -> VLM:
    """Another family: Qwen2.5-VL's own classes with random weights, its processor on the world's tokenizer."""
    words = build_tokenizer()
    special = {f"{name}_token": getattr(words, f"{name}_token") for name in ("bos", "eos", "pad", "unk")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, **special)
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    ids = dict(
        zip(
            ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"),
            map(tokenizer.convert_tokens_to_ids, marks),
            strict=True,
        )
    )
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    text |= {"rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 3, 3]}, "tie_word_embeddings": False}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 14,
        "fullatt_block_indexes": [1],
        "window_size": 56,
    }
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    images = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=84 * 84, patch_size=14)
    processor = PicturesOnly(image_processor=images, tokenizer=tokenizer, chat_template=QWEN_TEMPLATE)
    return VLM(model.eval(), processor, name="tiny-qwen")


QWEN_TEMPLATE = (
    "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %} {{ part['text'] }}{% endif %}{% endfor %}{% if m['role'] == 'assistant' %} </s>{% endif %}{% endfor %}"
)


class PicturesOnly(Qwen2_5_VLProcessor):
    """The real processor without its video side, which needs torchvision; a CPU set-up does without."""

    def check_argument_for_proper_class(self, argument_name, argument):
        return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)


@pytest.fixture(autouse=True)
def own_precision(monkeypatch):
    """Tests compute in float32 on every machine, unless one sets another precision. accelerate keeps the first one of a process."""
    monkeypatch.setenv("HKD_PRECISION", "float32")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def vlm() -> VLM:
    return tiny_vlm()


@pytest.fixture(scope="session")
def scenes():
    return draw_scenes("test", 40, seed=0)


@pytest.fixture(scope="session")
def pictures(scenes):
    return {scene.image_id: render(scene, seed=0, sizes=(9, 14), noise=0.1) for scene in scenes}


@pytest.fixture(scope="session")
def examples(scenes):
    """Task 1 and task 2 examples of every scene."""
    rng = random.Random(0)
    return [row for scene in scenes for row in (task1(scene, rng), task2(scene, rng)) if row]


def training_set(examples, pictures, **vlms):
    """Examples with the features of their pictures for every model."""
    ids = list(dict.fromkeys(row["image_id"] for row in examples))
    features = {name: dict(zip(ids, e, strict=True)) for name, e in encode_all(vlms, [pictures[i] for i in ids]).items()}
    return TrainingSet(vlms, examples, features)


@pytest.fixture
def trio():
    """Three models of different widths by their roles."""
    return {"teacher": tiny_vlm(64, 2, 1), "assistant": tiny_vlm(32, 3, 2), "student": tiny_vlm(32, 1, 3)}


@pytest.fixture
def strange(examples, pictures):
    """Examples of somebody else's: image, prompt, choices and answer alone."""
    keys = ("prompt", "choices", "answer")
    return [{"image": pictures[row["image_id"]]} | {key: row[key] for key in keys} for row in examples[:8]]

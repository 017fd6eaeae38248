"""What many tests need: a tiny model of the laptop's family, and a few scenes with their pictures."""

import random

import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import settings

from hkd_core.data.render import render
from hkd_core.data.scenes import draw_scenes
from hkd_core.data.tasks import task1, task2
from hkd_core.models import VLM
from hkd_core.models.small import build_model, build_processor, vision_config

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


@pytest.fixture(autouse=True)
def own_precision():
    """Every test chooses its precision: accelerate keeps the first one of a process."""
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

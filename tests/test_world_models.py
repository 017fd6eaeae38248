"""The small models' own parts: their lessons, attention by its formula, and training that gives the same bytes twice."""

import hashlib
import random
from collections import Counter
from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from hkd_core.models.attention import plain_attention
from hkd_core.training.trainer import Schedule, train
from hkd_core.world import language_pretraining, vision_pretraining
from hkd_core.world.facts import plural
from hkd_core.world.objects import OBJECTS
from hkd_core.world.render import render
from hkd_core.world.scenes import draw_scenes
from hkd_core.world.small_models import build_model, build_processor, vision_config


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_plain_attention_is_attention_also_under_autocast_and_with_rows_of_padding(precision, tolerance):
    q, k, v = torch.randn(3, 2, 4, 9, 16, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril()
    seen[1, :, :, :3] = False  # left padding: the first three rows see nothing at all
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        found = plain_attention(torch.nn.Module(), q, k, v, mask, 0.25)[0].transpose(1, 2).float()
    assert found.isfinite().all()
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), attn_mask=seen, scale=0.25).float()
    some = seen.any(-1)[:, :, :, None].expand_as(found)
    torch.testing.assert_close(found[some], expected[some], rtol=tolerance, atol=tolerance)


def test_gradients_of_plain_attention_also_where_queries_share_keys():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 9, 16, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    mask = torch.zeros(2, 1, 9, 9, dtype=torch.float64).masked_fill(~torch.ones(9, 9, dtype=torch.bool).tril(), -1e30)

    def reference(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.25, enable_gqa=True).transpose(1, 2)

    def ours(q, k, v):
        return plain_attention(torch.nn.Module(), q, k, v, mask, 0.25)[0]

    weight = torch.randn(2, 9, 4, 16, dtype=torch.float64)
    for one, other in zip(
        *(torch.autograd.grad((way(q, k, v) * weight).sum(), (q, k, v)) for way in (ours, reference)), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("lesson", [language_pretraining.short_conversation, language_pretraining.full_conversation])
def test_claims_in_a_lesson_are_judged_by_the_scene_and_by_the_context_before_them(lesson):
    rng, singular = random.Random(0), {plural(name): name for name in OBJECTS}
    given = Counter()
    for scene in draw_scenes("lesson", 300, seed=0):
        exercises = [exercise for exercise in islice(lesson(scene, rng), 12) if exercise]
        asked = exercises[0][0]
        hidden = {singular[word] for word in asked if word in singular} if asked[0] == "Out" else set()
        assert len(hidden) in (0, 2) and not hidden & set(scene.names)
        for question, answer in exercises:
            if question[0] != "Claim":
                continue
            claim = [word for word in question[2:] if word not in ("There", "is", "a", "an", ".")]
            truths = []
            for part in " ".join(claim).split(" and "):
                *color, name = part.split()
                seen = [thing for thing in scene.things if thing.name == name]
                truths.append(None if name in hidden else any(not color or thing.color == color[0] for thing in seen))
            verdict = "not verifiable" if None in truths else {0: "false", len(truths): "true"}.get(sum(truths), "partially true")
            assert " ".join(answer) == verdict
            given[verdict] += 1
    assert min(given.values()) > 50 and len(given) == 4


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_twice_on_several_threads_gives_the_same_bytes(optimizer):
    scenes = draw_scenes("symbols", 200, 0)
    data = language_pretraining.conversations(scenes, language_pretraining.short_conversation, length=48, seed=0)

    def digest() -> str:
        torch.manual_seed(0)
        model = build_model(vision_config(64, 1), 96, 2)
        objective = language_pretraining.SymbolicLanguage(model, language_pretraining.Symbols(96), noise=0.3)
        schedule = Schedule(12, 32, 3e-3, optimizer=optimizer)
        train(objective, language_pretraining.collate_conversations(data), len(scenes), schedule, seed=0)
        return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in objective.parameters())).hexdigest()

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert digest() == digest()
    finally:
        torch.set_num_threads(threads)


def test_what_the_tower_says_of_a_patch_tells_where_it_is():
    scenes = draw_scenes("sight", 64, seed=0)
    pixels = build_processor().image_processor(
        [render(s, seed=0, sizes=(12, 16), noise=0.05) for s in scenes], return_tensors="pt"
    )["pixel_values"]
    torch.manual_seed(0)
    tower = build_model(vision_config(32, 1), 32, 1).model.vision_tower
    vision_pretraining.start_vision(tower)
    objective = vision_pretraining.VisionPretraining(tower, noise=0.5)
    data = vision_pretraining.Labelled(pixels, *language_pretraining.cells_of(scenes))
    train(objective, vision_pretraining.collate_cells(**vars(data)), len(scenes), Schedule(300, 16, 1e-2), seed=0)
    with torch.no_grad():
        said = objective.place_head(objective.patches(pixels)).argmax(-1)
    assert (said == torch.arange(16)).float().mean() > 0.95

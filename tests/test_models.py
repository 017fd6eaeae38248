"""Any vision-language model behind one interface; the adapter that changes nothing until it has learned."""

import copy
import importlib.util
import json
import pickle

import numpy as np
import pytest
import torch
from conftest import tiny_qwen, tiny_vlm
from peft import LoraConfig, get_peft_model

from hkd_core.common.errors import UserError
from hkd_core.inference import score_choices
from hkd_core.inference.scoring import answer_logits
from hkd_core.models import HallucinationEliminationAdapter, load_vlm
from hkd_core.models.checkpoints import why_not
from hkd_core.models.vlm import encode_all
from hkd_core.training.examples import TrainingSet
from hkd_core.training.objectives import Supervised
from hkd_core.training.trainer import Schedule, train


def test_hidden_states_equal_what_transformers_computes_from_pixels(vlm, pictures):
    images, prompt = list(pictures.values())[:3], "Is there a dog in the image?"
    encoded = encode_all({"": vlm}, images)[""]
    batch = vlm.inputs(encoded, [vlm.suffix(prompt)] * 3)
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
    text = vlm.processor.apply_chat_template([user])
    whole = vlm.processor(text=[text] * 3, images=images, return_tensors="pt")
    assert torch.equal(whole["input_ids"], batch["input_ids"])
    with torch.no_grad():
        expected = vlm.model.model(**whole).last_hidden_state
        torch.testing.assert_close(vlm.hidden(batch).last_hidden_state, expected, rtol=1e-4, atol=1e-4)


def test_a_pictures_features_travel_alone_to_another_process(vlm, pictures):
    some = list(pictures.values())[:4]
    alone, several = (encode_all({"": vlm}, some[:n])[""][0] for n in (1, 4))
    for encoded in (several, vlm.without_picture(several)):
        assert len(pickle.dumps(encoded)) <= len(pickle.dumps(alone))


def test_a_saved_model_loads_as_any_hub_model_would(vlm, pictures, tmp_path):
    vlm.save(tmp_path / "m")
    again, image = load_vlm(tmp_path / "m", device="cpu"), next(iter(pictures.values()))
    example = {"image": image, "prompt": "Is there a dog in the image?", "choices": ["Yes", "No"]}
    # Where torchvision is installed, transformers prepares images with it, and the last digits differ.
    assert np.allclose(score_choices(again, [example]), score_choices(vlm, [example]), atol=1e-5)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="no model here"):
        load_vlm(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
@pytest.mark.parametrize(
    ("processor", "images"),
    [
        ("Qwen2_5_VLProcessor", "Qwen2VLImageProcessor"),
        ("SmolVLMProcessor", "SmolVLMImageProcessor"),
        ("LlavaOnevisionProcessor", "LlavaOnevisionImageProcessor"),
    ],
)
def test_a_processor_that_needs_torchvision_says_what_to_install(processor, images, vlm, tmp_path):
    vlm.save(tmp_path / "m")
    (tmp_path / "m" / "processor_config.json").unlink()
    parts = {"processor_class": processor, "image_processor_type": images}
    (tmp_path / "m" / "preprocessor_config.json").write_text(json.dumps(parts))
    with pytest.raises(UserError) as caught:
        load_vlm(tmp_path / "m")
    assert str(caught.value) == (
        f"{tmp_path / 'm'}: cannot be loaded as a vision-language model: its processor needs the package torchvision, "
        "which is missing or does not fit this torch: pip install -e '.[vlm]', see CONTRIBUTING.md"
    )


def test_what_transformers_says_of_num2words_becomes_what_to_install():
    error = ImportError("Package `num2words` is required to run SmolVLM processor. Install it with `pip install num2words`.")
    assert why_not(error).startswith("its processor needs the package num2words, which is missing or does not fit this torch")


def test_a_torchvision_that_does_not_fit_torch_says_so():
    assert "pip install -e '.[vlm]', see CONTRIBUTING.md" in why_not(RuntimeError("operator torchvision::nms does not exist"))
    assert why_not(ValueError("no tokenizer here\nand more")) == "no tokenizer here"


def test_another_family_goes_through_scoring_and_one_training_step(pictures, examples):
    qwen = tiny_qwen()
    some = examples[:6]
    ids = list(dict.fromkeys(row["image_id"] for row in some))
    encoded = dict(zip(ids, encode_all({"": qwen}, [pictures[i] for i in ids])[""], strict=True))
    scores = score_choices(qwen, [row | {"image": pictures[row["image_id"]]} for row in some])
    assert [len(s) for s in scores] == [len(row["choices"]) for row in some] and all(v < 0 for s in scores for v in s)
    asked = [
        {"image_id": k, "image": pictures[k][: 64 - 8 * n], "prompt": f"Is there a {word}?", "choices": ["Yes", "No"]}
        for n, k in enumerate(ids[:2])
        for word in ("dog", "red cup")
    ]
    for row, together in zip(asked, score_choices(qwen, asked), strict=True):
        assert together == pytest.approx(score_choices(qwen, [row])[0], abs=1e-4)
    blind = qwen.without_picture(encoded[ids[0]])
    logits = answer_logits(qwen, ["Is there a dog?", "Is there a red cup?"], [blind, blind])
    (alone,) = answer_logits(qwen, ["Is there a red cup?"], [blind])
    assert torch.allclose(logits[1], alone, atol=1e-4)
    data = TrainingSet({"student": qwen}, some, {"student": encoded})
    before = copy.deepcopy(qwen.model.state_dict())
    train(Supervised(qwen), data.collate, len(data), Schedule(1, 4, 1e-2), seed=0)
    changed = {name for name, value in qwen.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any("visual" in name for name in changed)


@pytest.fixture(params=["llava", "qwen"])
def any_vlm(request):
    """A tiny model of each family."""
    return tiny_vlm() if request.param == "llava" else tiny_qwen()


@pytest.fixture
def any_batch(any_vlm, pictures):
    encoded = encode_all({"": any_vlm}, list(pictures.values())[:4])[""]
    return any_vlm.inputs(encoded, [any_vlm.suffix("Describe the image.")] * 4, left=True)


@pytest.fixture
def batch(vlm, pictures):
    encoded = encode_all({"": vlm}, list(pictures.values())[:4])[""]
    return vlm.inputs(encoded, [vlm.suffix("Describe the image.")] * 4, left=True)


def trained_adapter(width: int, **how) -> HallucinationEliminationAdapter:
    adapter = HallucinationEliminationAdapter(width, **how)
    for block in adapter.blocks:
        torch.nn.init.normal_(block.up.weight, std=0.5)
    return adapter


@torch.no_grad()
def test_an_untrained_adapter_changes_no_bit_and_a_trained_one_can_be_switched_off_and_taken_off(any_vlm, any_batch):
    vlm, batch, width = any_vlm, any_batch, any_vlm.head.shape[1]
    original = vlm.hidden(batch).last_hidden_state
    fresh = HallucinationEliminationAdapter(width, rank=4, layers=2).attach(vlm.model)
    assert torch.equal(vlm.hidden(batch).last_hidden_state, original)
    fresh.detach()
    adapter = trained_adapter(width, rank=4, layers=1).attach(vlm.model)
    assert not torch.equal(vlm.hidden(batch).last_hidden_state, original)
    adapter.enabled = False
    assert torch.equal(vlm.hidden(batch).last_hidden_state, original)
    adapter.detach()
    assert torch.equal(vlm.hidden(batch).last_hidden_state, original)


@torch.no_grad()
def test_an_adapter_saves_and_loads_by_itself_and_works_with_generate(any_vlm, any_batch, tmp_path):
    vlm, batch = any_vlm, any_batch
    adapter = trained_adapter(vlm.head.shape[1], rank=4).attach(vlm.model)
    expected = vlm.hidden(batch).last_hidden_state
    generated = vlm.model.generate(**vlm.arguments(batch), max_new_tokens=4, do_sample=False)
    adapter.save_pretrained(tmp_path)
    adapter.detach()
    HallucinationEliminationAdapter.from_pretrained(tmp_path).attach(vlm.model)
    assert torch.equal(vlm.hidden(batch).last_hidden_state, expected)
    assert torch.equal(vlm.model.generate(**vlm.arguments(batch), max_new_tokens=4, do_sample=False), generated)


@torch.no_grad()
def test_an_adapter_works_with_a_lora_beside_it_and_each_can_be_taken_off(vlm, batch):
    original = vlm.hidden(batch).last_hidden_state
    adapter = trained_adapter(32, rank=4).attach(vlm.model)
    adapted = vlm.hidden(batch).last_hidden_state
    lora = LoraConfig(r=2, init_lora_weights=False, target_modules=r".*language_model.*(q_proj|v_proj)")
    vlm.model = get_peft_model(vlm.model, lora)
    both = vlm.hidden(batch).last_hidden_state
    assert not torch.equal(both, adapted)
    with vlm.model.disable_adapter():
        assert torch.equal(vlm.hidden(batch).last_hidden_state, adapted)
        adapter.detach()
        assert torch.equal(vlm.hidden(batch).last_hidden_state, original)
    adapter.attach(vlm.model)
    assert torch.equal(vlm.hidden(batch).last_hidden_state, both)


def test_an_adapter_that_is_loaded_with_a_model_counts(vlm, tmp_path):
    vlm.save(tmp_path / "model")
    trained_adapter(32, rank=4, layers=2).save_pretrained(tmp_path / "adapter")
    bare = load_vlm(tmp_path / "model").parameters_count()
    assert load_vlm(tmp_path / "model", adapter=tmp_path / "adapter").parameters_count() == bare + 2 * (32 * 4 + 4 + 4 * 32 + 32)


def test_an_adapter_that_does_not_fit_says_why(vlm, tmp_path):
    with pytest.raises(UserError, match="made for hidden width 64, the model's is 32"):
        HallucinationEliminationAdapter(64).attach(vlm.model)
    with pytest.raises(UserError, match="has 3 layers, the model only 2"):
        HallucinationEliminationAdapter(32, layers=3).attach(vlm.model)
    with pytest.raises(UserError, match="cannot be read"):
        HallucinationEliminationAdapter.from_pretrained(tmp_path)
    HallucinationEliminationAdapter(32).save_pretrained(tmp_path)
    weights = tmp_path / "hea.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match="hea.safetensors: not a whole safetensors file"):
        HallucinationEliminationAdapter.from_pretrained(tmp_path)

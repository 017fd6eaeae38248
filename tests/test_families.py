"""Every family answers through the library as its plain model does: one conformance test for all, on miniatures of the real classes."""

import subprocess
import sys

import pytest
import torch
from PIL import Image

from hkd_core.common.errors import UserError
from hkd_core.hkd import PyramidSettings, TernarySettings, refine, train_pyramid
from hkd_core.inference import distorted_views
from hkd_core.inference.scoring import choice_tokens
from hkd_core.models import families, guard, load_vlm
from hkd_core.models.vlm import encode_all
from hkd_core.rehearse import checks
from hkd_core.rehearse.checks import CHECKS, QUESTION, SIZES, Bench, Differs, pictures
from hkd_core.rehearse.miniatures import FAMILIES, NEED_VIDEO, build, lacks
from hkd_core.training.examples import TrainingSet, answer_hidden, project
from hkd_core.training.teacher_answers import choice_logprobs
from hkd_core.training.tuning import TuneSettings, distil

WITHOUT_TORCHVISION = [family for family in FAMILIES if family not in NEED_VIDEO]


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """family -> its bench, built when it is first asked for."""
    folder, known = tmp_path_factory.mktemp("miniatures"), {}

    def bench(family: str) -> Bench:
        if missing := lacks(family):
            pytest.skip(missing)
        if family not in known:
            known[family] = Bench(family, folder)
        return known[family]

    return bench


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_answers_as_its_plain_model_does(family, check, benches):
    CHECKS[check](benches(family))


@pytest.mark.parametrize("family", WITHOUT_TORCHVISION)
def test_a_family_whose_processor_takes_no_video_needs_no_torchvision(family):
    assert lacks(family) == ""


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("mllama", "model_type: mllama is not supported: its layers read pictures by cross-attention and not as tokens of the prompt"),
        ("blip_2", "model_type: blip-2 is not supported: its questions have no chat template and its pictures no place in them"),
    ],
)
def test_a_family_that_does_not_fit_is_refused_by_name(family, reason, tmp_path):
    with pytest.raises(UserError) as caught:
        load_vlm(build(family, tmp_path))
    assert str(caught.value) == f"{tmp_path}/config.json: {reason}"


@pytest.mark.parametrize("family", WITHOUT_TORCHVISION)
def test_a_miniature_has_the_same_bytes_every_time_and_leaves_random_numbers_alone(family, tmp_path):
    torch.manual_seed(3)
    folders = [build(family, tmp_path / name) for name in "ab"]
    assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(3)).item()
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert files[0] == files[1] and "model.safetensors" in files[0]


def test_an_unknown_family_is_named_with_those_that_are_known(tmp_path):
    with pytest.raises(UserError, match='family: expected one of llava, llava_next, .*, got "lava"'):
        build("lava", tmp_path)


def test_the_command_prints_a_table_of_one_family():
    done = subprocess.run([sys.executable, "-m", "hkd_core.rehearse.conformance", "--family", "llava"], capture_output=True, text=True)
    head, row = (line.split() for line in done.stdout.splitlines()[:2])
    assert done.returncode == 0 and head == list(CHECKS) and row[0] == "llava" and row.count("ok") == len(CHECKS)


# The checks can fail: each of these faults was in an earlier version of the library.


def test_a_template_with_a_space_too_many_is_found(benches, monkeypatch):
    bench = benches("llava")
    monkeypatch.setattr(bench.vlm, "suffix", lambda *a, **k: [*type(bench.vlm).suffix(bench.vlm, *a, **k), bench.vlm.tokenizer.eos_token_id])
    with pytest.raises(Differs, match="token ids of .* differ"):
        checks.token_ids(bench)


def test_logits_without_the_cap_are_found(benches, monkeypatch):
    bench = benches("paligemma2")
    monkeypatch.setattr(families, "capped", lambda model, logits: logits)
    with pytest.raises(Differs, match="log-probabilities: differs by"):
        checks.scores(bench)


def test_a_prompt_read_in_one_direction_is_found(benches, monkeypatch):
    bench = benches("paligemma")
    monkeypatch.setattr(families, "is_prefix_model", lambda model: False)
    with pytest.raises(Differs, match="log-probabilities: differs by"):
        checks.scores(bench)


def test_pictures_in_another_order_are_found(benches, monkeypatch):
    bench = benches("llava_next")
    flat = families.flat
    monkeypatch.setattr(families, "flat", lambda features: flat(list(features)[::-1]))
    with pytest.raises(Differs, match="differs by"):
        checks.scores(bench)


def test_a_sampling_setting_that_stays_active_is_found(benches, monkeypatch):
    import contextlib

    from hkd_core.inference import generation

    bench = benches("llava")
    monkeypatch.setattr(generation, "plain_generation", lambda model: contextlib.nullcontext())
    with pytest.raises(Differs, match="settings of the generation config stay active"):
        checks.generation(bench)


# The guard


def test_a_family_that_answers_otherwise_through_the_library_is_refused_with_the_size(benches, monkeypatch):
    bench = benches("llava")
    features = families.picture_features
    monkeypatch.setattr(families, "picture_features", lambda *arguments: features(*arguments).roll(1, 0))
    with pytest.raises(UserError, match=r"llava is not supported: .*its logits differ from the plain model's by up to \d.*, expected at most 0.0"):
        load_vlm(bench.folder, device="cpu")


def test_a_family_with_other_tokens_is_refused(benches, monkeypatch):
    bench = benches("idefics3")
    monkeypatch.setattr(guard, "PROMPT", " Is there a dog? ")
    monkeypatch.setattr(families.Template, "asked", lambda self, prompt: f"{self.placeholder}{self.before}{prompt.strip()}{self.between}")
    with pytest.raises(UserError, match="idefics3 is not supported: its prompt has .* tokens, this library makes others of it"):
        load_vlm(bench.folder, device="cpu")


def test_the_guard_draws_no_random_numbers(benches):
    torch.manual_seed(5)
    load_vlm(benches("gemma3").folder, device="cpu")
    assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(5)).item()


# What a checkpoint brings besides its family


def test_every_end_token_of_the_generation_config_ends_an_answer(benches):
    vlm = benches("gemma3").vlm
    assert vlm.tokenizer.convert_ids_to_tokens(vlm.ends) == ["<eos>", "<end_of_turn>"]
    assert vlm.suffix("Describe the image.", "A cup.", closed=True)[-1] == vlm.ends[1]


def test_a_caption_of_llava_learns_to_stop_although_its_template_has_no_end(benches):
    vlm = benches("llava").vlm
    assert vlm.suffix("Describe the image.", "A cup.", closed=True)[-1] == vlm.tokenizer.eos_token_id


def test_a_processor_of_another_family_and_one_that_is_missing_are_named(benches, tmp_path):
    import shutil

    folder = shutil.copytree(benches("llava").folder, tmp_path / "m")
    other = benches("llava_next").folder
    shutil.copy(other / "processor_config.json", folder)
    with pytest.raises(UserError, match="its processor is another family's: config.json describes llava"):
        load_vlm(folder)
    (folder / "processor_config.json").unlink()
    with pytest.raises(UserError, match="weights without a processor: expected processor_config.json or preprocessor_config.json"):
        load_vlm(folder)


# Models of two families that share a tokenizer: each is asked in its own template and sees pictures as its own tokens.


@pytest.fixture
def pair(benches):
    """(student, teacher): LLaVA-1.5 and LLaVA-NeXT."""
    return benches("llava").copied(), benches("llava_next").copied()


def test_a_teacher_of_another_family_is_asked_in_its_own_template(benches, pair):
    student, teacher = pair
    rows = [row | {"answer": "Yes"} for row in benches("llava").examples(["Yes", "No"])]
    data = TrainingSet.of_examples({"student": student, "teacher": teacher}, rows)
    found = choice_logprobs(teacher, "teacher", data)
    plain, starts = benches("llava_next").plain, [tokens[0] for tokens in choice_tokens(teacher, QUESTION, ["Yes", "No"])]
    logits = torch.stack([plain.logits(plain.inputs(row["image"], QUESTION))[0] for row in rows])
    expected = logits[:, starts].log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    distil(student, data, TuneSettings(steps=1, batch_size=4), seed=0, teacher=teacher)


def test_neighbours_of_two_families_learn_from_the_same_answer_tokens(benches, pair):
    student, teacher = pair
    rows = [row | {"answer": "Yes"} for row in benches("llava").examples(["Yes", "No"])]
    data = TrainingSet.of_examples({"teacher": teacher, "student": student}, rows)
    batch = data.collate(range(4))
    for name, vlm, family in (("teacher", teacher, "llava_next"), ("student", student, "llava")):
        bench = benches(family)
        logits = project(vlm, answer_hidden(vlm, batch, name)[0])
        (start,) = choice_tokens(vlm, QUESTION, ["Yes"])
        expected = [bench.plain.logits(bench.plain.inputs(row["image"], QUESTION), start[:-1]) for row in rows]
        torch.testing.assert_close(logits, torch.cat(expected), rtol=0, atol=1e-3)
    models = {"teacher": teacher, "student": student}
    assert train_pyramid(models, data, PyramidSettings(steps=1, batch_size=4), seed=0).histories
    with pytest.raises(UserError, match="assistant: reads other tokens than the student"):
        refine(student, teacher, teacher, rows, TernarySettings(steps=1, batch_size=4, relation_weight=1.0), seed=0)


@pytest.mark.parametrize("family", ["llava_next", "idefics3"])
def test_alike_views_compare_whole_pictures_and_no_tiles(family, benches):
    vlm = benches(family).vlm
    flat = [Image.new("RGB", size, colour) for size, colour in zip(SIZES, [(255, 0, 0), (0, 0, 255), (250, 9, 9), (9, 9, 250)], strict=True)]
    clean = encode_all({"": vlm}, flat)[""]
    (shown,) = distorted_views(vlm, flat, clean, "alike", 1, seed=0)
    assert [next(k for k in range(4) if clean[k] is picture) for picture in shown] == [2, 3, 0, 1]


def test_padding_tiles_stay_padding_when_pixels_are_distorted(benches):
    vlm = benches("idefics3").vlm
    prepared = vlm.prepare(pictures())
    noisy = vlm.encode(prepared, distort=lambda pixels: pixels + 1.0)
    for clean, other in zip(vlm.encode(prepared), noisy, strict=True):
        assert clean.features.shape == other.features.shape and not torch.equal(clean.features, other.features)



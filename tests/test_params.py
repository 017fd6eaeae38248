"""Settings are checked strictly: each mistake is one line that names the key, what was expected and what stands there."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hkd_core.common import settings as known
from hkd_core.common.errors import UserError
from hkd_core.common.params import STAGES, load_params, load_profile, load_seed, read_params

ROOT = Path(__file__).parents[1]
FILE = ROOT / "params.yaml"
GOOD = yaml.safe_load(FILE.read_text())
SETTINGS = [(stage, name) for stage, section in STAGES.items() for name in section.model_fields]
DIVERGENCES = f"one of {', '.join(known.DIVERGENCES)}"
TEXTS = f"one of {', '.join(known.TEXT_CHANGES)}"
WIDTHS = "names and values, each a whole number of at least 32, a multiple of 16"
DATA = "unknown key; expected one of train, labelled, tuned, val, test, sizes, noise, pope_images"
PROFILES = "profile: expected one of gpu, internvl, laptop, llava, qwen, smoke, got"
LEVELS = "expected at least two levels, each a list of sizes, none empty, got"
STEP = "a whole number from 0 to 999 (a diffusion step) for noise"
VIEWS = "one of noise, blur, patches, blank, alike, least, shuffled, none"


PAIR = f"a list of 2: {VIEWS} and a number of at least 0"


@pytest.fixture
def write(tmp_path):
    def written(change):
        content = yaml.safe_load(yaml.safe_dump(GOOD))
        change(content["profiles"]["laptop"], content)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return written


def refusal(path, **how):
    """The one line that the file is refused with."""
    with pytest.raises(UserError) as error:
        load_profile(path=path, **how)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_committed_settings_are_valid(profile, stage):
    found = load_params(stage, profile=profile, path=FILE)
    assert type(found) is STAGES[stage]
    # DVC, which reads the file itself, sees the same values.
    assert yaml.safe_load(yaml.safe_dump(as_lists(found.model_dump()))) == GOOD["profiles"][profile][stage]


def as_lists(value):
    if isinstance(value, dict):
        return {key: as_lists(one) for key, one in value.items()}
    return [as_lists(one) for one in value] if isinstance(value, tuple) else value


WRONG = [
    # A wrong type.
    ("ternary", "gate", "no", 'expected true or false, got "no"'),
    ("pyramid", "steps", True, "expected a whole number of at least 1, got true"),
    ("pyramid", "steps", 1.5, "expected a whole number of at least 1, got 1.5"),
    ("pyramid", "steps", None, "expected a whole number of at least 1, got null"),
    ("pyramid", "learning_rate", "1e-3", 'expected a number above 0, got "1e-3"'),
    ("pyramid", "levels", "large", f'{LEVELS} "large"'),
    ("base_models", "widths", 96, f"expected {WIDTHS}, got 96"),
    ("base_models", "widths", [96], f"expected {WIDTHS}, got [96]"),
    ("self_evolution", "model", 7, "expected text such as base_models/medium, got 7"),
    ("self_evolution", "model", "medium", 'expected text such as base_models/medium, got "medium"'),
    # Out of range.
    ("ternary", "label_weight", -1, "expected a number of at least 0, got -1"),
    ("pyramid", "steps", 0, "expected a whole number of at least 1, got 0"),
    ("data", "noise", 2.0, "expected a number from 0 to 1, got 2.0"),
    ("self_evolution", "epsilon", 1.0, "expected a number above 0 and below 1, got 1.0"),
    ("self_evolution", "rank", 2, "expected a whole number of at least 4, a multiple of 4, got 2"),
    ("pyramid", "divergence", "kl", f'expected {DIVERGENCES}, got "kl"'),
    ("base_models", "vision_width", 7, "expected a whole number of at least 32, a multiple of 32, got 7"),
    ("base_models", "vision_width", 100, "expected a whole number of at least 32, a multiple of 32, got 100"),
    ("supervised", "learning_rate", float("inf"), "expected a number above 0, got .inf"),
    ("data", "noise", float("nan"), "expected a number from 0 to 1, got .nan"),
    ("data", "sizes", [14, 9], "expected [smallest, largest], from 1 to 16, got [14, 9]"),
    ("data", "sizes", [9], "expected [smallest, largest], from 1 to 16, got [9]"),
    ("augment", "texts", [], f"expected a list that is not empty, each item {TEXTS}, got []"),
    ("pyramid", "levels", [["large"]], f'{LEVELS} [["large"]]'),
    ("self_evolution", "distortions", [], "expected a list of [view, strength], at least one, got []"),
    # Two settings that contradict each other.
    ("data", "labelled", 12001, "expected at most train (12000), got 12001"),
    ("data", "tuned", 1601, "expected at most labelled (1600), got 1601"),
    (
        "base_models",
        "widths",
        {"large": 128, "small": 64},
        "expected at least the sizes large, medium, small, got {large: 128, small: 64}",
    ),
    ("base_models", "layers", {"large": 1}, "expected the sizes of widths (large, medium, small), got {large: 1}"),
    (
        "pyramid",
        "levels",
        [["large"], ["medium"], ["small", "tiny"]],
        'expected sizes of base_models.widths (large, medium, small), got "tiny"',
    ),
    (
        "pyramid",
        "levels",
        [["large"], ["large"], ["small"]],
        'expected every size at most once, got [["large"], ["large"], ["small"]]',
    ),
    (
        "pyramid",
        "levels",
        [["large"], ["small"], ["medium"]],
        'expected "small" first in the lowest level, which later stages refine and '
        'evaluate, got [["large"], ["small"], ["medium"]]',
    ),
    (
        "pyramid",
        "levels",
        [["large"], ["small"]],
        'expected two models above the lowest level, a teacher and an assistant for the refinement, got [["large"], ["small"]]',
    ),
    (
        "self_evolution",
        "model",
        "base_models/tiny",
        'expected base_models/ and one of large, medium, small, got "base_models/tiny"',
    ),
    (
        "self_evolution",
        "model",
        "ternary/small",
        'expected base_models/medium, which evaluation compares (override it for others), got "ternary/small"',
    ),
    (
        "self_evolution",
        "distortions",
        [["noise", 500], ["noise", 500]],
        'expected each at most once, got [["noise", 500.0], ["noise", 500.0]]',
    ),
    ("ablations", "labelled", [160, 1601], "expected at most data.labelled (1600), got 1601"),
]


@pytest.mark.parametrize(("stage", "key", "value", "message"), WRONG)
def test_a_wrong_value_is_named_with_what_was_expected(write, stage, key, value, message):
    path = write(lambda laptop, _: laptop[stage].__setitem__(key, value))
    assert refusal(path) == f"params.yaml: profiles.laptop.{stage}.{key}: {message}"


@pytest.mark.parametrize(
    ("stage", "key", "value", "message"),
    [
        (
            "base_models",
            "widths",
            {"large": 128, "medium": 7, "small": 64},
            "widths.medium: expected a whole number of at least 32, a multiple of 16, got 7",
        ),
        (
            "base_models",
            "short_steps",
            {"large": 0, "medium": 7, "small": 64},
            "short_steps.large: expected a whole number of at least 1, got 0",
        ),
        ("augment", "texts", ["mirror", "rhyme"], f'texts[1]: expected {TEXTS}, got "rhyme"'),
        ("augment", "images", ["invert"], f'images[0]: expected one of {", ".join(known.IMAGE_CHANGES)}, got "invert"'),
        ("self_evolution", "alphas", [1.0, float("nan")], "alphas[1]: expected a number of at least 0, got .nan"),
        ("self_evolution", "cutoffs", [float("-inf")], "cutoffs[0]: expected a number from 0 to 1, got -.inf"),
        ("self_evolution", "distortions", [["smear", 1]], f'distortions[0][0]: expected {VIEWS}, got "smear"'),
        ("self_evolution", "distortions", [["noise"]], f'distortions[0]: expected {PAIR}, got ["noise"]'),
        ("self_evolution", "distortions", [["noise", 1, 2]], f'distortions[0]: expected {PAIR}, got ["noise", 1, 2]'),
        ("self_evolution", "distortions", ["noise"], f'distortions[0]: expected {PAIR}, got "noise"'),
        ("self_evolution", "distortions", [["blur", float("inf")]], "distortions[0][1]: expected a number of at least 0, got .inf"),
        ("self_evolution", "distortions", [["blank", 0], ["noise", 5000]], f"distortions[1]: expected {STEP}, got 5000"),
        ("self_evolution", "distortions", [["noise", 0.5]], f"distortions[0]: expected {STEP}, got 0.5"),
        ("self_evolution", "distortions", [["blur", 0]], "distortions[0]: expected a sigma above 0 for blur, got 0"),
        ("self_evolution", "distortions", [["patches", 1.5]], "distortions[0]: expected a share from 0 to 1 for patches, got 1.5"),
        ("self_evolution", "distortions", [["none", 1]], "distortions[0]: expected 0 (there is no strength) for none, got 1"),
        ("self_evolution", "distortions", [["least", 0]], "distortions[0]: expected a whole number of at least 1 for least, got 0"),
        ("self_evolution", "distortions", [["alike", 400]], "distortions[0]: expected at most 399 other images for alike, got 400"),
        ("data", "nois", 0.1, f"nois: {DATA}"),
        ("data", "two\nlines", 1, f'"two\\nlines": {DATA}'),
        ("data", 7, 1, "7: expected a key that is text, got 7"),
        ("data", "noise", "x" * 200, f'noise: expected a number from 0 to 1, got "{"x" * 96}...'),
    ],
)
def test_a_mistake_inside_a_value_is_named_by_its_place(write, stage, key, value, message):
    path = write(lambda laptop, _: laptop[stage].__setitem__(key, value))
    assert refusal(path) == f"params.yaml: profiles.laptop.{stage}.{message}"


def test_a_divergence_that_is_nothing_at_its_beta_is_refused_before_anything_is_trained():
    with pytest.raises(UserError, match="pyramid.beta: expected a number between 0 and 1 for jsd, .* got 1.0"):
        load_params("pyramid", profile="laptop", path=FILE, divergence="jsd", beta=1.0)
    with pytest.raises(UserError, match="ternary.beta: expected a number below 1 for skewed_reverse_kl, .* got 1.0"):
        load_params("ternary", profile="laptop", path=FILE, divergence="skewed_reverse_kl", beta=1.0)


@pytest.mark.parametrize(("stage", "name"), SETTINGS)
def test_a_missing_key_is_named(write, stage, name):
    path = write(lambda laptop, _: laptop[stage].pop(name))
    assert refusal(path).startswith(f"params.yaml: profiles.laptop.{stage}.{name}: missing; expected ")


def test_settings_made_in_python_have_the_laptops_values_where_none_are_given():
    methods = [known.TuneSettings, known.PyramidSettings, known.TernarySettings, known.EvolveSettings]
    for method, stage in zip(methods, ("supervised", "pyramid", "ternary", "self_evolution"), strict=True):
        laptop, given = load_params(stage, profile="laptop", path=FILE), method(steps=7)
        assert isinstance(laptop, method) and given.steps == 7
        for name in method.model_fields.keys() - {"steps", "distortions"}:
            assert getattr(given, name) == getattr(laptop, name), (stage, name)
    assert set(known.EvolveSettings(steps=1).distortions) < {*laptop.distortions, ("none", 0)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "steps: missing; expected a whole number of at least 1"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"steps": 1, "augmented": True}, f"augmented: unknown key; expected one of {', '.join(known.PyramidSettings.model_fields)}"),
        ({"steps": 1, "divergence": "jsd", "beta": 0.0}, "beta: expected a number between 0 and 1 for jsd"),
    ],
)
def test_wrong_settings_made_in_python_are_one_line_too(given, message):
    with pytest.raises(UserError, match=f"^PyramidSettings.{re.escape(message)}[^\n]*$"):
        known.PyramidSettings(**given)


def test_settings_take_lists_and_are_copied_and_pickled_whole():
    given = known.EvolveSettings(steps=3, distortions=[["blur", 2.5]])
    assert given.distortions == (("blur", 2.5),)
    assert pickle.loads(pickle.dumps(given)) == given.replace(steps=4).replace(steps=3) == given


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda laptop, _: laptop.pop("data"), "profiles.laptop.data: missing; expected keys and values"),
        (lambda laptop, _: laptop.update(data=[1]), "profiles.laptop.data: expected keys and values, got [1]"),
        (lambda laptop, _: laptop.update(dta={}), f"profiles.laptop.dta: unknown key; expected one of {', '.join(STAGES)}"),
        (lambda laptop, _: laptop.update({3: {}}), "profiles.laptop.3: expected a key that is text, got 3"),
        (lambda _, content: content["profiles"].update(laptop=[1, 2]), "profiles.laptop: expected keys and values, got [1, 2]"),
        (lambda _, content: content["profiles"].update(laptop=None), "profiles.laptop: expected keys and values, got null"),
        (lambda _, content: content.update(profiles=[]), "profiles: expected profiles by name, got []"),
        (lambda _, content: content.pop("profiles"), "profiles: missing; expected profiles by name"),
        (lambda _, content: content.pop("profile"), "profile: missing; expected the name of a profile"),
        (lambda _, content: content.update(profile="desk"), f'{PROFILES} "desk"'),
        (lambda _, content: content.update(profile=["smoke"]), f'{PROFILES} ["smoke"]'),
        (lambda _, content: content.update(more=1), "more: unknown key; expected one of profile, seed, profiles"),
        (lambda _, content: content.update({1: 2}), "1: expected a key that is text, got 1"),
        (lambda _, content: content.pop("seed"), "seed: missing; expected a whole number from 0 to 4294967295"),
        (lambda _, content: content.update(seed="x"), 'seed: expected a whole number from 0 to 4294967295, got "x"'),
        (lambda _, content: content.update(seed=2**70), f"seed: expected a whole number from 0 to 4294967295, got {2**70}"),
        (lambda _, content: content.update(seed=True), "seed: expected a whole number from 0 to 4294967295, got true"),
    ],
)
def test_a_file_of_the_wrong_shape_is_one_line(write, change, message):
    assert refusal(write(change)) == f"params.yaml: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "params.yaml: empty; expected the keys profile, seed and profiles"),
        (b"# nothing\n", "params.yaml: empty; expected the keys profile, seed and profiles"),
        (b"[1, 2]", "params.yaml: expected the keys profile, seed and profiles"),
        (b"\x00\x01\x02", "params.yaml: not YAML: unacceptable character #x0000: special characters are not allowed"),
        (b"seed: \xe9", "params.yaml: not a text file in UTF-8"),
        ("seed: 0".encode("utf-16"), "params.yaml: not a text file in UTF-8"),
        (b"seed: 0\nprofiles: [\n", "params.yaml:3: not YAML: "),
        (b"seed: 0\nprofile: laptop\nseed: 1\n", 'params.yaml:3: not YAML: key "seed" is given twice'),
        (
            b"profiles:\n  a:\n    data: {train: 1, test: 2,\n      train: 3}\n",
            'params.yaml:4: not YAML: key "train" is given twice',
        ),
        (b"seed: " + b"9" * 5000, "params.yaml: holds a value that cannot be read: "),
        (
            b"profile: a\nprofiles: {}\nseed: 0x" + b"f" * 5000,
            "seed: expected a whole number from 0 to 4294967295, got a number of more than 100 digits",
        ),
        (b"seed: 2026-02-30", "params.yaml: holds a value that cannot be read: "),
        (b"seed: " + b"[" * 5000, "params.yaml"),
        (b"seed: &a [*a]", "seed: expected settings, got lists or keys nested more than 6 deep"),
        (b"? [1]\n: 2\n", "params.yaml"),
    ],
)
def test_a_file_that_is_no_settings_at_all_is_one_line(tmp_path, content, message):
    (tmp_path / "params.yaml").write_bytes(content)
    assert message in refusal(tmp_path / "params.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert refusal(tmp_path / "params.yaml") == "params.yaml: cannot be read: No such file or directory"


@settings(max_examples=300, deadline=None)
@given(
    place=st.sampled_from(SETTINGS),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    ),
)
def test_any_value_of_any_setting_is_accepted_or_refused_in_one_line(place, value):
    stage, name = place
    try:
        load_params(stage, profile="laptop", path=FILE, **{name: value})
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(error).startswith("params.yaml: profiles.laptop.")


@settings(max_examples=300, deadline=None)
@given(content=st.binary() | st.text(st.sampled_from("{}[]:-&*?!|>'\"#, \n0aseedprofiles<")).map(str.encode))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_params(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_profile_that_needs_something_says_so():
    assert refusal(FILE, profile="llava").startswith("profile llava: not ready to run: LLaVA-1.5 weights")


def test_overrides_are_checked_like_the_file():
    assert load_params("pyramid", profile="laptop", path=FILE, steps=7).steps == 7
    assert load_params("pyramid", profile="laptop", path=FILE, levels=[["large", "medium"], ["small"]]).levels == (
        ("large", "medium"),
        ("small",),
    )
    assert load_params("self_evolution", profile="laptop", path=FILE, model="ternary/small").model == "ternary/small"
    with pytest.raises(UserError, match="pyramid.steps: expected a whole number of at least 1, got 1.5"):
        load_params("pyramid", profile="laptop", path=FILE, steps=1.5)
    with pytest.raises(UserError, match='unknown stage "pyramids"; expected one of data, augment'):
        load_params("pyramids", path=FILE)
    assert load_seed(path=FILE) == GOOD["seed"] and load_seed(5) == 5
    for seed in (-1, 2**70, True, "1", 1.0):
        with pytest.raises(UserError, match="params.yaml: seed: expected a whole number from 0 to 4294967295, got"):
            load_seed(seed)


def test_settings_are_frozen_and_keep_tuples_and_whole_numbers_as_floats():
    found = load_params("self_evolution", profile="smoke", path=FILE, alphas=[1])
    assert found.distortions == (("noise", 500.0), ("least", 2.0)) and type(found.alphas[0]) is float
    with pytest.raises(Exception, match="frozen"):
        found.steps = 3


def test_a_changed_copy_is_checked_like_the_file():
    ternary = load_params("ternary", profile="laptop", path=FILE)
    changed = ternary.replace(gate=True)
    assert changed.model_dump() == ternary.model_dump() | {"gate": True} and not ternary.gate
    with pytest.raises(UserError, match="Ternary.shifted: unknown key; expected one of steps, "):
        ternary.replace(shifted=False)
    with pytest.raises(UserError, match=r"Ternary\.steps: expected a whole number of at least 1, got 0"):
        ternary.replace(steps=0)


def test_the_names_in_the_settings_are_those_of_the_library():
    from hkd_core import losses
    from hkd_core.inference import views
    from hkd_core.world import augment

    assert known.DIVERGENCES == losses.KINDS
    assert known.VIEWS == views.VIEWS
    assert tuple(augment.PICTURES) == known.IMAGE_CHANGES
    assert tuple(augment.PRESERVING | augment.FLIPPING) == known.TEXT_CHANGES


def test_the_strengths_of_the_settings_are_those_that_a_distortion_takes():
    from hkd_core.inference.distortion import distortion

    for view, strength in (("noise", 0), ("noise", 999), ("blur", 0.01), ("patches", 0), ("patches", 1), ("blank", 0)):
        distortion(view, strength)
        load_params("self_evolution", profile="laptop", path=FILE, distortions=[[view, strength]])
    for view, strength in (("noise", 1000), ("blur", 0), ("patches", 1.01)):
        for refuses in (
            lambda d: distortion(*d),
            lambda d: load_params("self_evolution", profile="laptop", path=FILE, distortions=[d]),
        ):
            with pytest.raises(UserError):
                refuses([view, strength])


def test_every_accepted_vision_width_is_a_whole_number_of_features_a_head():
    from hkd_core.world.small_models import vision_config

    for width in (32, 64, 96, 128, 256):
        load_params("base_models", profile="laptop", path=FILE, vision_width=width)
        assert width % vision_config(width, 1).num_attention_heads == 0


@pytest.mark.parametrize(("stage", "name"), SETTINGS)
def test_every_setting_has_a_sentence_and_a_source(stage, name):
    field = STAGES[stage].model_fields[name]
    assert re.fullmatch(r"[A-Z].*\.", field.description) and field.json_schema_extra["source"]


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "hkd_core.params", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_command_prints_every_setting_of_a_profile_in_80_columns():
    shown = command("--profile", "smoke").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert re.findall(r"^  (\w+) = ", shown, re.M) == [name for _, name in SETTINGS]
    assert "  steps = 10\n      Steps for each pair of neighbouring levels. Unit: steps. Expected: a whole" in shown
    assert re.findall(r"^  (\w+) = ", command("--stage", "data").stdout, re.M) == list(STAGES["data"].model_fields)
    assert "--profile" in command("--help").stdout


@pytest.mark.parametrize("arguments", [["--profile", "desktop"], ["--stage", "nothing"], ["--profile", "llava"]])
def test_the_command_refuses_in_one_line_with_status_2(arguments):
    done = command(*arguments)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and not done.stdout


def test_loading_settings_does_not_load_torch():
    code = "import sys, hkd_core.common.params; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

"""Settings are checked strictly: each mistake is one line that names the key and what was expected."""

from pathlib import Path

import pytest
import yaml

from hkd_core.common.errors import UserError
from hkd_core.common.params import STAGES, load_params, load_seed

ROOT = Path(__file__).parents[1]
GOOD = yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture
def write(tmp_path):
    def written(change):
        content = yaml.safe_load(yaml.safe_dump(GOOD))
        change(content["profiles"]["laptop"], content)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return written


@pytest.mark.parametrize("profile", ["smoke", "laptop"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_committed_settings_are_valid(profile, stage):
    load_params(stage, profile=profile, path=ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("stage", "key", "value", "message"),
    [
        ("ternary", "gate", "no", 'profiles.laptop.ternary.gate: expected true or false, got "no"'),
        ("ternary", "labels", -1, "labels: expected 0 or more, got -1"),
        ("pyramid", "steps", 0, "steps: expected a whole number of at least 1, got 0"),
        ("pyramid", "steps", True, "steps: expected a whole number, got true"),
        ("pyramid", "learning_rate", "1e-3", 'learning_rate: expected a number, got "1e-3"'),
        (
            "pyramid",
            "kind",
            "kl",
            'kind: expected one of forward_kl, reverse_kl, jsd, skewed_forward_kl, skewed_reverse_kl, got "kl"',
        ),
        ("data", "noise", 2.0, "noise: expected a number from 0 to 1, got 2.0"),
        ("data", "nois", 0.1, "data.nois: unknown key; expected one of train"),
        ("self_evolution", "distortions", [["smear", 1]], "distortions: expected a list of"),
        ("augment", "texts", [], "texts: expected at least one augmentation, got []"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(write, stage, key, value, message):
    path = write(lambda laptop, _: laptop[stage].__setitem__(key, value))
    with pytest.raises(UserError) as error:
        load_params(stage, profile="laptop", path=path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_key_is_named(write):
    path = write(lambda laptop, _: laptop["pyramid"].pop("steps"))
    with pytest.raises(UserError, match=r"pyramid\.steps: missing; expected a whole number"):
        load_params("pyramid", profile="laptop", path=path)


def test_an_unknown_profile_and_a_profile_that_needs_something_say_so(write):
    path = write(lambda _, content: content.__setitem__("profile", "desktop"))
    with pytest.raises(UserError, match='profile: expected one of .*, got "desktop"'):
        load_params("data", path=path)
    with pytest.raises(UserError, match="profile llava: not ready to run: LLaVA-1.5 weights"):
        load_params("data", profile="llava", path=ROOT / "params.yaml")


def test_a_syntax_error_is_named_by_its_line(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 0\nprofiles: [\n")
    with pytest.raises(UserError, match=r"params.yaml:\d+: not YAML"):
        load_params("data", path=tmp_path / "params.yaml")


def test_overrides_are_checked_like_the_file():
    path = ROOT / "params.yaml"
    assert load_params("pyramid", profile="laptop", path=path, steps=7).steps == 7
    with pytest.raises(UserError, match="expected a whole number"):
        load_params("pyramid", profile="laptop", path=path, steps=1.5)
    assert load_seed(5, path=path) == 5
    with pytest.raises(UserError, match="seed"):
        load_seed(-1, path=path)


def test_a_divergence_that_is_nothing_at_its_beta_is_refused_before_anything_is_trained():
    with pytest.raises(UserError, match="pyramid.beta: expected a number between 0 and 1 for jsd, .* got 1.0"):
        load_params("pyramid", profile="laptop", path=ROOT / "params.yaml", kind="jsd", beta=1.0)
    with pytest.raises(UserError, match="ternary.beta: expected a number below 1 for skewed_reverse_kl, .* got 1.0"):
        load_params("ternary", profile="laptop", path=ROOT / "params.yaml", kind="skewed_reverse_kl", beta=1.0)

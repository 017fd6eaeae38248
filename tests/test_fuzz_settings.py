"""Damaged settings, notebooks and arguments: a result or one line. scripts/fuzz_settings.py runs many more cases."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
fuzz_settings = importlib.import_module("fuzz_settings")
fuzzing = importlib.import_module("fuzzing")


@pytest.mark.parametrize("target", fuzz_settings.TARGETS)
def test_damaged_settings_end_in_a_result_or_in_one_line(target):
    results, refused = fuzzing.run(target, fuzz_settings.TARGETS[target], 2000, seed=1)
    assert results > 0 and refused > 0

"""The snippet of the README, run on tiny models; and what the methods may import."""

import ast
import importlib.util
from pathlib import Path

import pytest
from conftest import tiny_vlm

from hkd_core.models import load_vlm

ROOT = Path(__file__).parents[1]


def test_the_snippet_distils_on_rows_of_image_prompt_choices_and_answer_alone(strange, tmp_path):
    spec = importlib.util.spec_from_file_location("snippet", ROOT / "docs/snippets/hkd.py")
    snippet = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(snippet)
    for seed, (name, width) in enumerate((("large", 64), ("medium", 32), ("small", 32))):
        tiny_vlm(width, 1, seed).save(tmp_path / name)
    training = [*strange[:6], *(row | {"answer": ""} for row in strange[6:])]
    where = [tmp_path / name for name in ("large", "medium", "small")]
    with pytest.warns(UserWarning, match="mapping shift: 6 of 6 examples"):
        answer = snippet.distil(*where, training, strange[:6], tmp_path / "distilled", steps=5)
    assert all(given in row["choices"] for given, row in zip(answer(strange), strange, strict=True))
    assert load_vlm(tmp_path / "distilled").parameters_count() > 0


@pytest.mark.parametrize("room", ["hkd", "training"])
def test_the_methods_know_nothing_of_the_built_in_world_of_folders_or_of_evaluation(room):
    for path in (ROOT / "hkd_core" / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
            for name in names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
                assert not name.startswith(("hkd_core.world", "hkd_core.evaluation", "hkd_core.common.folders")), (path, name)

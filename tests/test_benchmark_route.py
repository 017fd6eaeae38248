"""docs/routes/benchmark.md, followed word for word in a copy of the library."""

import os
import re
import shutil
import subprocess
import sys

from hkd_core.common.root import find_root

ROOT = find_root()
BEFORE = """\
import sys
sys.path.append(sys.argv[1])
from conftest import tiny_vlm
from hkd_core.world.render import render
from hkd_core.world.scenes import draw_scenes
vlm = tiny_vlm()
scenes = draw_scenes("test", 12, seed=0)
images = [
    {"image": render(scene, seed=0, sizes=(9, 14), noise=0.1), "colours": {thing.name: thing.color for thing in scene.singles}}
    for scene in scenes
]
"""
AFTER = """
from hkd_core.evaluation.registry import BENCHMARKS
from hkd_core.evaluation.results import READER_TABLES
assert READER_TABLES["colour"] == ["colour"]
truth = {thing.name + " " + thing.color for scene in scenes for thing in scene.singles}
asked = build_questions(images)
assert len(asked) == len(answers) > 12
assert all(a["prompt"][7:-1] in truth for a in asked if a["answer"] == "Yes")
accuracy = {row["model"]: row["value"] for row in rows if row["metric"] == BENCHMARKS["colour"].headline}
right = sum(a["answer"] == a["label"] for a in answers) / len(answers)
assert accuracy == {"my model": round(right, 4), "all_yes": 0.5, "all_no": 0.5}
assert {row["benchmark"] for row in rows} == {"colour"} and "auroc" in {row["metric"] for row in rows}
"""


def test_the_route_gives_a_benchmark_with_scores_and_answerers_that_never_look(tmp_path):
    page = (ROOT / "docs/routes/benchmark.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.S)
    [change] = re.findall(r"```diff\n--- (\S+)\n(.*?)```", page, re.S)
    shutil.copytree(ROOT / "hkd_core", tmp_path / "hkd_core", ignore=shutil.ignore_patterns("__pycache__"))
    path = re.match(r"# (\S+)\n", code[0])[1]
    (tmp_path / path).write_text(code[0])
    imported, entry = (line.removeprefix("+") for line in change[1].splitlines())
    registry = tmp_path / change[0]
    text = registry.read_text()
    assert text.count("        CHAIR,\n") == 1
    registry.write_text(text.replace("\n\nBENCHMARKS", f"\n{imported}\n\nBENCHMARKS").replace("        CHAIR,\n", f"        CHAIR,\n{entry}\n"))
    script = tmp_path / "ask.py"
    script.write_text(BEFORE + code[1] + AFTER)
    surroundings = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, script, ROOT / "tests"], cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(code[0].splitlines()) + len(code[1].splitlines()) <= 30

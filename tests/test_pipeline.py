"""The pipeline as written: stages know what they depend on, notebooks are clean, the house stands as it is drawn."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from hkd_core import notebook

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SEEDS = yaml.safe_load((ROOT / "reports/seeds/dvc.yaml").read_text())["stages"]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def imported(code: str) -> set[str]:
    """Files of hkd_core that a piece of code imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hkd_core"):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        for name in names:
            path = ROOT.joinpath(*name.split("."))
            packages = [folder / "__init__.py" for folder in (path, *path.parents) if folder.is_relative_to(ROOT / "hkd_core")]
            found |= {p for p in (path.with_suffix(".py"), *packages) if p.is_file()}
    return found


def all_imported(code: str) -> set[Path]:
    """The same with what those files import in turn."""
    done: set[Path] = set()
    todo = imported(code)
    while todo:
        path = todo.pop()
        done.add(path)
        todo |= imported(path.read_text()) - done
    return done


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_module_that_a_notebook_loads_is_among_its_stages_dependencies(name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    stages = [s for s in (*STAGES.values(), *SEEDS.values()) if f"run {name}" in s["cmd"]]
    missing = []
    for path in all_imported(code):
        place = path.relative_to(ROOT).as_posix()
        trivial = path.name == "__init__.py" and not imported(path.read_text())
        for stage in stages:
            if not trivial and not any(place == dep or place.startswith(f"{dep}/") for dep in stage["deps"]):
                missing.append(place)
    assert stages and not missing


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_committed_clean_with_a_plain_parameters_cell(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    assert path.read_text() == notebook.text_of(notebook.cleaned(notebook.read(path)))
    assert [c.source for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])] == [
        "seed = None\noverrides = {}"
    ]


def test_every_notebook_is_a_stage_of_its_name():
    ran = [(re.search(r"run (\S+)", s["cmd"])[1], name) for name, s in (STAGES | SEEDS).items() if name != "code"]
    assert {source for source, _ in ran} == set(NOTEBOOKS)
    # A notebook that runs twice says in its second name on what.
    assert all(name == source.split("_", 1)[1] or name.startswith(f"{source.split('_', 1)[1]}_of_") for source, name in ran)


# The house: a room may import from rooms of the lines above and from its own.
FLOORS = (
    "common",
    "losses data",
    "models",
    "inference",
    "training plots",
    "hkd seed",
    "evaluation",
    "world sources",
    "rehearse",
)
RANK = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}


def room(path: Path) -> str:
    """The part of the library a file belongs to; files at the top and `__main__.py` are commands, which belong to no room."""
    parts = path.relative_to(ROOT / "hkd_core").parts
    return parts[0] if len(parts) > 1 and path.name != "__main__.py" else ""


def library() -> list[Path]:
    return sorted((ROOT / "hkd_core").rglob("*.py"))


def test_imports_run_downwards_and_nothing_in_the_library_but_the_world_imports_the_world():
    assert {room(path) for path in library()} - {""} == set(RANK)
    upwards = [
        (path.relative_to(ROOT).as_posix(), other.relative_to(ROOT).as_posix())
        for path in library()
        for other in imported(path.read_text())
        if room(path) and room(other) != room(path) and RANK.get(room(other), len(FLOORS)) >= RANK[room(path)]
    ]
    # The package's own __init__ is empty, so loading it loads nothing.
    assert [pair for pair in upwards if pair[1] != "hkd_core/__init__.py"] == []
    assert [path for path in library() if room(path) != "world" and "hkd_core.world" in path.read_text()] == []
    assert [path for path in library() if room(path) not in ("", "rehearse") and "hkd_core.rehearse" in path.read_text()] == []


def test_modules_stay_small():
    assert {path.name: n for path in library() if (n := len(path.read_text().splitlines())) > 400} == {}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short_enough_for_a_projector(name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    lines = sorted(len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code")
    assert lines[len(lines) // 2] <= 8 and lines[-1] <= 25


def test_what_is_amiss_before_a_run_is_one_line(tmp_path):
    def checked(change):
        (tmp_path / "dvc.yaml").touch()
        (tmp_path / "params.yaml").write_text(change((ROOT / "params.yaml").read_text()))
        return subprocess.run([sys.executable, "-m", "hkd_core.check"], cwd=tmp_path, capture_output=True, text=True)

    assert checked(lambda text: text).returncode == 0
    for change, message in (
        (lambda text: text.replace("profile: laptop", "profile: desktop"), "profile: expected one of laptop, smoke"),
        (lambda text: text.replace("profile: laptop", "profile: qwen"), "profile qwen: not ready to run: Qwen2.5-VL weights"),
        (lambda text: text.replace("gate: false", "gaet: false"), "ternary.gaet: unknown key"),
        (lambda text: text.replace("seed: 0", "seed: x"), "seed: expected a whole number"),
    ):
        done = checked(change)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_the_makefile_runs_no_command_that_a_folders_name_holds(tmp_path):
    folder = tmp_path / "a$(touch x)b`touch y`;c \"d' e"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    done = subprocess.run(["make", "ready", "PYTHON=no-such-python"], cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0 and "no-such-python" not in done.stdout
    assert sorted(p.name for p in folder.iterdir()) == [".venv", "Makefile", "pyproject.toml", "requirements.lock"]


def test_dvc_finds_the_stages_of_the_seeds_too(tmp_path):
    """It looks into no folder that git ignores; a pattern such as reports/* ignores the whole folder, whatever is excepted."""
    copy = copy_of_the_project(tmp_path / "study")
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    done = subprocess.run([sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"], cwd=copy, capture_output=True, text=True)
    assert {f"reports/seeds/dvc.yaml:{name}@laptop" for name in SEEDS} <= set(done.stdout.split()), done.stderr


def copy_of_the_project(to: Path) -> Path:
    """The project without what it makes, as a ZIP download has it."""
    made = {
        ROOT: {".venv", ".git", "models", "build"},
        ROOT / "data": {p.name for p in (ROOT / "data").iterdir() if p.is_dir()},
        ROOT / ".dvc": {"cache", "tmp"},
        ROOT / "reports": {"smoke"},
    }
    shutil.copytree(ROOT, to, ignore=lambda folder, names: made.get(Path(folder), set()) | {"__pycache__"})
    return to


@pytest.mark.slow
def test_smoke_runs_end_to_end_touches_no_other_profile_and_a_second_time_does_nothing(tmp_path):
    copy = copy_of_the_project(tmp_path / "study")
    params, lock = copy / "params.yaml", copy / "dvc.lock"
    before = params.read_bytes()
    others = {path: path.read_bytes() for path in (copy / "reports/laptop").rglob("*") if path.is_file()}

    def run(module, *arguments):
        return subprocess.run([sys.executable, "-m", module, *arguments], cwd=copy, capture_output=True, text=True)

    run("dvc", "config", "--local", "core.no_scm", "true")
    done = run("hkd_core.repro", "smoke")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert params.read_bytes() == before and all(path.read_bytes() == kept for path, kept in others.items())
    stages = yaml.safe_load(lock.read_text())["stages"]
    assert {name.split("@")[0] for name in stages if name.endswith("@smoke")} == set(STAGES)

    again = run("hkd_core.repro", "smoke")
    assert again.returncode == 0 and "Running stage" not in again.stdout
    evaluate = copy / "reports/smoke/metrics/evaluate.json"
    assert 0 <= json.loads(evaluate.read_text())["hkd_small_msi_task1_macro_f1"] <= 1
    evaluated = evaluate.read_bytes()
    assert run("hkd_core.repro", "smoke", "--single-item", "--force", "evaluate").returncode == 0
    assert evaluate.read_bytes() == evaluated

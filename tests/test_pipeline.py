"""The pipeline as written: stages know what they depend on, notebooks are clean, README and pipeline agree."""

import ast
import csv
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
README = (ROOT / "README.md").read_text()


def imported(code: str) -> set[str]:
    """Files of hkd_core that a piece of code imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hkd_core"):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        for name in names:
            path = ROOT.joinpath(*name.split("."))
            found |= {p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()}
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
        trivial = not path.read_text().strip() or path.name == "__init__.py"
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


def test_the_readmes_graph_is_the_pipelines():
    outs = {
        next(iter(out)) if isinstance(out, dict) else out: name
        for name, s in STAGES.items()
        for out in [*s["outs"], *s.get("metrics", [])]
    }
    edges = set()
    for name, stage in STAGES.items():
        for dep in stage["deps"]:
            maker = outs.get(dep) or next((m for out, m in outs.items() if dep.startswith(f"{out}/")), None)
            if maker not in (None, "code"):
                edges.add((maker, name))
    drawn = set(re.findall(r"^  (\w+) --> (\w+)$", README.split("```mermaid")[1].split("```")[0], flags=re.MULTILINE))
    assert drawn == edges


# Of the README's tables, column -> (benchmark, metric, decimals); under mapping shift where the heading says MSI.
COLUMNS = {
    "task 1": ("task1", "macro_f1", 3),
    "task 1, MSI": ("task1", "macro_f1", 3),
    "task 2": ("task2", "macro_f1", 3),
    "POPE random": ("pope_random", "f1", 3),
    "popular": ("pope_popular", "f1", 3),
    "adversarial": ("pope_adversarial", "f1", 3),
    "POPE adversarial": ("pope_adversarial", "f1", 3),
    "… MSI": ("pope_adversarial", "f1", 3),
    "CHAIR_i, %": ("chair", "chair_i", 1),
    "recall, %": ("chair", "recall", 1),
    "MME": ("mme", "score", 0),
}


@pytest.mark.parametrize("name", ["hkd", "seed"])
def test_the_readmes_numbers_are_those_of_the_committed_seeds(name):
    # Committed, not current: whoever changes a setting and runs the study has not broken the README.
    show = ["git", "show", "HEAD:reports/tables/seeds.csv"]
    lines = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    results = {(r["model"], r["decoding"], r["benchmark"], r["metric"]): r for r in csv.DictReader(lines)}
    shown = README.split(f"<!-- {name} -->")[1].split(f"<!-- end {name} -->")[0]
    head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in shown.strip().splitlines()]
    assert len(rows) >= 8
    for row in rows:
        model, said = re.findall(r"`(\w+)`", row[0])[0], (re.findall(r"[+] (\w+)", row[0]) or ["greedy"])[0]
        for heading, cell in zip(head, row, strict=True):
            if heading in COLUMNS:
                *key, places = COLUMNS[heading]
                found = results.get((model, "msi" if "MSI" in heading else said, *key))
                assert cell == (f"{float(found['mean']):.{places}f} ± {float(found['sd']):.{places}f}" if found else "")
            elif heading == "cost":
                rows_of = [results.get((model, said, f"cost_{answer}", "times_greedy")) for answer in ("question", "caption")]
                costs = [sorted(float(r[key]) for key in r if key.startswith("seed_")) for r in rows_of if r]
                shown = [f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, *_, high in costs]
                assert cell.split(" / ") == list(dict.fromkeys(shown))


def test_the_readmes_ablations_are_those_of_the_committed_seeds():
    show = ["git", "show", "HEAD:reports/tables/ablations.csv"]
    lines = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    results = {(r["model"], r["decoding"], r["benchmark"]): r for r in csv.DictReader(lines)}
    shown = README.split("<!-- ablations -->")[1].split("<!-- end ablations -->")[0]
    head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in shown.strip().splitlines()]
    assert len(rows) >= 15
    for variant, *cells in rows:
        for heading, cell in zip(head[1:], cells, strict=True):
            found = results[variant.strip("`"), "msi" if "MSI" in heading else "greedy", heading.split(",")[0].replace(" ", "")]
            assert cell == f"{float(found['mean']):.3f} ± {float(found['sd']):.3f}"


def test_links_and_pictures_of_the_readme_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert [t for t in targets if not t.startswith("http") and not (ROOT / t).exists()] == []


def test_modules_stay_small_and_imports_run_one_way():
    layers = ["errors", "files root", "params data losses plots", "models", "inference distill", "pretrain evaluation"]
    rank = {name: i for i, names in enumerate(layers) for name in names.split()}
    for path in (ROOT / "hkd_core").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 420, path
        own = path.relative_to(ROOT / "hkd_core").parts[0].removesuffix(".py")
        for other in imported(path.read_text()):
            name = other.relative_to(ROOT / "hkd_core").parts[0].removesuffix(".py")
            assert name == "__init__" or own not in rank or rank.get(name, 0) <= rank[own], (path, other)


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
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_smoke_profile_runs_end_to_end_and_a_second_time_does_nothing(tmp_path):
    """In a copy without git, as from a ZIP download; metrics come out the same from the same seed."""
    made = {
        ROOT: {".venv", ".git", "models", "build", "reports"},
        ROOT / "data": {"scenes", "augmented"},
        ROOT / ".dvc": {"cache", "tmp"},
    }
    copy = tmp_path / "study"
    shutil.copytree(ROOT, copy, ignore=lambda folder, names: made.get(Path(folder), set()) | {"__pycache__"})
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("profile: laptop", "profile: smoke", 1))

    def dvc(*arguments):
        return subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=copy, capture_output=True, text=True)

    dvc("config", "--local", "core.no_scm", "true")
    (copy / "dvc.lock").unlink(missing_ok=True)
    done = dvc("repro")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    again = dvc("repro")
    assert again.returncode == 0 and "Running stage" not in again.stdout
    metrics = json.loads((copy / "reports/metrics/evaluate.json").read_text())
    assert 0 <= metrics["hkd_small_msi_task1_macro_f1"] <= 1
    evaluated = (copy / "reports/metrics/evaluate.json").read_bytes()
    assert dvc("repro", "--single-item", "--force", "evaluate").returncode == 0
    assert (copy / "reports/metrics/evaluate.json").read_bytes() == evaluated

"""README and docs: every number in a marked table is a committed one, links lead somewhere, the graph is the pipeline's.

Marks: `<!-- scores -->`, `<!-- differences -->`, `<!-- goals -->` or `<!-- measured -->` before a table, `<!-- end -->` after it;
`<!-- snippet: NAME -->` and `<!-- end snippet -->` around the code of docs/snippets. `python tests/test_readme.py` writes the current
numbers and snippets between the marks.
"""

import csv
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml
from scipy import stats

from hkd_core.common.files import write_text

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")),
]
TABLES = [ROOT / "README.md", ROOT / "docs/results.md"]
REPORTS = "reports/laptop"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# A heading or the cell "measured by" -> (benchmark and metric of scores, benchmark of differences, decimals).
MEASURES = {
    "task 1": ("task1", "macro_f1", "task1", 3),
    "task 2": ("task2", "macro_f1", "task2", 3),
    "POPE random": ("pope_random", "f1", "pope_random", 3),
    "POPE popular": ("pope_popular", "f1", "pope_popular", 3),
    "POPE adversarial": ("pope_adversarial", "f1", "pope_adversarial", 3),
    "CHAIR_i": ("chair", "chair_i", "chair_i", 1),
    "recall": ("chair", "recall", "caption_recall", 1),
    "MME": ("mme", "score", "mme", 0),
}


@cache
def committed(path: str) -> str:
    """A file as committed: who changes a setting and runs the study has not broken the README. From the folder where git knows none."""
    done = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else (ROOT / path).read_text()


def rows_of(path: str) -> list[dict]:
    return list(csv.DictReader(committed(f"{REPORTS}/{path}").splitlines()))


def seeds_of(row: dict) -> list[float]:
    return [float(row[name]) for name in sorted(row) if name.startswith("seed_")]


@cache
def scores() -> dict[tuple, dict]:
    """(model, decoding, benchmark, metric) -> the row of seeds.csv; variants of HKD4VLM from ablations.csv."""
    variants = {(r["model"], r["decoding"], r["benchmark"], "macro_f1"): r for r in rows_of("tables/ablations.csv")}
    return variants | {(r["model"], r["decoding"], r["benchmark"], r["metric"]): r for r in rows_of("tables/seeds.csv")}


@cache
def comparisons() -> dict[tuple, dict]:
    return {(r["a"], r["b"], r["benchmark"]): r for r in rows_of("tables/seeds_comparisons.csv")}


def difference(a: str, b: str, measure: str) -> tuple[float, float, float, list[float]]:
    """Mean over seeds, its 95 % interval (Student's t) and each seed's value of "model decoding" a minus b."""
    benchmark, metric, compared, _ = MEASURES[measure]
    if row := comparisons().get((a, b, compared)):
        return float(row["mean"]), float(row["low"]), float(row["high"]), seeds_of(row)
    pairs = zip(*(seeds_of(scores()[*way.rsplit(" ", 1), benchmark, metric]) for way in (a, b)), strict=True)
    seeds = [round(one - other, 4) for one, other in pairs]
    mean = sum(seeds) / len(seeds)
    half = stats.t.ppf(0.975, len(seeds) - 1) * stats.tstd(seeds) / len(seeds) ** 0.5
    return mean, mean - half, mean + half, seeds


def way_of(cell: str) -> str:
    """`model` or `model` + decoding, with or without words before it, as "model decoding"."""
    decoding = re.search(r"` \+ (\w+)", cell)
    return f"{re.search('`([^`]+)`', cell)[1]} {decoding[1] if decoding else 'greedy'}"


def score_cell(way: str, heading: str, shown: str) -> str:
    measure, _, decoding = heading.partition(", ")
    model, own = way.rsplit(" ", 1)
    if measure == "cost":
        found = [scores().get((model, own, f"cost_{answer}", "times_greedy")) for answer in ("question", "caption")]
        spans = [(min(seeds_of(row)), max(seeds_of(row))) for row in found if row]
        return " / ".join(dict.fromkeys(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in spans))
    if measure not in MEASURES:
        return shown
    benchmark, metric, _, places = MEASURES[measure]
    row = scores().get((model, decoding or own, benchmark, metric))
    return f"{float(row['mean']):.{places}f} ± {float(row['sd']):.{places}f}" if row else ""


def difference_cells(row: dict[str, str]) -> dict[str, str]:
    measure = row["measured by"]
    mean, low, high, seeds = difference(way_of(row["A"]), way_of(row["B"]), measure)
    places = MEASURES[measure][3]

    def signed(number: float) -> str:
        shown = f"{number:+.{places}f}"
        return shown.replace("-", "−") if float(shown) else shown[1:]

    return {
        "A minus B": signed(mean),
        "95 % interval": f"{signed(low)} to {signed(high)}",
        "each seed": ", ".join(map(signed, seeds)),
        "seeds": str(len(seeds)),
    }


def goal_cells(row: dict[str, str]) -> dict[str, str]:
    found = [next(r for r in rows_of(f"seeds/study/{seed}-outcomes.csv") if r["check"] == row["goal"]) for seed in range(3)]
    met = sum(r["met"] == "yes" for r in found)
    return {f"seed {seed}": r["value"].replace("-", "−") for seed, r in enumerate(found)} | {"met by": f"{met} of {len(found)}"}


def measured_cell(key: str, heading: str, shown: str) -> str:
    """A number of seed 0's self_evolution.json: the heading and the row's name in backticks make its key."""
    places = re.search(r"`(\w+)`", heading)
    name = re.search(r"`([\w.]+)`", key)[1]
    value = json.loads(committed(f"{REPORTS}/metrics/self_evolution.json")).get(f"{places[1]}_{name}") if places else None
    return shown if not places else "" if value is None else f"{value:.3f}"


def filled(kind: str, table: str) -> str:
    """The table with its numbers as committed."""
    lines = table.strip().splitlines()
    head, *body = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines]
    found = lines[:2]
    for cells in body[1:]:
        row = dict(zip(head, cells, strict=True))
        if kind == "scores":
            row = {
                heading: score_cell(way_of(cells[0]), heading, cell) if heading != head[0] else cell
                for heading, cell in row.items()
            }
        elif kind == "measured":
            row = {heading: measured_cell(cells[0], heading, cell) for heading, cell in row.items()}
        else:
            new = goal_cells(row) if kind == "goals" else difference_cells(row)
            row = {heading: new.get(heading, cell) for heading, cell in row.items()}
        found.append("| " + " | ".join(row.values()) + " |")
    return "\n".join(found)


def rewritten(text: str) -> str:
    def fill(match: re.Match) -> str:
        return f"<!-- {match[1]} -->\n{filled(match[1], match[2])}\n<!-- end -->"

    def quote(match: re.Match) -> str:
        return f"<!-- snippet: {match[1]} -->\n```python\n{snippet(match[1])}```\n<!-- end snippet -->"

    text = re.sub(r"<!-- (scores|differences|goals|measured) -->\n(.+?)\n<!-- end -->", fill, text, flags=re.DOTALL)
    return re.sub(r"<!-- snippet: (\w+) -->\n.+?\n<!-- end snippet -->", quote, text, flags=re.DOTALL)


def snippet(name: str) -> str:
    """The code of docs/snippets, which tests run, without its docstring."""
    path = ROOT / f"docs/snippets/{name}.py"
    return re.sub(r'\A""".+?"""\n+', "", path.read_text(), flags=re.DOTALL) if path.exists() else "# will be added\n"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_every_number_in_a_marked_table_is_a_committed_one(path):
    text = path.read_text()
    assert text.count("<!-- end -->") == len(re.findall(r"<!-- (?:scores|differences|goals|measured) -->", text)) > 0
    assert text.splitlines() == rewritten(text).splitlines()


def test_a_changed_number_is_noticed():
    row = "| `seed_medium` | `base_medium` | CHAIR_i | −9.9 | −11.5 to −8.1 |"
    text = f"<!-- differences -->\n| A | B | measured by | A minus B | 95 % interval |\n|-|-|-|-|-|\n{row}\n<!-- end -->"
    assert "−9.9" not in rewritten(text) and "−11.5 to −8.1" in rewritten(text)


def test_a_difference_computed_from_scores_is_the_studys_own():
    for a, b, benchmark in [("hkd_small greedy", "kd_small greedy", "task1"), ("hkd_small msi", "hkd_small greedy", "task1")]:
        stored = comparisons().pop((a, b, benchmark))
        computed = difference(a, b, "task 1")
        comparisons()[a, b, benchmark] = stored
        assert [*computed[:3], *computed[3]] == pytest.approx(
            [float(stored[name]) for name in ("mean", "low", "high")] + seeds_of(stored), abs=4e-4
        )


def test_the_readme_has_at_most_900_words():
    outside = re.sub(r"^```.*?^```[^\n]*$", "", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(outside.split()) <= 900


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_exist_and_sections_linked_to_are_there(path):
    missing = []
    for target, section in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", path.read_text()):
        file = (path.parent / target).resolve() if target else path
        if target.startswith("http"):
            continue
        if not file.exists():
            missing.append(target)
        elif section and section not in anchors(file.read_text()):
            missing.append(f"{target}#{section}")
    assert missing == []


def anchors(text: str) -> set[str]:
    """Of every heading what GitHub makes of it: lower case, no punctuation, hyphens for spaces; and explicit ids."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


def test_the_graph_in_docs_is_the_pipelines():
    outs = {
        path: name
        for name, stage in STAGES.items()
        for out in [*stage["outs"], *stage.get("metrics", [])]
        for path in (out if isinstance(out, dict) else [out])
    }
    edges = set()
    for name, stage in STAGES.items():
        for dep in stage["deps"]:
            makers = {outs[dep]} if dep in outs else {made for out, made in outs.items() if dep.startswith(f"{out}/")}
            edges |= {(maker, name) for maker in makers or {made for out, made in outs.items() if out.startswith(f"{dep}/")}}
    edges = {(maker, name) for maker, name in edges if maker not in ("code", name)}
    graph = (ROOT / "docs/architecture.md").read_text().split("<!-- pipeline -->")[1].split("```mermaid")[1].split("```")[0]
    assert set(re.findall(r"^  (\w+) --> (\w+)$", graph, flags=re.MULTILINE)) == edges


def test_every_function_that_the_table_of_equations_names_exists_and_every_notebook_section_too():
    text = (ROOT / "docs/architecture.md").read_text()
    rows = text.split("<!-- equations -->")[1].split("<!-- end -->")[0]
    names = re.findall(r"\[`([\w/]+\.py):(\w+)`\]", rows)
    assert len(names) >= 10
    for path, name in names:
        source = (ROOT / "hkd_core" / path).read_text()
        assert re.search(rf"^(?:def|class) {name}\b|^{name}\b.*=", source, flags=re.MULTILINE), f"{path}:{name}"
    for notebook, section in re.findall(r"\[(\w+)\]\(\.\./notebooks/\w+\.ipynb\) *· *([^|]+?) *\|", rows):
        cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
        headings = [line for cell in cells for line in "".join(cell["source"]).splitlines() if line.startswith("#")]
        assert any(section in heading for heading in headings), (notebook, section)


if __name__ == "__main__":
    for document in TABLES:
        write_text(document, rewritten(document.read_text()))

"""The routes of CONTRIBUTING.md: their code runs as printed."""

import importlib
import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
ROUTES = {
    section.split("\n")[0]: re.findall(r"^```python\n(.+?)^```", section, flags=re.DOTALL | re.MULTILINE)
    for section in TEXT.split("\n## ")[1:]
}
ROUTES = {title: blocks for title, blocks in ROUTES.items() if blocks}


@pytest.fixture
def modules_as_they_were():
    """Puts back what a route adds to a module or to a registry in it."""
    kept: list[tuple[dict, dict]] = []

    def watch(names: dict) -> dict:
        kept.extend(
            (registry, dict(registry)) for registry in (names, *(v for k, v in names.items() if k.isupper() and type(v) is dict))
        )
        return names

    yield watch
    for now, before in kept:
        now.clear()
        now.update(before)


def test_the_routes_are_the_expected_ones():
    assert set(ROUTES) == {"Add a divergence", "Add a model family", "Add an augmentation"}
    assert "docs/routes/benchmark.md" in TEXT  # has a test of its own


@pytest.mark.parametrize("title", ROUTES)
def test_a_routes_code_runs_as_printed(title, modules_as_they_were):
    for block in ROUTES[title]:
        assert len(block.splitlines()) <= 30
        file = re.match(r"# (hkd_core/\S+)\.py\n", block)
        names = modules_as_they_were(vars(importlib.import_module(file[1].replace("/", ".")))) if file else {}
        exec(compile(block, f"CONTRIBUTING.md, {title}", "exec"), names)

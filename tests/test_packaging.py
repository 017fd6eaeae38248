"""Whatever is imported is declared: a fresh environment has it, and not by way of another package."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from hkd_core.notebook import without_magics

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def canonical(requirement: str) -> str:
    """The distribution that a requirement names, as package registries spell it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def imported_modules(code: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found - {"hkd_core"} - set(sys.stdlib_module_names)


def sources():
    """(file, code) of the library's modules and of the notebooks' cells."""
    for path in sorted((ROOT / "hkd_core").rglob("*.py")):
        yield path, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                yield path, without_magics("".join(cell["source"]))


def test_every_import_of_the_library_and_the_notebooks_is_a_declared_dependency_or_an_extra():
    extras = [name for extra, names in PROJECT["optional-dependencies"].items() if extra != "test" for name in names]
    declared = set(map(canonical, PROJECT["dependencies"] + extras))
    distributions = packages_distributions()
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for path, code in sources()
        for module in imported_modules(code)
        if not declared & set(map(canonical, distributions.get(module, [module])))
    }
    assert undeclared == set()


def test_the_lock_pins_what_is_declared():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(line) for line in lines if line and not line.startswith("#")}
    assert set(map(canonical, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])) <= pinned

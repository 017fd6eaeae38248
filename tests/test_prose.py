"""The prose of the repository: no sentence has more than 25 words, and words that the glossary replaced do not return."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AVOIDED = re.compile(r"of its own|of their own|\bmend|\bvoices\b|said of|prejudice|rapid fire", re.IGNORECASE)
MOST = 25  # words; a formula, a span of code and a list in brackets count as one
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md", ROOT / "data/README.md"])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted((ROOT / "hkd_core").rglob("*.py"))


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, headings, items of lists and cells of tables of a Markdown text, each in one line, without code and formulas."""
    text = re.sub(r"```.*?```|<!--.*?-->|<[^<>\n]+>", "\n\n", text, flags=re.S)
    text = re.sub(r"\$\$.*?\$\$", "\n\n", text, flags=re.S)
    text = re.sub(r"`[^`]+`|\$[^$\n]+\$", "X", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    paragraph: list[str] = []
    for line in [*text.splitlines(), ""]:
        starts = re.match(r"\s*(?:[-*#>]+\s|\||\d+\.\s)", line)
        if starts or not line.strip() or line.startswith("    "):
            yield " ".join(paragraph)
            paragraph = []
        if line.startswith("|"):
            yield from line.split("|")
        elif not line.startswith("    "):
            paragraph.append(line[starts.end() :] if starts else line)


def parts(docstring: str) -> Iterator[str]:
    """Paragraphs of a docstring and what it says of each argument ("name, name: text"), each in one line."""
    text = re.sub(r"`[^`]+`|\[[^\]]*\]", "X", docstring)
    for paragraph in re.split(r"\n\s*\n", text):
        if not paragraph.startswith("    "):  # else a formula or a table
            yield from (" ".join(part.split()) for part in re.split(r"\n(?=\s*(?:[-*]|[\w, *]{1,40}:)\s)", paragraph))


def too_long(text: str) -> list[str]:
    """The sentences of one block that have more than MOST words."""
    sentences = re.split(r"(?<=[.!?])[\"'”)*\]]*\s+", text.strip())
    return [s for s in sentences if sum(bool(re.search(r"\w", word)) for word in s.split()) > MOST]


def docstrings(code: str) -> Iterator[str]:
    """Of a module, its public classes and its public functions."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and not getattr(node, "name", "").startswith("_"):
            yield ast.get_docstring(node) or ""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_sentences_of_a_page_are_short(path):
    assert [s for block in blocks(path.read_text()) for s in too_long(block)] == []


def markdown_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_sentences_of_a_notebook_are_short(path):
    assert [s for block in blocks(markdown_of(path)) for s in too_long(block)] == []


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_replaced_words_do_not_return(path):
    text = markdown_of(path) if path.suffix == ".ipynb" else path.read_text()
    assert [block for block in blocks(text) if AVOIDED.search(block)] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sentences_of_docstrings_are_short(path):
    assert [s for text in docstrings(path.read_text()) for part in parts(text) for s in too_long(part)] == []


def test_the_count_takes_formulas_and_code_for_one_word_and_items_apart():
    text = "Ten words `a b c` $x + y$ here.\n\n- one two\n- three\n\n| a b | c |\n"
    assert [b.strip() for b in blocks(text) if b.strip()] == ["Ten words X X here.", "one two", "three", "a b", "c"]
    assert too_long("word " * 25 + "end.") and not too_long("word " * 24 + "end. " + "word " * 20)
    assert list(parts("Sum.\n\nshape: [a, b c].\nReturns it.")) == ["Sum.", "shape: X. Returns it."]

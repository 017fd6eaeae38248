"""Throw damaged params.yaml files, notebooks and -p arguments at their readers: a result or a UserError, nothing else.

`python scripts/fuzz_settings.py [--cases 100000] [--only NAME ...] [--seed 0]`. A failure prints the target and case number, which
`--first CASE --cases 1` runs again.
"""

import copy
import json
import random
from functools import cache
from pathlib import Path
from unittest import mock

import fuzzing
import yaml

from hkd_core import ipynb, notebook
from hkd_core.common import params

ROOT = Path(__file__).parents[1]
ODD = [None, True, False, 0, 1, -1, 7, 1.5, -0.0, 1e300, float("inf"), float("nan"), 2**70, "", "no", "large", "狗", "\ud800", "a\nb"]
ODD += [[], {}, [1], [[1, 2]], {"large": 1}, {1: 2}, {"a": {"b": {"c": {"d": [[[[[1]]]]]}}}}, [None], ["noise", 500], "x" * 500]
SYNTAX = [*"{}[]:,-&*!|>'\"%@`#?\t\n \x00\x85\xa0\ufeff", "<<: *a", "&a [*a]", "!!python/name:os.system ", "0x1F", "1_000", "~"]


@cache
def settings() -> tuple[str, dict]:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    return text, yaml.safe_load(text)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The paths of everything inside nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, inner in items for place in places(inner, (*path, key))]


def changed(rng: random.Random, value: dict) -> dict:
    """Some values replaced, dropped, doubled under odd keys or exchanged."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        *path, key = rng.choice(places(value))
        owner = value
        for step in path:
            owner = owner[step]
        kind = rng.randrange(4)
        if kind == 0:
            del owner[key]
        elif kind == 1 and isinstance(owner, dict):
            owner[rng.choice(("x", "", 1, None, "steps", "1.5", "a b"))] = owner[key]
        else:
            owner[key] = copy.deepcopy(rng.choice(ODD))
        if not value or not places(value):
            break
    return value


def scribbled(rng: random.Random, text: str) -> bytes:
    """Some characters of a text exchanged, and sometimes its end cut off or its encoding changed."""
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice(SYNTAX) + text[place + rng.randrange(3) :]
    text = text[: rng.randrange(len(text) + 1)] if rng.random() < 0.1 else text
    return text.encode(rng.choice(("utf-8",) * 8 + ("utf-16", "latin-1")), "ignore")


class Text:
    """A file in memory."""

    name = "params.yaml"

    def __init__(self, content: bytes):
        self.content = content

    def __str__(self) -> str:
        return self.name

    def read_text(self, encoding: str) -> str:
        return self.content.decode(encoding)


def fuzz_params(rng: random.Random) -> None:
    """Settings that are YAML, wrong in some places."""
    _, good = settings()
    content = changed(rng, {"profile": "smoke", "seed": 0, "profiles": {"smoke": good["profiles"]["smoke"]}})
    with mock.patch.object(params.yaml, "load", lambda text, loader: content):
        params.load_profile(path=Text(b""))


def fuzz_yaml(rng: random.Random) -> None:
    """A section of settings whose text is damaged."""
    _, good = settings()
    name = rng.choice(list(good["profiles"]["smoke"]))
    text = yaml.safe_dump({"profile": "smoke", "seed": 0, "profiles": {"smoke": {name: good["profiles"]["smoke"][name]}}})
    params.read_params(Text(scribbled(rng, text)))


def fuzz_notebook(rng: random.Random) -> None:
    """Notebooks: read, cleaned, scrubbed, written, and their parameters found."""
    stream = {"output_type": "stream", "name": rng.choice(("stdout", "stderr")), "text": ["a\r", "b\n"]}
    shown = {"output_type": "display_data", "data": {"text/plain": ["<f at 0x12>"], "image/png": "aGk="}, "metadata": {}}
    code = {"cell_type": "code", "source": ["seed = None\n", "x = {[]: 1}\n"], "metadata": {"tags": ["parameters"]}}
    code |= {"outputs": [stream, shown, stream], "execution_count": 1, "id": "a"}
    whole = {"cells": [code, {"cell_type": "markdown", "source": "# T", "metadata": {}}], "nbformat": 4, "nbformat_minor": 5}
    whole |= {"metadata": {}}
    if rng.random() < 0.7:
        content = json.dumps(changed(rng, whole)).encode()
    else:
        content = scribbled(rng, json.dumps(whole))
    found = ipynb.read(Text(content))
    notebook.parameters_of(found, "one")
    [notebook.without_magics(cell["source"]) for cell in ipynb.code_cells(found)]
    for form in (ipynb.scrubbed, ipynb.cleaned):
        ipynb.text_of(form(copy.deepcopy(found))).encode()


def fuzz_argument(rng: random.Random) -> None:
    """-p NAME=VALUE."""
    value = rng.choice((json.dumps, repr, str))(rng.choice(ODD))
    pair = rng.choice(("seed", "overrides", "overrides.steps", "", "x", ".", "overrides.")) + rng.choice(("=", "=", "=", "", "==")) + value
    if rng.random() < 0.5:
        pair = scribbled(rng, pair).decode("utf-8", "surrogateescape")
    json.dumps(notebook.parse_parameters([pair], {"seed": None, "overrides": {}}, "one"), ensure_ascii=False).encode()


TARGETS = fuzzing.targets_in(globals())

if __name__ == "__main__":
    fuzzing.main(__doc__.splitlines()[0], TARGETS)

"""Notebooks as stages: strict parameters, the same bytes every run, errors that say where, nothing left running."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hkd_core import notebook
from hkd_core.common.errors import UserError

PARAMETERS = new_code_cell("seed = None\noverrides = {}", metadata={"tags": ["parameters"]})
CHANGING = """
import random, sys, time
from tqdm import tqdm
for _ in tqdm(range(3)):
    print("a line", flush=True)
    time.sleep(random.random() / 10)
print("10 %\\r20 %", end="\\rdone\\n")
print(sys.executable, repr(seed), overrides)
object(), set("words"), time
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Makes a project around the working directory, with one notebook `one` of the code cells given."""

    def make(*codes):
        (tmp_path / "dvc.yaml").touch()
        (tmp_path / "params.yaml").write_text("profile: tiny\nseed: 0\nprofiles: {tiny: {}}\n")
        (tmp_path / "notebooks").mkdir()
        cells = [new_markdown_cell("# One"), PARAMETERS, *map(new_code_cell, codes)]
        nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "one.ipynb")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def command(*arguments, **how):
    return subprocess.run([sys.executable, "-m", "hkd_core.notebook", *arguments], capture_output=True, text=True, **how)


def test_two_runs_give_the_same_bytes_in_this_interpreter_with_values_of_their_types(project, monkeypatch, capfd):
    root = project(CHANGING)
    # A kernel of the same name that the user has elsewhere, and that does not even start.
    (root / "home" / "kernels" / "python3").mkdir(parents=True)
    kernel = {"argv": ["false"], "display_name": "Mine", "language": "python"}
    (root / "home" / "kernels" / "python3" / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(root / "home"))
    target = root / "reports/tiny/notebooks/one.ipynb"
    versions = []
    for _ in range(2):
        notebook.run("one", ["seed=1e-4", "overrides.gate=false"])
        versions.append(target.read_bytes())
    assert versions[0] == versions[1]
    nbformat.validate(nbformat.read(target, as_version=4))
    printed, value = nbformat.read(target, as_version=4).cells[-1].outputs
    lines = ["a line"] * 3 + ["done", f"{sys.executable} 0.0001 {{'gate': False}}", ""]
    assert printed.text == "\n".join(lines)
    assert value.data["text/plain"].startswith("(<object at 0x0>")
    assert "papermill" not in versions[0].decode() and not list((root / "build" / "failed").iterdir())
    assert "3/3" in capfd.readouterr().err


SIDE_BY_SIDE = """
from functools import partial
import sys
import torch
from hkd_core.common.parallel import side_by_side
from hkd_core.common.progress import progress

def job(name):
    print(f"{name} warns", file=sys.stderr, flush=True)
    for _ in progress(range(3), desc=name, unit="step"):
        pass

torch.set_num_threads(2)
side_by_side([partial(job, "one"), partial(job, "two")])
"""


def test_what_processes_side_by_side_print_comes_through_once(project):
    project(SIDE_BY_SIDE, "import time\ntime.sleep(2)")  # what a process printed last comes through a little later than its result
    # Under pytest ipykernel leaves alone what other processes print.
    outside = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    printed = command("run", "one", env=outside).stderr
    for name in ("one", "two"):
        assert printed.count(f"{name} warns") == printed.count(f"{name}: 100% 3/3") == 1


def test_a_failing_cell_is_named_with_its_line_and_the_target_stays(project):
    root = project("def halve(x):\n    return x / 0", "import json\nhalve(1)")
    target = root / "results" / "mine.ipynb"
    target.parent.mkdir()
    target.write_text("as it was")
    done = command("run", "one", "-o", str(target))
    assert done.returncode == 1 and target.read_text() == "as it was"
    assert done.stderr.splitlines() == [
        "error: notebooks/one.ipynb, cell [3]: ZeroDivisionError: division by zero",
        "  Cell In[3], line 2: halve(1)",
        "  Cell In[2], line 2, in halve(x): return x / 0",
        "  as far as it came: build/failed/mine.ipynb",
    ]
    assert (root / "build" / "failed" / "mine.ipynb").is_file()


def test_a_mistake_the_user_can_fix_is_one_line(project):
    project("from hkd_core.common.errors import UserError\nraise UserError('params.yaml: seed: expected a whole number')")
    with pytest.raises(UserError) as caught:
        notebook.run("one", [])
    assert str(caught.value) == "notebooks/one.ipynb, cell [2]: params.yaml: seed: expected a whole number"


@pytest.mark.parametrize("code", ["import os\nos.kill(os.getpid(), 9)", "import sys\nsys.exit()"])
def test_a_notebook_that_stops_half_way_is_not_taken_for_whole(project, code):
    root = project(code, "1 + 1")
    with pytest.raises(UserError, match=r"as far as it came: build/failed/one.ipynb"):
        notebook.run("one", [])
    assert not (root / "reports").exists()


def test_ending_the_runner_ends_its_kernel(project):
    root = project("import os, time\nopen('pid', 'w').write(f'{os.getpid()}.')\ntime.sleep(100)")
    arguments = [sys.executable, "-m", "hkd_core.notebook", "run", "one"]
    runner = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    pid = root / "pid"
    while runner.poll() is None and not (pid.exists() and pid.read_text().endswith(".")):
        time.sleep(0.05)
    runner.send_signal(signal.SIGTERM)
    message = runner.communicate(timeout=30)[1]
    assert runner.returncode == 128 + signal.SIGTERM
    assert message == "notebooks/one.ipynb: interrupted (as far as it came: build/failed/one.ipynb)\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()[:-1]), 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False),
        ("False", False),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("3", 3),
        ("null", None),
        ('"3"', "3"),
        ("jsd", "jsd"),
        ("[1, 2]", [1, 2]),
        ("1, 2", "1, 2"),
    ],
)
def test_a_value_is_json_or_python_or_text(text, value):
    found = notebook.parse_value(text)
    assert found == value and type(found) is type(value)


def test_keys_of_overrides_come_one_by_one_or_together():
    known = {"seed": None, "overrides": {"steps": 5}}
    parse = notebook.parse_parameters
    assert parse(["overrides.gate=false", "overrides.alpha=2"], known, "one") == {
        "overrides": {"steps": 5, "gate": False, "alpha": 2}
    }
    assert parse(['overrides={"gate": false}', "seed=1"], known, "one") == {"overrides": {"gate": False}, "seed": 1}
    assert known == {"seed": None, "overrides": {"steps": 5}}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("sed=1", "notebooks/one.ipynb: no parameter sed; it has overrides, seed"),
        ("sed.x=1", "no parameter sed"),
        ("seed", "expected key=value"),
        ("seed.x=1", "seed has no keys"),
        ("overrides=1", "expected overrides.key=value"),
        ("overrides.=1", "expected key=value"),
        ("overrides={steps:1}", "not JSON; quote it"),
        ("overrides={[]: 1}", "not JSON; quote it"),
        ("overrides.steps={{}: 1}", "not JSON; quote it"),
        ("seed=" + "[" * 3000, "not JSON; quote it"),
        ("seed=" + "[" * 20_000, "-p: expected printable text of at most 10000 characters, got 'seed=\\["),
        ("seed=\ud800", "-p: expected printable text"),
        ("seed=\n", "-p: expected printable text"),
    ],
)
def test_what_is_no_parameter_is_refused(pair, message):
    with pytest.raises(UserError, match=message):
        notebook.parse_parameters([pair], {"seed": None, "overrides": {}}, "one")


def test_parameters_are_what_the_tagged_cell_assigns(project):
    path = project("other = 1") / "notebooks" / "one.ipynb"
    assert notebook.parameters_of(notebook.read(path), "one") == {"seed": None, "overrides": {}}


def test_extracted_code_does_not_change_with_prose_outputs_ids_or_metadata(project):
    root = project("import os\n%time 1 + 1", "%%bash\nls *", "files = !ls\nx = (7\n % 4)", "x = (7\n % 4)\n")
    notebook.extract([])
    code = root / "build" / "code" / "one.py"
    before, written = code.read_text(), code.stat().st_mtime_ns
    path = root / "notebooks" / "one.ipynb"
    changed = nbformat.read(path, as_version=4)
    changed.cells[0].source = "# Another title"
    changed.cells.insert(1, new_markdown_cell("More prose"))
    changed.cells[3].outputs = [new_output("stream", text="3")]
    changed.cells[3].id, changed.cells[3].metadata = "other", {"collapsed": True}
    changed.metadata = {"kernelspec": {"name": "another", "display_name": "Another"}}
    nbformat.write(changed, path)
    notebook.extract([])
    assert code.read_text() == before and code.stat().st_mtime_ns == written
    cells = before.split("\n\n")
    assert cells[:3] == ["seed = None\noverrides = {}", "import os\n# %time 1 + 1", "# %%bash\n# ls *"]
    assert cells[3].startswith("# files = !ls\n") and cells[4] == "x = (7\n % 4)\n"


def test_cleaning_strips_what_a_run_leaves_once_and_check_only_tells(project):
    path = project("1 + 1") / "notebooks" / "one.ipynb"
    used = nbformat.read(path, as_version=4)
    used.cells[2].outputs, used.cells[2].execution_count = [new_output("stream", text="2")], 7
    used.cells[2].metadata["execution"] = {"iopub.status.busy": "now"}
    nbformat.write(used, path)
    before = path.read_bytes()
    assert notebook.clean([], check=True) == 1 and path.read_bytes() == before
    assert notebook.clean([], check=False) == 0
    cleaned, written = path.read_bytes(), path.stat().st_mtime_ns
    assert notebook.clean([], check=True) == 0 and notebook.clean([], check=False) == 0
    assert path.stat().st_mtime_ns == written
    after = nbformat.read(path, as_version=4)
    assert [cell.id for cell in after.cells] == ["cell-00", "cell-01", "cell-02"]
    assert after.cells[1].metadata == {"tags": ["parameters"]} and after.cells[2].metadata == {}
    assert not after.cells[2].outputs and after.cells[2].execution_count is None
    # JupyterLab, which saves through nbformat, would write the same.
    nbformat.write(after, path)
    assert path.read_bytes() == cleaned


def test_a_notebook_that_is_not_there_is_named_with_those_that_are(project):
    project()
    done = command("extract", "two")
    assert done.returncode == 2 and done.stderr == "error: notebooks/two.ipynb: no such notebook; there are one\n"


def with_cell(cell):
    return '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [' + cell + "]}"


NOT_NOTEBOOKS = {
    "": "Expecting value: line 1 column 1 (char 0)",
    "[]": "expected a JSON object, got list",
    "null": "expected a JSON object, got NoneType",
    '{"cells": []}': "it lacks 'nbformat'",
    '{"cells": [], "nbformat": 3, "nbformat_minor": 5}': "expected nbformat 4, got 3",
    '{"cells": [], "nbformat": 4}': "it lacks 'nbformat_minor'",
    '{"cells": {"a": 1}, "nbformat": 4, "nbformat_minor": 5}': "cell 0: ",
    with_cell("1"): "cell 0: ",
    with_cell('{"cell_type": "code", "source": "", "metadata": {}}'): "cell 0 lacks 'outputs'",
    with_cell('{"cell_type": "other", "source": "", "metadata": {}}'): "cell 0: cell_type: expected code, markdown or raw, got other",
    with_cell('{"cell_type": "code", "source": 7, "metadata": {}, "outputs": []}'): "cell 0: ",
    with_cell('{"cell_type": "code", "source": "", "metadata": null, "outputs": []}'): "cell 0: ",
    with_cell('{"cell_type": "code", "source": "", "metadata": {"tags": 7}, "outputs": []}'): "cell 0: ",
    with_cell('{"cell_type": "code", "source": "", "metadata": {}, "outputs": {}}'): "cell 0: outputs: expected a list",
    with_cell('{"cell_type": "code", "source": "", "metadata": {}, "outputs": [{"output_type": "stream"}]}'): "cell 0 lacks 'text'",
    with_cell('{"cell_type": "code", "source": "\\ud800", "metadata": {}, "outputs": []}'): "'utf-8' codec can't encode",
    "[" * 100_000: "maximum recursion depth exceeded",
    '{"nbformat": ' + "4" * 5000 + "}": "Exceeds the limit (4300 digits)",
    "\xff": "'utf-8' codec can't decode byte 0xff",
}


@pytest.mark.parametrize(("content", "message"), NOT_NOTEBOOKS.items(), ids=range(len(NOT_NOTEBOOKS)))
def test_what_is_not_a_notebook_is_one_line(project, content, message):
    path = project() / "notebooks" / "one.ipynb"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        notebook.read(path)
    assert str(caught.value).startswith(f"{path}: not a notebook: {message}") and "\n" not in str(caught.value)


def test_outside_a_project_that_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("extract")
    assert done.returncode == 2 and "no dvc.yaml here or above" in done.stderr

"""What the evaluation prints and writes, whatever becomes of its output; and readers that nothing can bring down."""

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hkd_core.evaluation import output
from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.pope_scores import PARSERS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
fuzz_readers = importlib.import_module("fuzz_readers")


@pytest.mark.parametrize("target", fuzz_readers.TARGETS)
def test_damaged_files_give_a_result_or_a_user_error(target):
    if target == "xlsx":
        pytest.importorskip("openpyxl")
    results, refused = fuzz_readers.run(target, 2000, seed=1)
    assert results + refused == 2000
    assert results >= 10, "the cases must reach the scoring"


@pytest.fixture
def files(tmp_path):
    questions = [
        {"question_id": k, "image": f"{k // 2}.jpg", "text": f"Is there a {name} in the image?", "label": "yes" if k % 2 else "no"}
        for k, name in enumerate(("dog", "cat", "cup", "car"))
    ]
    said = ["No", "Yes.", "<think>hm</think>Yes", "No 狗 \ud800"]
    answers = [{"question_id": k, "text": text} for k, text in enumerate(said)]
    for name, rows in (("q", questions), ("a", answers)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [str(tmp_path / "q.jsonl"), str(tmp_path / "a.jsonl")]


def test_every_verdict_is_written_and_adds_up_to_the_scores(files, tmp_path, capsys):
    assert main(["pope", "--questions", files[0], "--answers", files[1], "--per-item", str(tmp_path / "items.csv")]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader((tmp_path / "items.csv").open(encoding="utf-8")))
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"] and [row["right"] for row in rows] == [
        "True",
        "True",
        "False",
        "False",
    ]
    for name in PARSERS:
        assert [row[name] for row in rows].count("") == found["parsers"][name]["unparsed"]
        right = sum(row[name] == row["label"] for row in rows)
        assert right == found["parsers"][name]["tp"] + found["parsers"][name]["tn"]


def test_a_table_on_request_and_json_when_piped(files, capsys):
    arguments = ["pope", "--questions", files[0], "--answers", files[1]]
    assert main([*arguments, "--format", "table"]) == 0
    shown = capsys.readouterr().out
    strict = next(line for line in shown.split("\n") if line.startswith("strict"))
    assert strict.split()[1:5] == ["1", "1", "1", "1"] and "unparsed" in shown
    assert main(arguments) == 0 and json.loads(capsys.readouterr().out)["n"] == 4


def test_neighbours_with_the_same_columns_share_a_table():
    shown = output.table({"total": 1.5, "a": {"x": 0.25, "y": None}, "b": {"x": 12.0, "y": 3}, "c": [{"z": 1}], "d": ["e"]})
    assert shown.split("\n\n") == ["total  1.50", "        x  y\na  0.2500  -\nb   12.00  3", "c\n  z\n  1", "d\n  e"]


def command(files, **more):
    arguments = [sys.executable, "-m", "hkd_core.evaluation", "pope", "--questions", files[0], "--answers", files[1]]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
    return subprocess.run(arguments, cwd=ROOT, env=env, stderr=subprocess.PIPE, **more)


def test_a_full_disk_ends_with_one_line_and_2(files):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        ended = command(files, stdout=full)
    assert ended.returncode == 2 and ended.stderr.count(b"\n") == 1 and b"No space left" in ended.stderr


def test_a_reader_that_closes_the_pipe_ends_it_in_quiet(files):
    reading, writing = os.pipe()
    os.close(reading)
    ended = command(files, stdout=writing)
    os.close(writing)
    assert ended.returncode == 0 and ended.stderr == b""


def test_a_closed_output_is_named(files):
    ended = command(files, preexec_fn=lambda: os.close(1))
    assert ended.returncode == 2 and ended.stderr == b"standard output is closed: nothing can be printed\n"


def test_an_ascii_terminal_gets_json_that_is_whole(files):
    ended = command(files, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 0 and json.loads(ended.stdout)["n"] == 4


def test_a_pipe_is_read_once(files):
    with open(files[0], "rb") as questions:
        ended = command(["/dev/stdin", files[1]], stdin=questions, stdout=subprocess.PIPE)
    assert ended.returncode == 0 and json.loads(ended.stdout)["n"] == 4
    ended = command(["/dev/stdin", files[1]], input=Path(files[0]).read_bytes(), stdout=subprocess.PIPE)
    assert ended.returncode == 0 and json.loads(ended.stdout)["n"] == 4


def test_a_file_of_verdicts_that_cannot_be_written_is_named(files, capsys):
    assert main(["pope", "--questions", files[0], "--answers", files[1], "--per-item", "/proc/none/items.csv"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("/proc/none/items.csv: cannot be written") and err.count("\n") == 1


def test_scores_from_files_load_no_torch():
    code = "import sys, hkd_core.evaluation.__main__ as main; main.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0

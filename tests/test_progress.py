"""Progress lines: each job's updates in place on a terminal, plain ones now and then elsewhere, none twice."""

import re
import subprocess
import sys

import pytest

from hkd_core.common import progress as module
from hkd_core.common.progress import in_place, lines_of_jobs, progress


class Clock:
    """Time goes on by what `sleep` is told."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("HKD_COLUMNS", "60")


@pytest.fixture
def log_file(monkeypatch):
    monkeypatch.setenv("HKD_COLUMNS", "0")


def screen(text):
    """What a terminal shows after `text`, as lines, and the line the cursor is in."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[\d+A|[\n\r]|[^\n\r\x1b]+", text):
        if piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        elif piece.startswith("\x1b"):
            row -= int(piece[2:-1])
        else:
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines], row


def test_jobs_have_a_line_each_whatever_the_order_of_their_updates(terminal, monkeypatch, clock, capfd):
    def line_of(place, title, **how):
        monkeypatch.setattr(module, "place", place)
        return progress(total=4, desc=title, unit="step", **how)

    with lines_of_jobs(3):
        jobs = [line_of(place, f"job {place}") for place in range(3)]
        for place in (2, 0, 1, 1, 0, 2, 2):
            clock.sleep(1)
            monkeypatch.setattr(module, "place", place)
            jobs[place].update()
        # The next thing that a job does takes the same line, and leaves it.
        with line_of(1, "job 1 again", leave=False) as bar:
            bar.update(4)
    lines, row = screen(capfd.readouterr().err)
    assert [line[:18] for line in lines] == ["job 0:  50%|######", "job 1 again: 100%|", "job 2:  75%|######", ""]
    assert row == 3 and all(len(line) < 60 for line in lines)


def test_a_loop_alone_leaves_one_line_or_none(terminal, clock, capfd):
    for leave in (True, False):
        for _ in progress(range(3), desc="kept" if leave else "passing", unit="step", leave=leave):
            clock.sleep(1)
    lines, row = screen(capfd.readouterr().err)
    assert len(lines) == 2 and row == 1 and lines[1] == ""
    assert re.fullmatch(r"kept: 100%\|#+\| 3/3 \[00:03<00:00,  1\.00step/s\]", lines[0])


def test_a_terminal_is_written_to_at_most_twice_a_second(terminal, clock, capfd):
    for _ in progress(range(1000), desc="fast", unit="step"):
        clock.sleep(0.01)
    assert capfd.readouterr().err.count("fast") <= 10 / 0.5 + 2


def test_a_file_gets_a_line_every_half_minute_and_one_at_the_end(log_file, clock, capfd):
    with progress(total=100, desc="pyramid", unit="step") as bar:
        for step in range(100):
            clock.sleep(0.7)
            bar.set_postfix_str(f"kd {step / 100}")
            bar.update()
    assert capfd.readouterr().err.splitlines() == [
        "pyramid:  43% 43/100 [00:30<00:39,  1.43step/s, kd 0.42]",
        "pyramid:  86% 86/100 [01:00<00:09,  1.43step/s, kd 0.85]",
        "pyramid: 100% 100/100 [01:10<00:00,  1.43step/s, kd 0.99]",
    ]


def test_a_file_learns_nothing_of_short_loops_that_leave_no_trace_nor_of_disabled_ones(log_file, clock, capfd):
    for how in ({"leave": False}, {"disable": True}):
        assert list(progress(range(3), desc="scoring", unit="batch", **how)) == [0, 1, 2]
    assert capfd.readouterr().err == ""


def test_a_line_too_long_for_the_terminal_is_cut_so_that_it_cannot_wrap():
    assert screen(in_place("x" * 100, 20, below=2)) == (["", "", "x" * 19], 0)


JOBS = """
from functools import partial
import torch
from hkd_core.common.parallel import side_by_side
from hkd_core.common.progress import progress

def job(name):
    for _ in progress(range(3), desc=name, unit="step"):
        pass

torch.set_num_threads(2)
side_by_side([partial(job, "one"), partial(job, "two")])
"""


@pytest.mark.parametrize("columns", ["0", "60"])
def test_real_processes_print_each_job_on_a_line_and_no_line_twice(columns, monkeypatch):
    monkeypatch.setenv("HKD_COLUMNS", columns)
    printed = subprocess.run([sys.executable, "-c", JOBS], capture_output=True, check=True).stderr.decode()
    lines = screen(printed)[0] if columns == "60" else sorted(printed.splitlines())
    assert [line.split(":")[0] for line in lines if line] == ["one", "two"]

"""Progress on stderr: one line a job that updates in place, or a plain line now and then where nobody can watch it move.

In a terminal every job of `side_by_side` has a line. In a notebook a bar updates in place. In a file or a CI log a plain line comes
every 30 seconds and one at the end. The runner of notebooks tells its kernel, through HKD_COLUMNS, what its own stderr is.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

COLUMNS = "HKD_COLUMNS"  # how wide the terminal is that finally shows stderr; 0 if none does
place: int | None = None  # of a job of `side_by_side`: its line, counted down from the cursor


def in_kernel() -> bool:
    return hasattr(sys.stderr, "pub_thread")


def terminal_columns() -> int:
    """Width of the terminal that finally shows stderr, in characters; 0 if none does."""
    if COLUMNS in os.environ:
        return int(os.environ[COLUMNS])
    return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) if sys.stderr.isatty() else 0


def columns() -> int:
    """Room for a line that updates in place: in a terminal, or in a notebook that somebody has open; 0 if there is none."""
    return 100 if in_kernel() and COLUMNS not in os.environ else terminal_columns()


def write(text: str) -> None:
    """In one piece, so that processes do not write into each other's lines.

    In a kernel nothing is flushed, because ipykernel sends it a moment later by itself. Its flush can wait up to ten seconds, once
    its sending thread has missed a wake-up (ipykernel 7 with pyzmq 27).
    """
    sys.stderr.write(text)
    if not in_kernel():
        sys.stderr.flush()


def in_place(line: str, width: int, below: int = 0) -> str:
    """What overwrites the line so many below the cursor, and brings the cursor back to the left edge of where it was."""
    up = f"\x1b[{below}A" if below else ""
    return "\n" * below + "\r" + line[: width - 1].ljust(width - 1) + up + "\r"


@contextlib.contextmanager
def lines_of_jobs(count: int) -> Iterator[None]:
    """In a terminal the cursor ends below the jobs' lines, also when a job fails."""
    try:
        yield
    finally:
        if terminal_columns():
            write("\n" * count)


class Progress:
    """How far a loop is. Iterate over it, or call `update`; `close` comes by itself at the end of either."""

    def __init__(self, iterable: Iterable, total: int, desc: str, unit: str, leave: bool, disable: bool):
        self.iterable, self.total, self.desc, self.unit, self.leave, self.disable = iterable, total, desc, unit, leave, disable
        self.width = columns()
        self.every = 0.5 if self.width else 30.0  # seconds between two lines
        self.done, self.postfix = 0, ""
        self.began = time.monotonic()
        self.shown = self.began - self.every if self.width else self.began

    def __iter__(self) -> Iterator:
        with self:
            self.update(0)
            for item in self.iterable:
                yield item
                self.update()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def line(self) -> str:
        """For instance "pyramid:  40%|####      | 120/300 [00:31<00:46, 3.90step/s, kd 0.412]"; without the bar if plain."""
        width = min(self.width - 1, 120) if self.width else 0
        elapsed = time.monotonic() - self.began
        return tqdm.format_meter(
            self.done, self.total, elapsed, ncols=width, ascii=True, prefix=self.desc, unit=self.unit, postfix=self.postfix
        )

    def show(self) -> None:
        self.shown = time.monotonic()
        write(in_place(self.line(), self.width, place or 0) if self.width else self.line() + "\n")

    def update(self, steps: int = 1) -> None:
        self.done += steps
        if not self.disable and time.monotonic() >= self.shown + self.every:
            self.show()

    def set_postfix_str(self, text: str) -> None:
        self.postfix = text

    def close(self) -> None:
        """The last state stays as a line, or disappears with leave=False. A job's line stays in any case."""
        if self.disable:
            return
        if self.leave:
            self.show()
        if self.width and place is None:
            write("\n" if self.leave else in_place("", self.width))
        self.disable = True


def progress(
    iterable: Sequence = (), *, desc: str, unit: str, total: int = 0, leave: bool = True, disable: bool = False
) -> Progress:
    """A loop's progress on stderr. desc: what it does; unit: to what; total: how many, where nothing is iterated over."""
    return Progress(iterable, total or len(iterable), desc, unit, leave, disable)

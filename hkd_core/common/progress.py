"""Progress bars that never hold up the work they report on."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm


class Unhurried:
    """A stream that in a notebook is not flushed: ipykernel sends what is written a moment later by itself, while its flush waits
    up to ten seconds, at every step, once its sending thread has missed a wake-up (ipykernel 7 with pyzmq 27)."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def flush(self) -> None:
        if not hasattr(self.stream, "pub_thread"):
            self.stream.flush()


def progress(iterable: Iterable | None = None, **how: Any) -> tqdm:
    """A bar on stderr, at most two lines a second; takes what `tqdm` takes."""
    return tqdm(iterable, file=Unhurried(sys.stderr), mininterval=0.5, **how)

"""What all command lines share: how they print, and how they end. A mistake is one line on stderr and exit status 2."""

import contextlib
import os
import sys
from collections.abc import Callable

from hkd_core.common.errors import UserError, one_line

CLOSED = "standard output is closed: nothing can be printed"


def write(text: str) -> None:
    """Print, also what the terminal's encoding lacks. Raises UserError for a full disk; a closed pipe ends in quiet."""
    if sys.stdout is None:
        raise UserError(CLOSED)
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for instance, has enough
        hush()
    except OSError as error:
        hush()
        raise UserError(f"standard output: cannot be written: {error.strerror or error}") from error


def hush() -> None:
    """Send what is left of standard output nowhere, so that Python does not fail on it again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str) -> None:
    """One line on stderr, if there is one."""
    if sys.stderr is not None:
        print(one_line(message), file=sys.stderr)


def ended(body: Callable[[], int | None]) -> int:
    """Run what a command does; returns its exit status: 2 after a UserError, which becomes one line, 130 after Ctrl-C."""
    try:
        return body() or 0
    except UserError as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130

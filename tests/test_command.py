"""What the command lines share: mistakes are one line and exit status 2, whatever standard output is."""

import subprocess
import sys

import pytest

from hkd_core.common.command import ended
from hkd_core.common.errors import UserError


def fails(error):
    def body():
        raise error

    return body


def test_a_mistake_is_one_line_and_status_2(capsys):
    assert ended(fails(UserError("a\nb \ud800"))) == 2
    assert capsys.readouterr().err == "error: a b \\ud800\n"


def test_the_status_is_what_the_command_returns_and_130_after_ctrl_c():
    assert (ended(lambda: None), ended(lambda: 0), ended(lambda: 1), ended(fails(KeyboardInterrupt))) == (0, 0, 1, 130)


def test_what_is_no_mistake_of_the_user_is_raised():
    with pytest.raises(ZeroDivisionError):
        ended(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("to", "message", "status"),
    [
        (">&-", "error: standard output is closed: nothing can be printed\n", 2),
        ("> /dev/full", "error: standard output: cannot be written: No space left on device\n", 2),
        ("| true", "", 0),
        ("2>&- | cat", "", 0),
    ],
)
def test_a_closed_or_full_output_is_one_line(to, message, status):
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "{sys.executable}" -m hkd_core.params {to}'],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "LC_ALL": "C"},
    )
    assert (done.stderr, done.returncode) == (message, status)

"""Processes that work side by side end with the one that started them, whatever ended it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import os, signal, sys, time
from functools import partial
import torch
from hkd_core.common.parallel import side_by_side

def job(folder, k):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(300)

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
torch.set_num_threads(2)
side_by_side([partial(job, sys.argv[1], k) for k in range(2)])
"""


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def is_running(process):
    """A process that has ended but that nobody has waited for does not count."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_workers_end_when_their_parent_is_killed(tmp_path, number):
    # The signal reaches the parent alone, as from the kernel when memory runs out.
    with subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], start_new_session=True, stderr=subprocess.DEVNULL) as parent:
        try:
            assert wait_for(lambda: len(os.listdir(tmp_path)) == 2)
            workers = [int(name) for name in os.listdir(tmp_path)]
            assert all(map(is_running, workers))
            parent.send_signal(number)
            parent.wait(30)
            assert wait_for(lambda: not any(map(is_running, workers)))
        finally:
            parent.kill()

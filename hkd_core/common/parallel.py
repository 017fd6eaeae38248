"""Independent trainings side by side: two small models on a core each learn faster than one after the other on two."""

import os
from collections.abc import Callable, Sequence

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from torch import Tensor

from hkd_core.common import orphans, precision, progress
from hkd_core.common.errors import UserError


def begun(state: Tensor, job: Callable[[], object]) -> object:
    """What the job returns if torch's random numbers go on from `state`."""
    torch.set_rng_state(state)
    return job()


def begun_in_process(state: Tensor, job: Callable[[], object], place: int, setting: str) -> object:
    """Likewise, with the caller's precision, and with the line that the job's progress has on the terminal."""
    os.environ[precision.SETTING], progress.place = setting, place
    return begun(state, job)


def side_by_side(jobs: Sequence[Callable[[], object]]) -> list:
    """What each job returns; jobs run in separate processes, as many as torch has threads, and share these. Longest first.

    Jobs and what they return are pickled, functions of a notebook too. With one thread they run here, one after the other. Every
    job begins with torch's random numbers where the caller's are, whichever job its process did before; the caller's stay there.
    Raises UserError where a process was killed, and what a job raises.
    """
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    workers = min(len(jobs), threads)
    if workers < 2:
        try:
            return [begun(state, job) for job in jobs]
        finally:
            torch.set_rng_state(state)
    setting = precision.precision_setting()
    tasks = [delayed(begun_in_process)(state, job, place, setting) for place, job in enumerate(jobs)]
    backend = {"inner_max_num_threads": threads // workers, "initializer": orphans.end_with, "initargs": (os.getpid(),)}
    with parallel_config(backend="loky", **backend), progress.lines_of_jobs(len(jobs)):
        try:
            return Parallel(n_jobs=workers)(tasks)
        except TerminatedWorkerError as error:
            raise UserError(
                f"one of {workers} processes that work side by side was killed, most likely for want of memory"
            ) from error

"""Independent trainings side by side: two small models on a core each learn faster than one after the other on two."""

from collections.abc import Callable, Sequence

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from hkd_core.errors import UserError


def side_by_side(jobs: Sequence[Callable[[], object]]) -> list:
    """What each job returns; jobs run in processes of their own, as many as torch has threads, and share these. Longest first.

    Jobs and what they return are pickled, functions of a notebook too. With one thread they run here, one after the other.
    Raises UserError where a process was killed, and what a job raises.
    """
    threads = torch.get_num_threads()
    workers = min(len(jobs), threads)
    if workers < 2:
        return [job() for job in jobs]
    with parallel_config(backend="loky", inner_max_num_threads=threads // workers):
        try:
            return Parallel(n_jobs=workers)(delayed(job)() for job in jobs)
        except TerminatedWorkerError as error:
            raise UserError(
                f"one of {workers} processes that work side by side was killed, most likely for want of memory"
            ) from error

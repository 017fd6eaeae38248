"""Every benchmark of the study, by name. A new one is a file in `benchmarks/` and its object in this list."""

from hkd_core.evaluation.benchmark import Benchmark
from hkd_core.evaluation.benchmarks.chair import CHAIR
from hkd_core.evaluation.benchmarks.challenge import TASK1, TASK2
from hkd_core.evaluation.benchmarks.mme import MME
from hkd_core.evaluation.benchmarks.pope import POPE

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *POPE,
        MME,
        TASK1,
        TASK2,
        CHAIR,
    )
}
COSTS = {"yes_no": "cost_question", "choices": "cost_task1", "caption": "cost_caption"}  # form -> its costs in the table of results


def tasks_of(form: str) -> tuple[str, ...]:
    """The tasks of all benchmarks that are asked in this form."""
    return tuple(benchmark.task for benchmark in BENCHMARKS.values() if benchmark.form == form)


def first_of(form: str) -> Benchmark:
    """The first benchmark that is asked in this form."""
    return next(benchmark for benchmark in BENCHMARKS.values() if benchmark.form == form)


def benchmark_of(task: str) -> Benchmark:
    """The benchmark of answers to `task`, or to its validation part (`TASK_val`). Raises KeyError for an unknown task."""
    return {benchmark.task: benchmark for benchmark in BENCHMARKS.values()}[task.removesuffix("_val")]

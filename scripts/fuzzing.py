"""What the fuzzing scripts share: run targets for many seeded cases; each must end in a result or in a UserError of one line."""

import argparse
import math
import random
import time
from collections.abc import Callable, Mapping

from hkd_core.common.errors import UserError

Target = Callable[[random.Random], None]


def targets_in(module: Mapping[str, object]) -> dict[str, Target]:
    """A module's functions `fuzz_NAME`, by NAME."""
    return {name.removeprefix("fuzz_"): value for name, value in module.items() if name.startswith("fuzz_") and callable(value)}


def run(name: str, target: Target, cases: int, *, seed: int = 0, first: int = 0) -> tuple[int, int]:
    """(results, refusals). Raises AssertionError naming the case that ended otherwise, and for a refusal of more than one line."""
    results = 0
    for case in range(first, first + cases):
        try:
            target(random.Random(f"{name}/{seed}/{case}"))
            results += 1
        except UserError as error:
            if "\n" in str(error) or not str(error).strip():
                raise AssertionError(f"{name}, case {case}: not one line: {error}") from error
        except Exception as error:
            raise AssertionError(f"{name}, case {case}: {type(error).__name__}: {error}") from error
    return results, cases - results


def main(description: str, targets: Mapping[str, Target]) -> None:
    """The command line of a fuzzing script. It prints one line a target."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", type=int, default=100_000, help="for each target")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", nargs="+", choices=targets, default=list(targets))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.only:
        start = time.perf_counter()
        results, refused = run(name, targets[name], args.cases, seed=args.seed, first=args.first)
        seconds = math.ceil(time.perf_counter() - start)
        print(f"{name}: {args.cases} cases, {results} results, {refused} refused, {seconds} s", flush=True)

"""Seconds for 10,000 clustered bootstrap draws over 3,000 answers, against drawing pictures in a loop: `python benchmarks/bootstrap.py`."""

import argparse
import time

import numpy as np

from hkd_core.evaluation import statistics as stats


def in_a_loop(counts: np.ndarray, clusters: np.ndarray, draws: int) -> list[float]:
    """What one writes down first: draw pictures, gather their answers, score."""
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    found = []
    for _ in range(draws):
        chosen = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        found.append(float(stats.f1(counts[chosen].sum(0))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=3000)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--loop-draws", type=int, default=500, help="draws of the loop, scaled up (default 500)")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, args.answers)
    counts = stats.confusion_counts(labels, np.where(rng.random(args.answers) < 0.85, labels, 1 - labels), 2)
    for name, size in (("six answers a picture", 6), ("one answer a picture", 1)):
        clusters = np.arange(args.answers) // size
        begun = time.perf_counter()
        _, low, high = stats.cluster_interval(counts, clusters, stats.f1, draws=args.draws)
        ours = time.perf_counter() - begun
        begun = time.perf_counter()
        brute = np.percentile(in_a_loop(counts, clusters, args.loop_draws), [2.5, 97.5])
        loop = (time.perf_counter() - begun) * args.draws / args.loop_draws
        print(
            f"{name:22} {ours:5.2f} s, in a loop {loop:6.1f} s: {loop / ours:.0f} times; [{low:.3f}, {high:.3f}], loop [{brute[0]:.3f}, {brute[1]:.3f}]"
        )


if __name__ == "__main__":
    main()

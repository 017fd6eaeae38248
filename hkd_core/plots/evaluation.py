"""Figures of the evaluation: scores with intervals, calibration, signal detection, captions, and claims over seeds. All from plain data."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from hkd_core.plots import COLORS, intervals, markers

Score = Mapping[str, float]  # value, low, high
SHOWN = {"task1": "task 1", "task2": "task 2", "chair_i": "CHAIR_i", "caption_recall": "recall"}


def shown(benchmark: str) -> str:
    """A benchmark's name as readers know it."""
    return SHOWN.get(benchmark, benchmark.replace("pope_", "POPE "))


def task_scores(scores: Mapping[str, Sequence[Score]], labels: Sequence[str]) -> Figure:
    """Macro-F1 with intervals, a panel for each task (title -> one score a system); the dotted line is guessing among four."""
    figure, axes = plt.subplots(1, len(scores), figsize=(10, 4.4), sharey=True)
    for axis, (title, rows) in zip(axes, scores.items(), strict=True):
        intervals(axis, labels, rows)
        axis.axvline(0.25, color="gray", ls=":", lw=1)
        axis.set(title=title, xlabel="macro-F1 (dotted: guessing)", xlim=(0, 1))
    return figure


def pope_scores(scores: Mapping[str, Sequence[Score]], labels: Sequence[str]) -> Figure:
    """F1 with intervals, a panel for each split of POPE (split -> one score a system)."""
    figure, axes = plt.subplots(1, len(scores), figsize=(12, 4), sharey=True)
    for axis, (split, rows), color in zip(axes, scores.items(), COLORS, strict=False):
        intervals(axis, labels, rows, color)
        axis.set(title=f"POPE {split}", xlabel="F1", xlim=(0.5, 1))
    return figure


def reliability(systems: Mapping[str, tuple[Sequence[Mapping[str, float]], float]], *, enough: int = 10) -> Figure:
    """System -> (bins of `margins.reliability`, ECE). Only bins of `enough` answers have a point: fewer say nothing of a share."""
    figure, axes = plt.subplots(2, len(systems), figsize=(9.6, 4), sharex=True, sharey="row", height_ratios=(3, 1))
    for (name, (bins, ece)), (above, below) in zip(systems.items(), axes.T, strict=True):
        above.plot([0, 1], [0, 1], color="gray", ls=":", lw=1)
        full = [b for b in bins if b["n"] >= enough]
        above.plot([b["probability"] for b in full], [b["frequency"] for b in full], marker="o", clip_on=False)
        above.set(title=f"{name}\nECE {ece:.3f}", xlim=(0, 1), ylim=(0, 1))
        below.bar([(b["low"] + b["high"]) / 2 for b in bins], [b["n"] for b in bins], 0.09, color=COLORS[1])
        below.set(xlabel="probability of yes")
    axes[0, 0].set(ylabel="share of yes labels")
    axes[1, 0].set(ylabel="answers")
    return figure


def signal_detection(points: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Benchmark -> system -> (criterion, d')."""
    figure, axes = plt.subplots(1, len(points), figsize=(9.6, 3.8), sharey=True)
    for axis, (benchmark, systems) in zip(axes, points.items(), strict=True):
        for (name, (criterion, d_prime)), mark in zip(systems.items(), markers(), strict=False):
            axis.scatter(criterion, d_prime, **mark, label=name, zorder=3)
        axis.axvline(0, color="gray", ls=":", lw=1)
        axis.set(title=shown(benchmark), xlabel="criterion (left: says yes too often)")
    axes[0].set(ylabel="d′ (up: sees better)")
    axes[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def captions(groups: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Title -> system -> (recall, CHAIR_i), both in percent."""
    figure, axes = plt.subplots(1, len(groups), figsize=(11, 3.8), width_ratios=[1] * len(groups))
    for axis, (title, systems) in zip(axes, groups.items(), strict=True):
        for (name, (recall, chair_i)), mark in zip(systems.items(), markers(), strict=False):
            axis.scatter(recall, chair_i, **mark, label=name, zorder=3)
        axis.set(xlabel="recall, % (right is better)", ylabel="CHAIR_i, % (down is better)", title=title)
        axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def captions_by_length(systems: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """System -> rows of `chair.by_length`."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    for name, rows in systems.items():
        for axis, metric in zip(axes, ("chair_i", "recall"), strict=True):
            axis.plot([row["words"] for row in rows], [row[metric] for row in rows], marker="o", label=name)
    axes[0].set(xlabel="words kept", ylabel="CHAIR_i, %", title="Named but not there")
    axes[1].set(xlabel="words kept", ylabel="recall, %", title="There and named")
    axes[0].legend(fontsize=8)
    return figure


def error_grid(rates: Mapping[str, Mapping[str, Mapping[str, float]]], contexts: Mapping[str, Sequence[str]]) -> Figure:
    """Column -> panel -> object -> share of wrong answers, laid out as contexts -> their objects."""
    members = [list(names) for names in contexts.values()]
    figure, axes = plt.subplots(2, len(rates), figsize=(12, 5.4))
    for column, (model, panels) in enumerate(rates.items()):
        for axis, (title, wrong) in zip(axes[:, column], panels.items(), strict=True):
            grid = np.array([[wrong.get(name, np.nan) for name in names] for names in members])
            axis.imshow(grid, cmap="Oranges", vmin=0, vmax=0.6, aspect="auto")
            for (y, x), value in np.ndenumerate(grid):
                text = members[y][x] if np.isnan(value) else f"{members[y][x]}\n{value:.0%}"
                color = "gray" if np.isnan(value) else "white" if value > 0.45 else "black"
                axis.text(x, y, text, ha="center", va="center", fontsize=6.5, color=color)
            axis.set(title=f"{model}: {title}", xticks=[])
            axis.set_yticks(range(len(contexts)), contexts)
            axis.grid(False)
    return figure


def claims_over_seeds(panels: Mapping[str, tuple[Sequence[str], Sequence[Mapping[str, Mapping]]]], seeds: Sequence[str]) -> Figure:
    """Title -> (texts of its claims, for each claim: benchmark -> row with mean, low, high and one column a seed)."""
    heights = [len(texts) + 1 for texts, _ in panels.values()]
    figure, axes = plt.subplots(len(panels), 1, figsize=(10, 12.5), height_ratios=heights, layout="constrained")
    for axis, (title, (texts, claims)) in zip(axes, panels.items(), strict=True):
        benchmarks = list(claims[0])
        for k, benchmark in enumerate(benchmarks):
            for place, rows in enumerate(claims):
                row = rows[benchmark]
                y, color = place + 0.26 * (k - (len(benchmarks) - 1) / 2), COLORS[k]
                axis.plot([row["low"], row["high"]], [y, y], color=color, lw=1.2)
                axis.plot([row[seed] for seed in seeds], [y] * len(seeds), "o", ms=3.5, alpha=0.5, color=color)
                label = shown(benchmark) if place == 0 else None
                axis.plot([row["mean"]], [y], "|", ms=10, mew=3, color=color, label=label)
        axis.axvline(0, color="gray", ls=":", lw=1)
        axis.set(title=title, xlabel="difference", yticks=range(len(texts)), yticklabels=texts)
        axis.set_ylim(len(texts) - 0.5, -0.5)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure

"""Figures of HKD4VLM: the pyramid's losses, gated examples, relations, the refinement's terms, and what each part is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from hkd_core.plots import COLORS, contact_sheet, curves

History = Sequence[Mapping[str, float]]  # records of a training: step, and each term per answer token or example


def pyramid_losses(histories: Mapping[str, History]) -> Figure:
    """A panel for each pair of levels: losses on labels solid, the others dotted."""
    words = {"labels": "on labels", "level": "to the other level", "peers": "to its peers"}
    figure, axes = plt.subplots(1, len(histories), figsize=(5.2 * len(histories), 3.2), squeeze=False, sharey=True)
    for axis, (title, history) in zip(axes.flat, histories.items(), strict=True):
        for term in (key for key in history[0] if key != "step"):
            name, kind = term.rsplit("/", 1)
            style = "-" if kind == "labels" else ":"
            axis.plot([r["step"] for r in history], [r[term] for r in history], label=f"{name}, {words[kind]}", ls=style)
        axis.set(title=title, xlabel="step", ylabel="loss per answer token")
        axis.legend(fontsize=8, ncols=2, loc="upper right")
    axes[0, 0].set_ylim(0, 1.25 * axes[0, 0].get_ylim()[1])  # all panels: room for the legend
    return figure


def gated_examples(
    pictures: Sequence[np.ndarray], examples: Sequence[dict], p_label: Mapping[str, Sequence[float]], gates: Sequence[float]
) -> Figure:
    """Captions with their gates. p_label: teacher -> probability of the label, one an example."""
    texts = []
    for i, (row, gate) in enumerate(zip(examples, gates, strict=True)):
        p = " ".join(f"{name} {several[i]:.2f}" for name, several in p_label.items())
        caption = row["caption"].replace(" and ", "\nand ", 1)
        texts.append(f"{caption}\nwrong: {row['meta']['type']}\n{p}\ngate {gate:.2f}")
    return contact_sheet(pictures, texts, title="Closed and open gates")


def relation_matrices(matrices: Mapping[str, np.ndarray]) -> Figure:
    """role -> [K + 1, K + 1] cosine similarities, side by side; from -1 blue to 1 red."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(3.2 * len(matrices), 3))
    for axis, (role, matrix) in zip(axes, matrices.items(), strict=True):
        axis.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
        last = len(matrix) - 1
        at = [*range(0, last, 4), last]
        axis.set(title=f"relations: {role}", xlabel="visual tokens, then the answer", xticks=at, yticks=at)
        for labelled in (axis.set_xticklabels, axis.set_yticklabels):
            labelled([*map(str, at[:-1]), "answer"])
        axis.grid(False)
    return figure


def term_shares(history: History, weights: Mapping[str, float]) -> Figure:
    """Each term times its weight against the step."""
    shares = [{name: value if name == "step" else weights[name] * value for name, value in row.items()} for row in history]
    figure = curves({"": shares}, title="Ternary-coupled refinement: each term's share of the loss")
    figure.axes[0].set(ylabel="weight times term")
    return figure


def switches(panels: Mapping[str, Mapping[str, Sequence[float]]], spreads: Mapping[str, Mapping[str, Mapping]]) -> Figure:
    """Title -> variant -> its difference to the whole method, one a seed; spreads: the same with mean, low and high."""
    variants = list(next(iter(panels.values())))
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 0.32 * len(variants) + 1), sharey=True)
    labels = [name.removeprefix("hkd_small, ") for name in variants]
    for axis, (title, rows), color in zip(axes, panels.items(), COLORS, strict=False):
        axis.axvline(0, color="gray", ls=":", lw=1)
        for place, name in enumerate(variants):
            found = spreads[title][name]
            axis.plot([found["low"], found["high"]], [place, place], color=color, lw=1.2)
            axis.plot(rows[name], [place] * len(rows[name]), "o", ms=4, alpha=0.5, color=color)
            axis.plot([found["mean"]], [place], "|", ms=11, mew=2.5, color=color)
        axis.set(title=title, xlabel="macro-F1, minus hkd_small's", yticks=range(len(variants)), yticklabels=labels)
    axes[0].set_ylim(len(variants) - 0.5, -0.5)
    return figure


def scarce_labels(panels: Mapping[str, Mapping[str, Sequence[tuple[float, Sequence[float]]]]], counts: Sequence[int]) -> Figure:
    """Title -> line -> (mean, one value a seed) for each of `counts` labelled images."""
    figure, axes = plt.subplots(1, len(panels), figsize=(5.5 * len(panels), 3.6))
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for k, (name, points) in enumerate(lines.items()):
            beside = [count * 1.03 ** (k - 1.5) for count in counts]
            axis.plot(beside, [mean for mean, _ in points], marker="_", ms=12, mew=2.5, color=COLORS[k], label=name)
            for count, (_, values) in zip(beside, points, strict=True):
                axis.plot([count] * len(values), values, "o", ms=4, alpha=0.5, color=COLORS[k])
        axis.set(xscale="log", title=title, xlabel="labelled images", ylabel="macro-F1, test")
        axis.set_xticks(counts, counts, minor=False)
        axis.minorticks_off()
    axes[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure

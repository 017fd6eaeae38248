"""The figures of SEED's notebook. They take plain data (dicts, lists, arrays) and return a figure."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from hkd_core.plots import COLORS, contact_sheet, intervals

RED = "#b00020"


def left_to_see(pixels: Mapping[str, np.ndarray], mean: Sequence[float], std: Sequence[float]) -> Figure:
    """Normalised pixels [C, H, W] by name, as images; mean, std: those of the model's processor."""
    pictures = [np.clip(p.transpose(1, 2, 0) * np.array(std) + np.array(mean), 0, 1) for p in pixels.values()]
    return contact_sheet(pictures, list(pixels), columns=len(pixels), title="What is left to see")


def word_scores(
    words: Sequence[str],
    owner: Sequence[int],
    scores: Mapping[int, float],
    wrong: Mapping[int, bool],
    view: str,
    aurocs: Mapping[str, tuple[float, float, float]],
) -> Figure:
    """The first seven texts word by word, names shaded by the rank of their score. Beside them each view's AUROC with its interval.

    words, owner: every word, and the text it belongs to.
    scores, wrong: place of a name -> its score, and whether it is not in the image.
    """
    figure, (axis, beside) = plt.subplots(1, 2, figsize=(12.4, 3.4), width_ratios=(2.6, 1))
    axis.axis("off")
    rank = {k: place / max(len(scores) - 1, 1) for place, k in enumerate(sorted(scores, key=scores.__getitem__))}
    for row in range(min(7, max(owner) + 1)):
        x = 0.0
        for k in (k for k, o in enumerate(owner) if o == row):
            shade = rank.get(k, 0.0) ** 2
            color = "gray" if k not in rank else RED if wrong[k] else "black"
            weight = "bold" if color == RED else "normal"
            box = {"facecolor": (1, 1 - 0.6 * shade, 1 - 0.9 * shade), "edgecolor": "none", "pad": 1.5}
            axis.text(x, 0.93 - row / 7.5, words[k], fontsize=9, family="monospace", color=color, fontweight=weight, bbox=box)
            x += 0.0115 * (len(words[k]) + 1.2)
    title = f"Orange: said without looking ({view}; names, by rank). Bold red: not in the image."
    axis.set_title(title, loc="left", fontsize=10)
    intervals(beside, list(aurocs), [dict(zip(("value", "low", "high"), found, strict=True)) for found in aurocs.values()])
    beside.axvline(0.5, color="gray", ls=":", lw=1)
    beside.set(title="Does the score find them?", xlabel="AUROC for names that are not there")
    return figure


def purge_search(table: Sequence[Mapping], cutoffs: Sequence[Mapping], hard: str, chosen: str) -> Figure:
    """AUROC over alpha for each view, on the group `hard` of questions and on all; beside them accuracy over the cutoff.

    table, cutoffs: rows of `seed.PurgeSearch`; chosen: what the cutoffs were tried for, in words.
    """
    figure, axes = plt.subplots(1, 3, figsize=(12.4, 3.4))
    for number, ((view, strength), found) in enumerate(groupby(table, key=lambda row: (row["view"], row["strength"]))):
        rows, turn = list(found), number // len(COLORS) % 3
        style = {"marker": "os^"[turn], "color": COLORS[number % len(COLORS)], "ls": ("-", "--", ":")[turn]}
        for axis, key in zip(axes, (f"auroc_{hard}", "auroc"), strict=False):
            axis.plot([row["alpha"] for row in rows], [row[key] for row in rows], label=f"{view} {strength:g}", **style)
    for axis, title in zip(axes, (f"{hard} questions", "mean of the three kinds"), strict=False):
        axis.set(xlabel="alpha (0: nothing purged)", ylabel="AUROC, validation", title=title)
    for count, line in zip(dict.fromkeys(row["clean_views"] for row in cutoffs), ("-", "--"), strict=False):
        rows = [row for row in cutoffs if row["clean_views"] == count]
        widths, accuracy = [str(row["cutoff"]) for row in rows], [100 * row["accuracy"] for row in rows]
        axes[2].plot(widths, accuracy, marker="o", ls=line, label=f"{count} clean view{'s' * (count > 1)}")
    axes[2].set(xlabel="cutoff (0: every token is plausible)", ylabel="accuracy among all tokens, %", title=chosen)
    axes[2].legend(fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def caption_search(table: Sequence[Mapping], cutoff: float) -> Figure:
    """Every way to write captions, by recall and CHAIR_i.

    table: rows of `seed.CaptionSearch`. cutoff: the one that is distilled.
    """
    plain = [row for row in table if row["way"] == "nothing purged"]
    asked = [row for row in table if row["way"] == "asked"]
    distorted = [row for row in table if row["way"] not in ("nothing purged", "asked")]
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    for label, rows, color, mark in (
        ("distortions, contrastive", distorted, COLORS[5], "o"),
        ("asked about every name, other cutoffs", [row for row in asked if row["cutoff"] != cutoff], COLORS[2], "o"),
        (f"asked about every name, cutoff {cutoff:g}", [row for row in asked if row["cutoff"] == cutoff], COLORS[3], "o"),
        ("nothing purged", plain, "black", "D"),
    ):
        axis.scatter([row["recall"] for row in rows], [row["chair_i"] for row in rows], color=color, marker=mark, label=label)
    axis.set(xlabel="recall, %: things there that are named", ylabel="CHAIR_i, %")
    axis.set(title="Purged captions, validation (down and right is better)")
    axis.legend(fontsize=8)
    return figure


def void_toy(side: np.ndarray, shown: Mapping[str, np.ndarray], void: np.ndarray) -> Figure:
    """Distributions over a square of `side` x `side` points, the void's border drawn, and how much of each lies in the void.

    shown: title -> probabilities [points]; void: [points] bool.
    """
    size = len(side)
    figure, axes = plt.subplots(1, len(shown), figsize=(9.6, 3.2), sharey=True)
    for axis, (title, p) in zip(axes, shown.items(), strict=True):
        axis.contourf(side, side, p.reshape(size, size), levels=12, cmap="Blues")
        axis.contour(side, side, (~void).astype(np.float32).reshape(size, size), levels=[0.5], colors=COLORS[1], linewidths=1.2)
        axis.set(title=f"{title}\n{float(p[void].sum()):.0%} in the void", aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.grid(False)
    return figure


def evolution(history: Mapping[int, Sequence[Mapping]], table: Sequence[Mapping], kept: int, control: float) -> Figure:
    """The divergence of each round; accuracy, captions and what chooses the round, on validation.

    history, table, kept: of `seed.Evolution`. control: accuracy of the base with a constant shift.
    """
    figure, axes = plt.subplots(1, 4, figsize=(14.4, 3))
    for number, records in history.items():
        for term, style in (("purified", "-"), ("anchored", ":")):
            steps, values = [r["step"] for r in records], [r[term] for r in records]
            axes[0].plot(steps, values, ls=style, color=COLORS[number], label=f"round {number}, {term}")
    axes[0].set(xlabel="step", ylabel="divergence per answer token", title="Distilling back")
    axes[0].legend(fontsize=8)
    rounds = [row["round"] for row in table]
    axes[1].plot(rounds, [row["accuracy"] for row in table], marker="o", label="adapter, no shift")
    axes[1].axhline(control, color="gray", ls=":", label="greedy + constant shift")
    axes[1].set(xlabel="round", ylabel="POPE accuracy, validation", title="Self-evolution", xticks=rounds)
    axes[1].legend(fontsize=8)
    for key, label in (("chair_i", "CHAIR_i (down is better)"), ("recall", "recall (up is better)")):
        axes[2].plot(rounds, [row[key] for row in table], marker="o", label=label)
    axes[2].set(xlabel="round", ylabel="%", title="Captions, validation", xticks=rounds)
    axes[2].legend(fontsize=8)
    axes[3].plot(rounds, [row["kept_by"] for row in table], marker="o", color=COLORS[2])
    axes[3].plot([kept], [table[kept]["kept_by"]], marker="o", ms=12, mfc="none", color=COLORS[3])
    axes[3].set(xlabel="round", ylabel="(accuracy + captions' F1) / 2", title="Which round is kept", xticks=rounds)
    return figure


def question_by_eye(picture: np.ndarray, margins: Mapping[str, float], title: str) -> Figure:
    """An image, and the margin of Yes over No after each step of a method."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 2.6), width_ratios=(1, 2.6))
    axes[0].imshow(picture, interpolation="nearest")
    axes[0].axis("off")
    axes[1].barh(list(margins), list(margins.values()), color=[COLORS[1] if x > 0 else COLORS[0] for x in margins.values()])
    axes[1].axvline(0, color="gray", ls=":", lw=1)
    axes[1].invert_yaxis()
    axes[1].set(title=title, xlabel="margin of Yes over No (right of 0: Yes)")
    return figure


def void_space(spread: Mapping[str, Mapping[str, float]]) -> Figure:
    """What `seed.void_space` gives for each model; the base is first, the evolved model second."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True)
    colors = [COLORS[5]] + [COLORS[3]] + [COLORS[0]] * (len(spread) - 2)
    for axis, key in zip(axes, ("outside the plausible set", "entropy, nats"), strict=True):
        axis.barh(list(spread), [row[key] for row in spread.values()], color=colors)
        axis.set(xlabel=key)
    axes[0].invert_yaxis()  # both: they share it
    figure.suptitle("Void space on the model, at caption words", fontweight="bold")
    return figure


def before_and_after(picture: np.ndarray, names: Sequence[str], p_yes: Mapping[str, np.ndarray], title: str) -> Figure:
    """An image, and the probability of Yes for each name. p_yes: when -> [names]."""
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3), width_ratios=(1, 2.4))
    axes[0].imshow(picture, interpolation="nearest")
    axes[0].axis("off")
    for k, (when, values) in enumerate(p_yes.items()):
        axes[1].bar(np.arange(len(names)) + 0.4 * k - 0.2, values, 0.4, label=when)
    axes[1].axhline(0.5, color="gray", ls=":", lw=1)
    axes[1].set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes[1].set(ylabel="p(Yes)", ylim=(0, 1), title=title)
    axes[1].legend()
    return figure

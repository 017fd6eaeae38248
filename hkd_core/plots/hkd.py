"""Figures of HKD4VLM: the pyramid's losses, gated examples, relations, the refinement's terms, and what each part is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from hkd_core.plots import contact_sheet, curves

History = Sequence[Mapping[str, float]]  # records of a training: step, and each term per answer token or example


def pyramid_losses(histories: Mapping[str, History]) -> Figure:
    """A panel for each pair of levels: losses on labels solid, the others dotted."""
    figure, axes = plt.subplots(1, len(histories), figsize=(5.2 * len(histories), 3.2), squeeze=False, sharey=True)
    for axis, (title, history) in zip(axes.flat, histories.items(), strict=True):
        for term in (key for key in history[0] if key != "step"):
            style = "-" if "labels" in term else ":"
            axis.plot([r["step"] for r in history], [r[term] for r in history], label=term, ls=style)
        axis.set(title=title, xlabel="step", ylabel="per answer token")
        axis.legend(fontsize=8)
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
        axis.set(title=f"relations: {role}")
        axis.grid(False)
    return figure


def term_shares(history: History, weights: Mapping[str, float]) -> Figure:
    """Each term times its weight against the step."""
    shares = [{name: value if name == "step" else weights[name] * value for name, value in row.items()} for row in history]
    return curves({"": shares}, title="Ternary-coupled refinement: each term's share of the loss")

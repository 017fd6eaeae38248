"""Figures of the built-in world: scenes, how often objects meet, augmentations, and how the small models learn."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from hkd_core.plots import contact_sheet


def cooccurrence(together: np.ndarray, names: Sequence[str]) -> Figure:
    """together: [K, K], how often the column's object is there, given the row's."""
    figure, axis = plt.subplots(figsize=(6.6, 5.6))
    image = axis.imshow(together, cmap="magma_r", vmin=0)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axis.set_yticks(range(len(names)), names, fontsize=6)
    axis.grid(False)
    axis.set_title("How often the column's object is there, given the row's")
    figure.colorbar(image, shrink=0.8)
    return figure


def before_and_after(pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Figure:
    """Augmentations: pairs of images with their texts below."""
    return contact_sheet(pictures, texts, columns=4, title="Augmentations, before and after")


def language_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss of the exercises on symbols against step, one line a size; a jump where the second lesson begins."""
    figure, axis = plt.subplots(figsize=(6.4, 3.2))
    for size, history in curves.items():
        axis.plot([r["step"] for r in history], [r["answers"] for r in history], label=size)
    axis.set(
        ylim=(0, 2.5),
        xlabel="step (at the jump: from short to full exercises)",
        ylabel="loss per answer token",
        title="The look-up circuit appears suddenly",
    )
    axis.legend()
    return figure

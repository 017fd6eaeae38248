"""Figures: one plain style, saved as PNG and SVG with the same bytes every time."""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hkd_core.common.files import write_bytes
from hkd_core.common.folders import load_folders

COLORS = ("#3b6fb6", "#e07b39", "#4f9d69", "#b5485d", "#7d6bb0", "#8a7f70", "#3aa6a6", "#c9a227")
STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.prop_cycle": mpl.cycler(color=COLORS),  # type: ignore[attr-defined]
    "legend.frameon": False,
    "svg.hashsalt": "hkd_core",
    "figure.constrained_layout.use": True,
}


def use_style() -> None:
    """Make every later figure look like the study's."""
    mpl.rcParams.update(STYLE)


def save(figure: Figure, name: str, folder: Path | None = None) -> Path:
    """Write NAME.png and NAME.svg without dates, by default into the profile's figures; returns the PNG's path."""
    folder = folder or load_folders().figures
    for form, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        drawn = io.BytesIO()
        figure.savefig(drawn, format=form, metadata=metadata)
        write_bytes(folder / f"{name}.{form}", drawn.getvalue())
    return folder / f"{name}.png"


def contact_sheet(pictures: Sequence[np.ndarray], texts: Sequence[str], columns: int = 4, title: str = "") -> Figure:
    """Images in a grid, each with its text below. More than four columns get narrower, so that the text stays readable."""
    rows, side = -(-len(pictures) // columns), min(3.0, 13 / columns)  # inches
    below = 0.1 + 0.125 * max((text.count("\n") + 1 for text in texts), default=0)
    size = side * columns, (side + below) * rows + 0.2 * bool(title)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, text in zip(axes.flat, pictures, texts, strict=False):
        axis.imshow(np.asarray(picture), interpolation="nearest")
        axis.text(0.5, -0.03, text, transform=axis.transAxes, ha="center", va="top", fontsize=7.5, wrap=True)
    if title:
        figure.suptitle(title, fontweight="bold")
    return figure


def diagram(boxes: Mapping[str, tuple[float, float]], arrows: Sequence[tuple[str, str, str]], title: str = "") -> Figure:
    """An idea in one picture: boxes (text -> place, x and y in inches) and arrows (from, to, what it carries), bent to their left."""
    bend = 0.25
    size = [max(place[k] for place in boxes.values()) + 1 for k in (0, 1)]
    figure, axis = plt.subplots(figsize=size)
    axis.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="equal")
    axis.axis("off")
    around = {"boxstyle": "round,pad=0.6", "facecolor": "white", "edgecolor": COLORS[0], "linewidth": 1.6}
    drawn = {text: axis.text(*place, text, ha="center", va="center", bbox=around, zorder=3) for text, place in boxes.items()}
    for start, end, text in arrows:
        (x0, y0), (x1, y1) = boxes[start], boxes[end]
        ends = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        axis.annotate(
            "",
            (x1, y1),
            (x0, y0),
            arrowprops={"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={-bend}", "color": COLORS[1], "lw": 1.4, **ends},
            zorder=1,
        )
        middle = (x0 + x1 - bend * (y1 - y0)) / 2, (y0 + y1 + bend * (x1 - x0)) / 2
        axis.text(
            *middle,
            text,
            ha="center",
            va="center",
            fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
            zorder=2,
        )
    axis.set_title(title, loc="left")
    return figure


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]], part: str | None = None, title: str = "") -> Figure:
    """Loss against step: one line a history, or one a part of a single history."""
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    for name, history in histories.items():
        for key in [part] if part else [k for k in history[0] if k != "step"]:
            label = name if part else f"{name} {key}".strip()
            axis.plot([r["step"] for r in history], [r[key] for r in history], label=label)
    axis.set(xlabel="step", ylabel="loss per answer token", title=title)
    axis.legend(fontsize=8)
    return figure


def markers() -> Iterator[dict]:
    """Endless colours and shapes for points too many to be labelled where they lie; arguments of `scatter`."""
    shapes = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
    return ({"color": COLORS[k % len(COLORS)], "marker": shapes[k % len(shapes)], "s": 34} for k in itertools.count())


def intervals(axis: Axes, labels: Sequence[str], rows: Sequence[Mapping[str, float]], color: str | None = None) -> None:
    """Horizontal bars with 95 % intervals; a row has value, low, high."""
    values = np.array([row["value"] for row in rows])
    errors = np.abs(np.array([[row["value"] - row["low"], row["high"] - row["value"]] for row in rows]).T)
    at = np.arange(len(rows))
    axis.barh(at, values, xerr=errors, color=color or COLORS[0], alpha=0.85, height=0.62, error_kw={"lw": 1, "capsize": 2})
    axis.set_yticks(at, labels)
    axis.yaxis.set_inverted(True)  # the first on top, also where panels share the axis
    axis.grid(axis="y", visible=False)

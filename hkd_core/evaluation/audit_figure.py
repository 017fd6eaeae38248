"""The audit's figure: where both answerers stand between hits and false alarms."""

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.special import ndtr, ndtri

from hkd_core.common.errors import UserError
from hkd_core.evaluation.audit import Answers, within
from hkd_core.plots import COLORS, use_style


def draw(answers: Answers, splits: Sequence[tuple[str, ...]], found: dict, path: str) -> None:
    """Write the ROC of each split and of all together. Raises UserError where the file cannot be written."""
    use_style()
    panels = [(name, answers.only(within(name, splits)), part) for name, part in found.get("splits", {}).items()]
    panels.append(("all questions", answers, found))
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.8 * columns, 3.9 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (name, held, part) in zip(axes.flat, panels, strict=False):
        panel(axis, name, held, part)
    try:
        figure.savefig(path, metadata={"Software": None} if path.endswith(".png") else {"Date": None})
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        plt.close(figure)


def panel(axis: Axes, name: str, answers: Answers, part: dict) -> None:
    """One ROC: both points, the curve of equal d' through each, and with margins the measured curves."""
    across = np.linspace(0.001, 0.999, 200)
    axis.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    for side, color, mark in (("base", COLORS[0], "o"), ("method", COLORS[1], "s")):
        values = part[side]
        text = side
        if values["d_prime"] is not None:
            text += f": d' {values['d_prime']:.2f}, c {values['criterion']:+.2f}"
            axis.plot(across, ndtr(values["d_prime"] + ndtri(across)), color=color, linewidth=1, linestyle=":")
        margins = getattr(answers, f"{side}_margins")
        if margins is not None and len(set(answers.labels.tolist())) == 2:
            axis.plot(*curve(margins, answers.labels), color=color, linewidth=1.2)
        point = (values["false_alarm_rate"], values["hit_rate"])
        axis.plot(*(((), ()) if None in point else point), mark, color=color, label=text, markersize=7)
    axis.set(title=name, xlabel="false alarms: Yes where the label is no", ylabel="hits: Yes where the label is yes")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axis.legend(loc="lower right", fontsize=8)


def curve(margins: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(false-alarm rates, hit rates) for every threshold, from none to all."""
    from sklearn.metrics import roc_curve

    alarms, hits, _ = roc_curve(labels, margins)
    return alarms, hits

"""Figures: the same data give the same bytes, rows stand in the order given, words are those of the docs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from hkd_core import plots
from hkd_core.plots import evaluation, hkd, seed

SCORES = [{"value": value, "low": value - 0.1, "high": value + 0.1} for value in (0.4, 0.5, 0.6)]


@pytest.fixture(autouse=True)
def closed():
    plots.use_style()
    yield
    plt.close("all")


@pytest.mark.parametrize("panels", [1, 2, 3])
def test_the_first_row_is_on_top_however_many_panels_share_the_axis(panels):
    figure, axes = plt.subplots(1, panels, sharey=True, squeeze=False)
    for axis in axes.flat:
        plots.intervals(axis, ["first", "second", "third"], SCORES)
    figure.canvas.draw()
    heights = [label.get_window_extent().y0 for label in axes[0, 0].get_yticklabels()]
    assert heights == sorted(heights, reverse=True)


def test_a_figure_has_the_same_bytes_every_time(tmp_path):
    for folder in ("a", "b"):
        figure, axis = plt.subplots()
        axis.plot([0, 1])
        plots.save(figure, "line", tmp_path / folder)
    for name in ("line.png", "line.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_images_in_a_row_of_seven_stay_as_wide_as_a_page_and_their_texts_are_there():
    figure = plots.contact_sheet([np.zeros((4, 4, 3))] * 7, [f"text {k}" for k in range(7)], columns=7)
    assert figure.get_figwidth() == pytest.approx(13)
    assert [axis.texts[0].get_text() for axis in figure.axes] == [f"text {k}" for k in range(7)]


def test_labels_use_the_words_of_the_docs():
    row = {"way": "asked", "recall": 60.0, "chair_i": 30.0, "cutoff": 0.1}
    legend = seed.caption_search([row, row | {"cutoff": 0.3}], 0.1).axes[0].get_legend()
    assert {"asked about every name, cutoff 0.1", "asked about every name, other cutoffs"} <= {t.get_text() for t in legend.texts}
    history = [{"step": step, "small/labels": 1.0, "small/level": 0.5} for step in (1, 2)]
    legend = hkd.pyramid_losses({"large > small": history}).axes[0].get_legend()
    assert [t.get_text() for t in legend.texts] == ["small, on labels", "small, to the other level"]
    assert list(map(evaluation.shown, ("task1", "chair_i", "pope_random"))) == ["task 1", "CHAIR_i", "POPE random"]

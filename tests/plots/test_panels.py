"""Every panel draws what the explanation says, on the axes it was given, and gives them back."""

from itertools import pairwise

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from toy_explanations import make

from fixlip import plots
from fixlip.explanation import Explanation
from fixlip.plots import panels


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("picture", [True, False])
def test_a_heat_map_shows_the_words_interactions_on_the_shared_scale(picture):
    explanation = make(picture=picture)
    _, ax = plt.subplots()
    assert plots.heatmap(explanation, "star", ax=ax, limit=2.0) is ax
    drawn = ax.images[-1]
    np.testing.assert_allclose(drawn.get_array(), explanation.e2[:6, 8].reshape(2, 3))
    assert drawn.get_clim() == (-2.0, 2.0) and drawn.get_cmap().name == panels.COLOURS
    assert ax.get_title() == "star" and len(ax.images) == 1 + picture
    assert plots.heatmap(explanation, ["red", "star"]).get_title() == "red star"


def test_numbers_of_patches_are_drawn_on_the_grid():
    explanation, values = make(), np.arange(6.0) - 4
    drawn = plots.patches(explanation, values).images[-1]
    np.testing.assert_array_equal(drawn.get_array(), values.reshape(2, 3))
    assert drawn.get_clim() == (-4.0, 4.0)


def test_red_raises_and_blue_lowers():
    colours = plt.get_cmap(panels.COLOURS)
    (red, _, blue, _), (red_low, _, blue_low, _) = colours(1.0), colours(0.0)
    assert red > blue and blue_low > red_low


def test_the_graph_draws_the_strongest_pairs_and_every_word():
    explanation = make(words=("a", "star", "and", "a", "ring"))
    ax = plots.graph(explanation, count=7)
    assert len(ax.patches) == 7
    widths = [edge.get_linewidth() for edge in ax.patches]
    assert widths == sorted(widths) and max(widths) == pytest.approx(5.0)
    assert [t.get_text() for t in ax.texts] == ["a", "star", "and", "a", "ring"]
    heights = [t.get_position()[1] for t in ax.texts]
    assert heights == sorted(heights)
    assert "7 strongest" in ax.get_title()


def test_long_captions_do_not_overlap_in_the_graph():
    fig, ax = plt.subplots(figsize=(7, 5))
    plots.graph(make(words=tuple(f"w{i}" for i in range(16))), ax=ax)
    fig.canvas.draw()
    boxes = [t.get_window_extent() for t in ax.texts]
    # text may touch its neighbour's padding, but the words themselves stay apart
    assert all(not a.overlaps(b) for a, b in pairwise(boxes))


def test_bars_are_the_largest_first_order_terms():
    explanation = make()
    ax = plots.bars(explanation, count=4)
    drawn = [bar.get_width() for bar in ax.patches]
    order = np.argsort(-np.abs(explanation.e1))[:4]
    np.testing.assert_allclose(drawn, explanation.e1[order])
    assert [t.get_text() for t in ax.get_yticklabels()] == [explanation.players[i] for i in order]


def test_an_explanation_of_nothing_can_be_drawn():
    empty = make()
    empty = Explanation(0.0, 0 * empty.e1, 0 * empty.e2, empty.players, 6, info=empty.info)
    for ax in (plots.heatmap(empty, "star"), plots.graph(empty), plots.bars(empty)):
        ax.figure.canvas.draw()

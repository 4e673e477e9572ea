"""Every panel draws what the explanation says, on the axes it was given, and gives them back."""

from dataclasses import replace
from itertools import pairwise

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from toy_explanations import make

from fixlip import plots
from fixlip.explanation import Explanation
from fixlip.plots import names, panels


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


NAMES = ("cheap $$ food", "$5_and^6$", r"\alpha{", "a<b&c%", "two\nlines\t", "", "x" * 60)


@pytest.mark.parametrize("usetex", [False, True])
def test_names_are_drawn_as_they_are(usetex):
    """A dollar sign is no formula: two of them stopped the picture, or turned words into one."""
    explanation = make(words=NAMES)
    with plt.rc_context({"text.usetex": usetex} if usetex else {}):
        figure, axs = plt.subplots(1, 3)
        if usetex:
            for ax in axs:  # matplotlib's own numbers would need TeX, which is not here
                ax.set_axis_off()
        graph, bars = plots.graph(explanation, ax=axs[0]), plots.bars(explanation, ax=axs[1])
        plots.heatmap(explanation, 6, ax=axs[2])
        texts = [*graph.texts, *bars.get_yticklabels(), axs[2].title]
        assert not any(text.get_usetex() or text.get_parse_math() for text in texts)
        if not usetex:
            figure.canvas.draw()
    assert axs[2].get_title() == "cheap $$ food"
    words = [text.get_text() for text in graph.texts]
    assert words == [
        "cheap $$ food",
        "$5_and^6$",
        r"\alpha{",
        "a<b&c%",
        "two lines",
        "''",
        "x" * 29 + "…",
    ]


def test_words_from_right_to_left_are_read_from_right_to_left():
    """The first letter stands at the right: the same picture as the letters reversed by hand."""

    def drawn(name):
        figure = plt.figure(figsize=(2, 0.5))
        figure.text(0.05, 0.3, names.shown(name), fontsize=18, **names.name_style(name))
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())

    forced = "\u202d\u05d1\u05d0\u202c"  # bet, alef, each to the right of the one before
    np.testing.assert_array_equal(drawn("\u05d0\u05d1"), drawn(forced))
    assert (drawn("\u05d0\u05d1") != drawn("\u05d1\u05d0")).any()


def test_letters_that_no_font_has_are_told_once(monkeypatch):
    monkeypatch.setattr(names, "_others", lambda: ())
    explanation = make(words=("cat", "猫", "고양이"))
    _, ax = plt.subplots()
    with pytest.warns(UserWarning, match="no font of matplotlib's has .*猫.* install"):
        plots.graph(explanation, ax=ax)
    monkeypatch.undo()


def test_a_font_is_found_for_letters_that_the_default_lacks(monkeypatch):
    path = font_manager.findfont("STIXGeneral")
    letter = next(iter(names._letters(path) - names._letters(font_manager.findfont("DejaVu Sans"))))
    monkeypatch.setattr(names, "_others", lambda: (("STIXGeneral", path),))
    figure, ax = plt.subplots()
    plots.graph(make(words=(f"a{letter}",)), ax=ax)
    assert ax.texts[0].get_fontfamily()[-1] == "STIXGeneral"
    figure.canvas.draw()  # pytest would raise matplotlib's warning of a missing glyph


def one_sided(kind):
    """Explanations without a picture: of words alone, of two captions, of patches alone."""
    rng = np.random.default_rng(0)
    n = {"words": 3, "captions": 5, "patches": 6}[kind]
    n_image = {"words": 0, "captions": 2, "patches": 6}[kind]
    e2 = np.triu(rng.normal(size=(n, n)), 1)
    info = {"image": {"kind": "text"}} if kind == "captions" else {}
    if kind == "patches":
        info = {"image": {"kind": "image", "grid": [2, 3], "owner": list(range(6))}}
    players = tuple("abcdef"[:n])
    return Explanation(1.0, rng.normal(size=n), e2 + e2.T, players, n_image, info=info)


@pytest.mark.parametrize("kind", ["words", "captions", "patches"])
def test_graphs_and_bars_of_other_sides_than_image_and_text(kind):
    explanation = one_sided(kind)
    figure, axs = plt.subplots(1, 2)
    graph, bars = plots.graph(explanation, ax=axs[0]), plots.bars(explanation, ax=axs[1])
    figure.canvas.draw()
    due = {"words": "abc", "captions": "abcde", "patches": ""}[kind]
    assert [text.get_text() for text in graph.texts] == list(due)
    assert len(graph.patches) == explanation.n * (explanation.n - 1) // 2
    assert len(bars.patches) == explanation.n
    if kind == "captions":  # two columns
        assert len({text.get_position()[0] for text in graph.texts}) == 2
    if kind != "patches":
        for draw in (plots.picture, lambda e: plots.patches(e, np.zeros(e.n_image))):
            with pytest.raises(ValueError, match="without a grid of patches to draw"):
                draw(explanation)


def test_maps_are_drawn_of_a_number_for_each_patch_and_of_the_other_side():
    """Too many numbers were drawn in part; a patch's own map had another side's numbers."""
    for count in (4, 7):
        with pytest.raises(ValueError, match=rf"shape \({count},\) for 6 image players"):
            plots.patches(make(), np.ones(count))
    with pytest.raises(ValueError, match="is of the first side, whose patches are drawn on"):
        plots.heatmap(make(), 0)


def test_values_without_a_colour_are_refused():
    with pytest.raises(ValueError, match="NaN or infinite, which have no colour"):
        plots.patches(make(), np.array([1, 2, 3, 4, 5, np.nan]))


@pytest.mark.parametrize("name", ["default", "dark_background", "grayscale", "ggplot"])
def test_error_bars_are_seen_in_every_style(name):
    explanation = make()
    n_terms = 1 + 9 + 36
    rows = np.random.default_rng(0).normal(size=(4, n_terms)).astype(np.float32)
    explanation = Explanation(
        *(getattr(explanation, f) for f in ("e0", "e1", "e2", "players", "n_image")),
        info=explanation.info,
        deviations=rows,
    )
    with plt.style.context(name):
        ax = plots.bars(explanation)
        (lines,) = [c for c in ax.collections if len(c.get_segments())]
        colour, ground = lines.get_edgecolor()[0], ax.get_facecolor()
    contrast = abs(np.dot(np.subtract(colour[:3], ground[:3]), [0.3, 0.6, 0.1]))
    assert contrast > 0.3


def test_what_is_no_limit_and_no_axes_is_told():
    explanation = make()
    for limit in (np.nan, np.inf, -1, "a"):
        with pytest.raises(ValueError, match="limit must be a number of 0 or more"):
            plots.graph(explanation, limit=limit)
    with pytest.raises(TypeError, match="expected an Axes, got int"):
        plots.bars(explanation, ax=5)
    before = plt.get_fignums()
    with pytest.raises(ValueError, match="count must be"):
        plots.bars(explanation, count=-1)
    assert plt.get_fignums() == before  # no empty figure is left


def test_half_of_a_character_is_drawn_as_a_question_mark(tmp_path):
    explanation = make()
    names = (*explanation.players[:-1], "\ud83d")
    plots.bars(replace(explanation, players=names)).figure.savefig(tmp_path / "bars.png")

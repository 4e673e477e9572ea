"""What is written of a figure: reproducible files, their numbers, and a text in its place."""

import json

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from toy_explanations import make

from fixlip import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FIXLIP_OUTPUT", str(tmp_path))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    return tmp_path


def test_figures_are_written_where_outputs_go(folder):
    def draw():
        ax = plots.heatmap(make(), "star")
        plots.colourbar(1.0, ax)
        plots.save(ax.figure, "map")

    draw()
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert sorted(files) == ["map.json", "map.pdf", "map.png"]
    assert files["map.png"].startswith(b"\x89PNG") and files["map.pdf"].startswith(b"%PDF")
    assert Image.open(folder / "map.png").text["Description"] == "star"
    (image,) = json.loads(files["map.json"]).values()  # neither the photograph nor the colour bar
    np.testing.assert_allclose(image, make().e2[:6, 8].reshape(2, 3), rtol=1e-4)
    draw()
    assert files == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_figure_of_times_has_no_numbers_to_compare(folder):
    plots.save(plots.heatmap(make(), "star").figure, "seconds", compare=False)
    assert sorted(p.name for p in folder.iterdir()) == ["seconds.pdf", "seconds.png"]


def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(folder, monkeypatch):
    fig, _ = plt.subplots()
    plots.save(fig, "map")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def half(file, **options):
        file.write(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(fig, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        plots.save(fig, "map")
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_every_kind_of_artist_gives_its_numbers():
    fig, axs = plt.subplots(2, 3)
    axs[0, 0].plot([1, 2, 3], [4.0, np.nan, 6.0])
    axs[0, 1].bar([0, 1], [2.0, 3.0], width=0.5)
    axs[0, 2].imshow([[1.0, 2.0]])
    axs[1, 0].scatter([1, 2], [3, 4])
    axs[1, 1].errorbar([1, 2], [5, 6], yerr=[0.5, 1], fmt="o")
    axs[1, 2].fill_between([0, 1], [0, 0], [1, 2])
    axs[1, 2].text(0, 0, "17 and 4")
    found = plots.numbers(fig)
    lines = ["0 line 0 x", "0 line 0 y", "4 line 0 x", "4 line 0 y"]
    others = ["1 patch 0", "1 patch 1", "2 image 0", "3 collection 0", "4 collection 0"]
    assert sorted(found) == sorted([*lines, *others, "5 collection 0"])
    np.testing.assert_array_equal(found["0 line 0 y"], [4, np.nan, 6])
    np.testing.assert_allclose(found["1 patch 1"], [0.75, 0, 1.25, 3])
    np.testing.assert_array_equal(found["3 collection 0"], [[1, 3], [2, 4]])
    np.testing.assert_array_equal(found["4 collection 0"], [[1, 4.5], [1, 5.5], [2, 5], [2, 7]])
    assert found["5 collection 0"].max() == 2
    axs[0, 1].patches[1].set_height(3.5)  # negative control: what is drawn otherwise is seen
    assert plots.numbers(fig)["1 patch 1"][3] == 3.5


def test_edges_of_a_graph_give_their_strength():
    found = plots.numbers(plots.graph(make(), count=3).figure)
    widths = [found[f"0 patch {k}"].item() for k in range(3)]
    assert widths == sorted(widths) and widths[-1] == pytest.approx(5.0)


def test_numbers_are_kept_to_five_digits():
    arrays = {"a": np.array([[1 / 3, -0.0], [np.nan, 123456.0]]), "b": np.array([])}
    text = plots.as_json(arrays)
    assert text == '{\n  "a": [[0.33333,0],[null,1.2346e+05]],\n  "b": []\n}\n'
    assert json.loads(text) == {"a": [[0.33333, 0], [None, 123460.0]], "b": []}


def test_error_bars_that_are_unknown_have_no_ends():
    """One mosaic has no standard error: a study's figure of it could not be stored."""
    fig, ax = plt.subplots()
    ax.errorbar([0, 1], [1.0, 2.0], yerr=[np.nan, 0.5])
    found = plots.numbers(fig)
    ax.errorbar([0, 1], [1.0, 2.0], yerr=[np.nan, np.nan])
    assert len(plots.numbers(fig)) > len(found) > 0
    plt.close(fig)

"""The result object: values, views, files, exchange."""

import itertools
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from fixlip.explanation import Explanation
from fixlip.files import read_arrays, write_arrays
from fixlip.metrics import faithfulness


@pytest.fixture
def explanation():
    rng = np.random.default_rng(0)
    e2 = rng.normal(size=(6, 6))
    e2 = np.triu(e2, 1) + np.triu(e2, 1).T
    info = {
        "image": {"kind": "image", "grid": [2, 2], "owner": [0, 0, 1, 2], "model": {"name": "toy"}},
        "text": {"kind": "text", "caption": "ein roter Stern ★", "token_ids": [5, 6, 7]},
    }
    return Explanation(
        e0=0.1 + 0.2,
        e1=rng.normal(size=6),
        e2=e2,
        players=("(0,0)", "(0,1)", "(1,0)", "red", "star", "star"),
        n_image=3,
        p=(0.3, 0.7),
        empty_value=-1.5,
        grand_value=2.5,
        info=info,
        picture=rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8),
        deviations=rng.normal(size=(8, 22)).astype(np.float32),
    )


def test_values_are_the_sum_over_kept_players_and_pairs(explanation):
    masks = np.array(list(itertools.product([False, True], repeat=6)))
    expected = [
        explanation.e0
        + sum(explanation.e1[i] for i in range(6) if z[i])
        + sum(explanation.e2[i, j] for i, j in itertools.combinations(range(6), 2) if z[i] and z[j])
        for z in masks
    ]
    np.testing.assert_allclose(explanation.value(masks), expected, atol=1e-12)
    np.testing.assert_allclose(explanation.value(torch.from_numpy(masks)), expected, atol=1e-12)


@pytest.mark.parametrize("masks", [np.ones((2, 5), bool), np.ones(6, bool), np.ones((1, 2, 6))])
def test_wrong_masks_are_refused(explanation, masks):
    with pytest.raises(ValueError, match=r"the shape \(masks, 6\)"):
        explanation.value(masks)
    with pytest.raises(TypeError, match="1 and 0"):
        explanation.value(np.full((1, 6), 0.5))


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_terms_are_taken_as_arrays_tensors_and_lists(kind):
    e = Explanation(0, kind([1, 2]), kind([[0, 3], [3, 0]]), ["a", "b"], np.int64(1), 0.5)
    assert (e.e1.tolist(), e.cross.tolist(), e.p) == ([1.0, 2.0], [[3.0]], (0.5, 0.5))
    assert e.value(kind([[1, 1]])).tolist() == [6.0] and e.players == ("a", "b")
    assert e.given(np.array([0])).tolist() == [3.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"e0": float("nan")}, "1 numbers of e0 are NaN"),
        ({"e1": np.array([1.0, np.inf])}, "1 numbers of e1 are NaN or infinite"),
        ({"e1": np.array([1j, 0])}, "e1 must be real numbers, got complex128"),
        ({"e1": ["a", "b"]}, "e1 must be real numbers"),
        ({"p": (2, -1)}, "p must be one or two probabilities"),
        ({"p": (0.5,) * 3}, "one value or two"),
        ({"p": "x"}, "p must be one or two probabilities"),
        ({"p": (None, 0.5)}, "p must be one or two probabilities"),
        ({"empty_value": "x"}, "empty_value must be a number, or NaN, got 'x'"),
        ({"grand_value": None}, "grand_value must be a number, or NaN, got None"),
        ({"picture": "x.png"}, r"\(height, width, 3\) and type uint8"),
        ({"picture": np.zeros((2, 2, 3))}, r"got \(2, 2, 3\) and float64"),
        ({"n_image": 1.0}, "n_image must be a whole number"),
        ({"n_image": 3}, "n_image up to 2"),
        ({"deviations": np.zeros((3, 9))}, r"or without pairs \(rows, 3\), got \(3, 9\)"),
    ],
)
def test_terms_that_would_mislead_are_refused(change, message):
    given = {"e0": 0.0, "e1": np.ones(2), "e2": np.zeros((2, 2)), "players": ("a", "b")}
    with pytest.raises(ValueError, match=message):
        Explanation(**{**given, "n_image": 1, **change})


@pytest.mark.parametrize("change", [{"players": "ab"}, {"players": None}, {"info": [1]}])
def test_names_are_in_a_list_and_info_in_a_dict(change):
    given = {"e0": 0.0, "e1": np.ones(2), "e2": np.zeros((2, 2)), "players": ("a", "b")}
    with pytest.raises(TypeError, match=f"{next(iter(change))} must be a (list|dict)"):
        Explanation(**{**given, "n_image": 1, **change})


@pytest.mark.parametrize("info", [{(1, 2): 3}, {"a": {b"x": 1}}, "circle"])
def test_info_that_no_file_can_hold_is_told(explanation, info, tmp_path):
    if info == "circle":
        info = {}
        info["a"] = info
    e = replace(explanation, info=info)
    with pytest.raises((TypeError, ValueError), match=r"e\.safetensors: `info` cannot be stored"):
        e.save(tmp_path / "e.safetensors")
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_and_torch_in_the_record_are_saved(explanation, tmp_path):
    """Whatever a side says of itself: a result is never lost for it."""
    said = {"x": np.float32(0.5), "y": np.arange(2), "z": torch.ones(2), "path": tmp_path}
    loaded = Explanation.load(replace(explanation, info=said).save(tmp_path / "e.safetensors"))
    assert loaded.info == {"x": 0.5, "y": [0, 1], "z": [1.0, 1.0], "path": str(tmp_path)}


def test_attributions_are_expected_contributions(explanation):
    # averaged over all masks of the other players, weighted by their p
    masks = np.array(list(itertools.product([False, True], repeat=6)))
    p = explanation.keep_probability
    assert p.tolist() == [0.3, 0.3, 0.3, 0.7, 0.7, 0.7]
    chance = np.where(masks, p, 1 - p).prod(1)
    for i in range(6):
        with_i, without = masks.copy(), masks.copy()
        with_i[:, i], without[:, i] = True, False
        gain = explanation.value(with_i) - explanation.value(without)
        assert explanation.attributions()[i] == pytest.approx((chance * gain).sum())


def test_views(explanation):
    assert (explanation.n, explanation.n_text) == (6, 3)
    assert explanation.cross.shape == (3, 3)
    np.testing.assert_array_equal(explanation.given("red"), explanation.e2[:3, 3])
    np.testing.assert_array_equal(explanation.given("(0,1)"), explanation.e2[1, 3:])
    np.testing.assert_allclose(explanation.given([3, 4]), explanation.e2[:3, 3:5].sum(1))
    np.testing.assert_array_equal(explanation.given(-1), explanation.e2[:3, 5])
    grid = explanation.on_grid(explanation.given("red"))
    assert grid.shape == (2, 2) and grid[0, 0] == grid[0, 1] == explanation.e2[0, 3]
    i, j, value = explanation.strongest(1)[0]
    assert abs(value) == np.abs(explanation.e2).max() and explanation.e2[i, j] == value
    assert all(i < 3 <= j for i, j, _ in explanation.strongest(9, cross=True))
    assert "toy: 3 image + 3 text players" in repr(explanation)


def test_players_that_cannot_be_found_are_named(explanation):
    with pytest.raises(KeyError, match="name of players \\[4, 5\\]"):
        explanation.given("star")
    with pytest.raises(KeyError, match="text players are: red, star, star"):
        explanation.given("ring")
    with pytest.raises(IndexError, match="there are 6"):
        explanation.given(6)
    with pytest.raises(ValueError, match="same side"):
        explanation.given(["red", "(0,0)"])
    with pytest.raises(ValueError, match="no patch grid"):
        explanation.on_grid(np.zeros(3), side="text")
    with pytest.raises(ValueError, match="e1 of shape"):
        Explanation(0.0, np.zeros(2), np.zeros((3, 3)), ("a", "b", "c"), 1)


@pytest.mark.parametrize(
    ("player", "error", "message"),
    [
        ([3, 3], ValueError, r"\[3, 3\] names a player twice"),
        (["red", 3], ValueError, "names a player twice"),
        ([0, -6], ValueError, "names a player twice"),
        (True, TypeError, "name or its position, got True"),
        (np.array([True] + 5 * [False]), TypeError, r"of a mask, give np\.flatnonzero\(mask\)"),
        (1.5, TypeError, "got 1.5"),
        (None, TypeError, "got None"),
        (b"red", TypeError, "got b'red'"),
        ([[0, 1]], TypeError, r"got \[0, 1\]"),
        ([], ValueError, "name one or more players"),
        (-7, IndexError, "there is no player -7: there are 6"),
    ],
)
def test_what_is_no_player_is_refused(explanation, player, error, message):
    """A player given twice counted twice, True was player 1, and b"red" three numbers."""
    with pytest.raises(error, match=message):
        explanation.given(player)


@pytest.mark.parametrize(
    "players",
    [torch.tensor([3, 4]), np.array([3, 4]), {3, 4}, range(3, 5), iter((3, 4)), ("red", 4)],
)
def test_players_come_in_any_collection(explanation, players):
    np.testing.assert_array_equal(explanation.given(players), explanation.given([3, 4]))
    for one in (torch.tensor(3), np.array(3), np.str_("red")):
        np.testing.assert_array_equal(explanation.given(one), explanation.given(3))


@pytest.mark.parametrize("size", [1e-60, 1e-30, 1.0, 1e30, 1e60])
def test_error_bars_of_any_size_are_formed_and_saved(explanation, size, tmp_path):
    """In float32 those of 1e-60 were 0, and of 1e60 infinite."""
    rows = size * explanation.deviations.astype(float)
    numbers = {name: size * getattr(explanation, name) for name in ("e0", "e1", "e2")}
    e = replace(explanation, **numbers, deviations=rows)
    e = Explanation.load(e.save(tmp_path / "e.safetensors"))
    np.testing.assert_allclose(e.stderr.e2, size * explanation.stderr.e2, rtol=1e-6)
    first = e.first_order()
    np.testing.assert_allclose(first.stderr.e1, e.stderr_of(Explanation.attributions), rtol=1e-6)
    assert e.deviations.dtype == (np.float64 if size in (1e-60, 1e60) else np.float32)


def test_error_bars_that_are_no_numbers_are_refused(explanation):
    with pytest.raises(ValueError, match="numbers of deviations are NaN or infinite"):
        replace(explanation, deviations=np.full((2, 22), np.nan))
    lists = replace(explanation, deviations=explanation.deviations.tolist())
    np.testing.assert_array_equal(lists.stderr.e1, explanation.stderr.e1)


def test_what_is_written_into_the_info_of_one_stays_there(explanation):
    """The sides of a pair, and views of one explanation, shared their parts."""
    others = explanation.first_order(), replace(explanation, e0=0.0)
    explanation.info["image"]["model"]["name"] = "mine"
    explanation.info["text"]["token_ids"].append(8)
    for other in others:
        assert other.info["image"]["model"]["name"] == "toy"
        assert other.info["text"]["token_ids"] == [5, 6, 7]


@pytest.mark.parametrize("name", ["e.safetensors", "deep/er/e.safetensors"])
def test_files_give_back_the_same_bits(explanation, tmp_path, name):
    path = explanation.save(tmp_path / name)
    loaded = Explanation.load(path)
    numbers = ("e0", "e1", "e2", "empty_value", "grand_value", "picture", "deviations")
    for field in (*numbers, "players", "n_image", "p"):
        a, b = getattr(explanation, field), getattr(loaded, field)
        assert np.array_equal(a, b) and type(a) is type(b), field
    assert loaded.info == explanation.info
    assert loaded.e2.tobytes() == explanation.e2.tobytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing left beside it


def test_broken_and_foreign_files_are_named(explanation, tmp_path):
    whole = explanation.save(tmp_path / "whole.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is not a whole explanation file"):
            Explanation.load(cut)
    foreign = {"format": "fixlip-explanation-2", "class": "os.path.join"}
    (tmp_path / "no").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match="is not a whole explanation file"):
        Explanation.load(tmp_path / "no")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="is not a whole explanation file"):
        Explanation.load(tmp_path / "other.npz")
    for about in ({}, {"format": "fixlip-explanation-1"}, foreign):
        write_arrays(tmp_path / "other.safetensors", {"a": np.zeros(3)}, about)
        with pytest.raises(ValueError, match="is not a whole explanation file"):
            Explanation.load(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Explanation.load(tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match=r"end the name in \.safetensors"):
        explanation.save(tmp_path / "e.pkl")


def test_a_file_of_another_version_or_with_bars_that_are_no_numbers_is_told(explanation, tmp_path):
    path = tmp_path / "e.safetensors"
    arrays, about = read_arrays(explanation.save(path))
    for change, message in (
        ({"format": "fixlip-explanation-9"}, "read it with the version that wrote it"),
        ({"info": [1]}, "info must be a dict"),
    ):
        write_arrays(path, arrays, about | change)
        with pytest.raises(ValueError, match=f"is not a whole explanation file: .*{message}"):
            Explanation.load(path)
    write_arrays(path, arrays | {"deviations": np.full((2, 22), np.nan, np.float32)}, about)
    with pytest.raises(ValueError, match="numbers of deviations are NaN or infinite"):
        Explanation.load(path)


def test_a_failed_save_leaves_the_old_file(explanation, tmp_path, monkeypatch):
    path = explanation.save(tmp_path / "e.safetensors")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        explanation.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("change", [(0, 1, 9.0), (2, 2, 1.0), (1, 2, np.nan)])
def test_pairs_that_are_no_symmetric_matrix_are_refused(explanation, change):
    i, j, value = change
    e2 = explanation.e2.copy()
    e2[i, j] = value
    with pytest.raises(ValueError, match=r"symmetric with a zero diagonal|NaN or infinite"):
        replace(explanation, e2=e2)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["FSII", "FBII", "Moebius", "SV", "k-SII"])
def test_the_index_of_shapiq_comes_back(explanation, index):
    """First-order fits of Faith-Shap take another constant than those under p."""
    pytest.importorskip("shapiq")
    of_shapley = index in ("FSII", "SV")
    fit = {"fit": {"index": "shapley" if of_shapley else "banzhaf"}}
    values = replace(explanation, info=fit, p=(0.5, 0.5)).to_shapiq()
    assert values.index == ("FSII" if of_shapley else "FBII")
    values.index = index
    if index == "k-SII":
        with pytest.raises(ValueError, match=r"the index must be .* got 'k-SII'"):
            Explanation.from_shapiq(values, n_image=3)
        return
    back = Explanation.from_shapiq(values, n_image=3)
    expected = replace(explanation, info=fit, p=(0.5, 0.5)).first_order()
    assert back.first_order().e0 == pytest.approx(expected.e0)


@pytest.mark.slow
def test_a_baseline_of_shapiq_without_a_constant_is_the_constant():
    shapiq = pytest.importorskip("shapiq")
    values = shapiq.InteractionValues(
        values=np.array([1.0, 2.0]),
        index="SV",
        max_order=1,
        n_players=2,
        min_order=1,
        interaction_lookup={(0,): 0, (1,): 1},
        baseline_value=-0.5,
    )
    assert Explanation.from_shapiq(values, n_image=1).value([[1, 1]]).tolist() == [2.5]


@pytest.mark.slow
def test_shapiq_reads_the_same_terms(explanation):
    pytest.importorskip("shapiq")
    values = explanation.to_shapiq()
    assert values[()] == pytest.approx(explanation.e0)
    assert values[(2,)] == pytest.approx(explanation.e1[2])
    assert values[(1, 4)] == pytest.approx(explanation.e2[1, 4])
    back = Explanation.from_shapiq(values, n_image=3, players=explanation.players, p=explanation.p)
    np.testing.assert_array_equal(back.e1, explanation.e1)
    np.testing.assert_array_equal(back.e2, explanation.e2)
    assert back.e0 == explanation.e0


@pytest.mark.slow
def test_result_files_of_the_papers_hold_the_fit_to_the_gain_over_the_empty_mask(explanation):
    pytest.importorskip("shapiq")
    gain = replace(explanation, e0=explanation.e0 - 7.5)
    values = gain.to_shapiq()
    values.index = "FWBII"
    back = Explanation.from_shapiq(values, n_image=3, empty_value=7.5)
    assert back.e0 == pytest.approx(explanation.e0) and back.empty_value == 7.5

    def game(masks):
        return explanation.value(masks) + (7.5 - explanation.e0) * (~np.asarray(masks)).all(1)

    with pytest.warns(UserWarning, match="pass it as empty_value"):
        wrong = Explanation.from_shapiq(values, n_image=3)
    every = {"fitted": explanation, "back": back, "wrong": wrong}
    r2 = faithfulness(every, game, distributions=[0.5], count=30).set_index("method").r2
    assert r2["back"] == pytest.approx(r2["fitted"]) and r2["wrong"] < r2["fitted"] - 0.05


@pytest.mark.parametrize("count", [-1, 1.5, True, None, "3"])
def test_counts_of_pairs_are_whole_numbers(explanation, count):
    """-1 gave all pairs but the weakest."""
    with pytest.raises(ValueError, match="count must be a whole number of 0 or more"):
        explanation.strongest(count)

"""Insertion and deletion against the published steps, written out, and all rankings of a game."""

import itertools
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_games import Smooth

from fixlip.explanation import Explanation
from fixlip.metrics import Curves, insertion_deletion, masks_by_ranking, masks_by_subsets


def explanation(e1, e2=None):
    e1 = np.asarray(e1, float)
    e2 = np.zeros((len(e1),) * 2) if e2 is None else np.asarray(e2, float)
    return Explanation(0.0, e1, e2, tuple(map(str, range(len(e1)))), len(e1) // 2)


def published_masks(values):
    """Thresholds over descending and over ascending values, then nothing kept."""
    n = len(values)
    mif = [[v <= threshold for v in values] for threshold in sorted(values, reverse=True)]
    lif = [[v >= threshold for v in values] for threshold in sorted(values)]
    return [*mif, [False] * n], [*lif, [False] * n]


def published_aid(mif, lif):
    n, area = len(mif) - 1, 0.0
    grid = [k / 50 for k in range(51)]

    def at(curve, x):
        left = min(int(x * n + 1e-12), n - 1)
        part = x * n - left
        value = (1 - part) * curve[left] + part * curve[left + 1]
        return (value - mif[-1]) / (mif[0] - mif[-1])

    for a, b in itertools.pairwise(grid):
        area += (b - a) * (at(lif, a) + at(lif, b) - at(mif, a) - at(mif, b)) / 2
    return area


@pytest.mark.parametrize("values", [[3.0, -1, 2, 7], [1.0, 0, 0, 0, 2], [0.0, 0, 0], [-2.0]])
def test_tied_players_go_as_a_block_as_published(values):
    mif, lif = masks_by_ranking(np.array(values))
    assert (mif.tolist(), lif.tolist()) == published_masks(values)
    assert mif.dtype == lif.dtype == bool


def test_in_order_one_player_goes_at_a_time():
    values = np.array([2.0, 0, 5, 0, 2, 0])
    mif, lif = masks_by_ranking(values, ties="order")
    for rows, gone in ((mif, [2, 0, 4, 1, 3, 5]), (lif, [1, 3, 5, 0, 4, 2])):
        assert rows[0].all() and rows.sum(1).tolist() == [6, 5, 4, 3, 2, 1, 0]
        assert [int(np.flatnonzero(a & ~b)[0]) for a, b in itertools.pairwise(rows)] == gone


def test_without_ties_both_rules_are_one():
    values = np.random.default_rng(0).permutation(9).astype(float)
    for block, order in zip(
        masks_by_ranking(values), masks_by_ranking(values, ties="order"), strict=True
    ):
        assert (block == order).all()


def test_subsets_from_large_to_small_and_nothing():
    least = np.array([[0, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
    most = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
    mif, lif = masks_by_subsets(SimpleNamespace(least=least, most=most))
    assert mif.astype(int).tolist() == [[1, 1, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert lif.astype(int).tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("n", [1, 4, 50, 57])
def test_aid_equals_the_literal_trapezoids(n):
    rng = np.random.default_rng(n)
    mif, lif = rng.normal(size=(2, n + 1))
    mif[[0, -1]] = lif[[0, -1]] = 12.0, 3.0
    curves = Curves(mif, lif)
    assert curves.aid() == pytest.approx(published_aid(mif, lif), abs=1e-12)
    assert curves.aid("mean") == pytest.approx(np.mean((lif - mif) / 9))
    assert curves.normalised().mif[[0, -1]].tolist() == [1, 0]
    assert len(curves.on_grid().x) == 51 and curves.on_grid(n + 1).lif == pytest.approx(lif)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_ranking_beats_the_true_one_of_an_additive_game(seed):
    terms = np.random.default_rng(seed).normal(size=5) + 0.5
    game = explanation(terms)

    def area(order):
        curves = []
        for gone in (order, order[::-1]):
            kept = np.array([[i not in gone[:k] for i in range(5)] for k in range(6)])
            curves.append(game.value(kept))
        return Curves(*curves).aid()

    found = insertion_deletion(game.value, {"true": game})["true"].aid()
    areas = [area(order) for order in itertools.permutations(range(5))]
    assert len(areas) == 120 and max(areas) > min(areas) + 0.1
    assert terms.sum() > 0 and found == pytest.approx(max(areas))


def test_the_game_sees_all_distinct_masks_once_in_one_call():
    rng, asked = np.random.default_rng(0), []
    given = {name: explanation(rng.normal(size=7)) for name in "abc"}
    given["d"] = given["a"]
    truth = explanation(rng.normal(size=7))

    def game(masks):
        asked.append(masks)
        return truth.value(masks)

    curves = insertion_deletion(game, given)
    assert len(asked) == 1 and len({tuple(row) for row in asked[0].tolist()}) == len(asked[0])
    for name, each in given.items():
        mif, lif = published_masks(each.e1.tolist())
        assert curves[name].mif == pytest.approx(truth.value(np.array(mif)))
        assert curves[name].lif == pytest.approx(truth.value(np.array(lif)))


def test_second_order_explanations_are_judged_by_their_subsets():
    side = Smooth(6, seed=2)
    rng = np.random.default_rng(2)
    e2 = np.triu(rng.normal(size=(6, 6)), 1)
    given = explanation(rng.normal(size=6), e2 + e2.T)

    def game(masks):
        return side.embed(masks)[:, 0]

    curves = insertion_deletion(game, {"e": given}, starts="all")["e"]
    for size in range(1, 7):
        kept = list(itertools.combinations(range(6), size))
        masks = np.array([[i in subset for i in range(6)] for subset in kept])
        order = np.argsort(given.value(masks))
        ends = game(torch.from_numpy(masks[order[[0, -1]]])).tolist()
        # greedy search from every player finds the best subsets of so small a game
        assert [curves.mif[6 - size], curves.lif[6 - size]] == pytest.approx(ends)
    ranked = insertion_deletion(game, {"e": given}, ranking="attributions")["e"]
    mif, _ = published_masks(given.attributions().tolist())
    assert ranked.mif == pytest.approx(game(torch.tensor(mif)).tolist())


def test_no_area_where_full_and_empty_are_alike():
    curves = Curves(np.array([1.0, 5, 1 + 1e-6]), np.array([1.0, 7, 1 + 1e-6]))
    with pytest.warns(UserWarning, match=r"value 1 and the empty one 1, too close"):
        assert math.isnan(curves.aid())
    with pytest.warns(UserWarning, match="too close"):
        assert math.isnan(Curves(np.ones(4), np.ones(4)).aid())


def test_a_full_mask_below_the_empty_one_is_told():
    with pytest.warns(UserWarning, match="change their signs"):
        assert Curves(np.array([0.0, 0, 1]), np.array([0.0, 1, 1])).aid() < 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Curves(np.array([1.0, 0.9, 0]), np.array([1.0, 3, 0])).aid()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masks_by_ranking(np.ones((2, 2))), r"one finite value per player.*\(2, 2\)"),
        (lambda: masks_by_ranking(np.array([1.0, np.nan])), "NaN"),
        (lambda: masks_by_ranking(np.ones(3), ties="random"), 'ties must be "block" or "order"'),
        (lambda: Curves(np.ones(3), np.ones(4)), "the same length"),
        (lambda: Curves(np.array([2.0, 1]), np.array([3.0, 1])), "MIF goes from 2 to 1"),
        (lambda: Curves(np.array([2.0, 1]), np.array([2.0, 1])).aid("sum"), "rule must be"),
        (
            lambda: Curves(np.array([2.0, 1]), np.array([2.0, 1])).on_grid(1),
            "points must be a whole number of 2 or",
        ),
        (lambda: insertion_deletion(len, {}), "no explanations"),
        (
            lambda: insertion_deletion(
                len, {"a": explanation([1, 2]), "b": explanation([1, 2, 3])}
            ),
            "b explains 3 players, and the game has 2",
        ),
        (
            lambda: insertion_deletion(len, {"a": explanation([1, 2])}, ranking="best"),
            "ranking must be",
        ),
        (
            lambda: insertion_deletion(
                None, {"a": explanation([1, 2], [[0, 1], [1, 0]])}, ties="random"
            ),
            "ties must be",
        ),
        (
            lambda: insertion_deletion(lambda masks: masks, {"a": explanation([1, 2])}),
            "one number per mask",
        ),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_published_aid_has_no_guard():
    curves = Curves(np.array([1.0001, 0.0, 1.0]), np.array([1.0001, 2.0, 1.0]))
    with pytest.warns(UserWarning, match="too close"):
        assert np.isnan(curves.aid())
    assert curves.aid("mean", guard=0) == pytest.approx(2 / 0.0001 / 3)
    with pytest.raises(ValueError, match="guard must be a number of 0 or more"):
        curves.normalised(guard=-1)

"""The pointing game against a literal loop and worked cases."""

import math

import numpy as np
import pytest

from fixlip.encoders.players import blocks, regions
from fixlip.explanation import Explanation
from fixlip.metrics import pointing, pointing_ratio, quadrants, sign_ratio


def test_the_published_cells():
    seven = quadrants(7, 7).reshape(7, 7)
    assert [(seven == q).sum() for q in range(4)] == [9] * 4 and (seven == -1).sum() == 13
    assert (seven[3] == -1).all() and (seven[:, 3] == -1).all()
    assert seven[0, 6] == 1 and seven[6, 0] == 2
    for grid, cell in ((8, 16), (14, 49), (16, 64), (6, 9)):
        assert np.bincount(quadrants(grid, grid)).tolist() == [cell] * 4


def test_a_player_lies_where_most_of_its_patches_lie():
    assert quadrants(8, 8, owner=blocks(8, 8, 4).owner).tolist() == [0, 1, 2, 3]
    assert quadrants(6, 6, owner=blocks(6, 6, 6).owner).tolist() == [-1]  # all four
    # 7 x 7 in blocks of 2 x 2: those on a middle row or column have half of their patches or fewer
    # in a quadrant, and no majority
    seven = quadrants(7, 7, owner=blocks(7, 7, 2).owner).reshape(4, 4)
    assert seven.tolist() == [[0, -1, 1, 1], [-1, -1, -1, -1], [2, -1, 3, 3], [2, -1, 3, 3]]
    dog = np.zeros((8, 8))
    dog[1:4, 2:6] = 1  # half left, half right
    cat = np.zeros((8, 8))
    cat[5:, 1:6] = 1  # three of five columns on the left
    owner = regions({"dog": dog, "cat": cat}, 8, 8).owner
    assert quadrants(8, 8, owner=owner).tolist() == [-1, 2, -1]  # and the rest, all over
    assert (quadrants(7, 7, owner=np.arange(49)) == quadrants(7, 7)).all()


def literal(cross, where, own, text=None):
    """Right and wrong mass; a word's own term counts once inside and once outside where given."""
    right = wrong = 0.0
    for t, quadrant in enumerate(own):
        if quadrant == -1:
            continue
        if text is not None:
            inside, outside = [text[t]], [text[t]]
        else:
            inside, outside = [], []
        for i, place in enumerate(where):
            if place == quadrant:
                inside.append(cross[i, t])
            elif place != -1:
                outside.append(cross[i, t])
        right += sum(max(v, 0) for v in inside) + sum(max(-v, 0) for v in outside)
        wrong += sum(max(v, 0) for v in outside) + sum(max(-v, 0) for v in inside)
    return right / (right + wrong)


def literal_signs(cross, where, own):
    shares = []
    for t, quadrant in enumerate(own):
        cells = [(v, q) for v, q in zip(cross[:, t], where, strict=True) if q >= 0 and v != 0]
        counted = [(v > 0) == (q == quadrant) for v, q in cells]
        if quadrant >= 0 and counted:
            shares.append(sum(counted) / len(counted))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grid", [6, 7, 14])
def test_both_measures_equal_the_literal_sums(seed, grid):
    rng = np.random.default_rng(seed)
    cross, where = rng.normal(size=(grid**2, 5)), quadrants(grid, grid)
    cross[rng.random(cross.shape) < 0.2] = 0
    own = rng.integers(-1, 4, size=5)
    own[0] = 2
    assert pointing_ratio(cross, where, own) == pytest.approx(literal(cross, where, own))
    assert sign_ratio(cross, where, own) == pytest.approx(literal_signs(cross, where, own))


def explanation(e1, e2):
    n = len(e1)
    return Explanation(0.0, e1, e2, tuple(map(str, range(n))), n - 3)


@pytest.mark.parametrize("seed", range(3))
def test_explanations_of_both_orders(seed):
    rng = np.random.default_rng(seed)
    e1, e2 = rng.normal(size=39), rng.normal(size=(39, 39))
    e2 = np.triu(e2, 1) + np.triu(e2, 1).T
    where, own = quadrants(6, 6), [1, -1, 3]
    second = {
        "ratio": pointing_ratio(e2[:36, 36:], where, own),
        "signs": sign_ratio(e2[:36, 36:], where, own),
    }
    # inside pairs, first-order terms and the words' terms play no part in second order
    for text_token in (False, True):
        assert pointing(explanation(e1, e2), where, own, text_token=text_token) == second
    same = np.repeat(e1[:36, None], 3, axis=1)
    first = explanation(e1, np.zeros((39, 39)))
    clean, published = (pointing(first, where, own, text_token=t) for t in (False, True))
    assert clean["ratio"] == pytest.approx(literal(same, where, own))
    assert clean["signs"] == pytest.approx(literal_signs(same, where, own))
    assert published["ratio"] == pytest.approx(literal(same, where, own, e1[36:]))
    for measure, share in clean.items():
        assert abs(published[measure] - 0.5) < abs(share - 0.5)
    right = [literal_signs(same[:, [t]], where, [own[t]]) for t in (0, 2)]
    assert published["signs"] == pytest.approx(np.mean([(36 * r + 1) / 38 for r in right]))


def test_perfect_inverted_flat_and_empty_maps():
    where = quadrants(6, 6)
    perfect = np.where(where == 1, 1.0, -1.0)[:, None]
    for measure in (pointing_ratio, sign_ratio):
        assert measure(perfect, where, [1]) == 1
        assert measure(-perfect, where, [1]) == 0
        assert measure(np.ones((36, 1)), where, [1]) == 0.25
        assert math.isnan(measure(np.zeros((36, 1)), where, [1]))
        assert math.isnan(measure(perfect, where, [-1]))


def test_a_map_that_names_every_quadrant_gets_a_quarter_whatever_it_shows():
    rng = np.random.default_rng(0)
    e1 = np.concatenate([rng.random(36), np.zeros(4)])
    flat = Explanation(0.0, e1, np.zeros((40, 40)), tuple(map(str, range(40))), 36)
    assert pointing(flat, quadrants(6, 6), range(4))["ratio"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pointing_ratio(np.ones((4, 2)), range(3), [0, 1]), r"\(4, 2\), \(3,\)"),
        (lambda: sign_ratio(np.ones((4, 2)), range(4), [0]), r"\(1,\) of words"),
        (lambda: pointing_ratio(np.ones((4, 1)), [0, 1, 2, 4], [0]), "0 to 3"),
        (lambda: pointing_ratio(np.full((4, 1), np.nan), range(4), [0]), "NaN"),
        (lambda: quadrants(2, 2, owner=[0, 1]), "2 x 2 patches"),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_published_signs_count_zero_as_wrong():
    cross = np.array([[3.0], [1.0], [-2.0], [0.0]])
    assert sign_ratio(cross, range(4), [0], zeros="wrong") == 0.5
    assert sign_ratio(cross, range(4), [0]) == pytest.approx(2 / 3)
    # a player in no quadrant, and a word of no object, are out of the game even so
    more = np.concatenate([np.column_stack([cross, cross]), np.zeros((1, 2))])
    assert sign_ratio(more, [0, 1, 2, 3, -1], [0, -1], zeros="wrong") == 0.5
    terms, none = np.array([3.0, 1.0, -2.0, 0.0, 6.0]), np.zeros((5, 5))
    e = Explanation(0.0, terms, none, ("a", "b", "c", "d", "word"), 4)
    assert pointing(e, range(4), [0], zeros="wrong")["signs"] == 0.5
    with pytest.raises(ValueError, match='zeros must be "skip" or "wrong"'):
        sign_ratio(cross, range(4), [0], zeros="right")


def test_quadrants_are_no_booleans_and_owners_are_numbers():
    with pytest.raises(ValueError, match="quadrants are 0 to 3"):
        pointing_ratio(np.ones((2, 1)), [True, False], [0])
    with pytest.raises(ValueError, match="owner must be a player's number, 0 or more"):
        quadrants(2, 2, owner=[0, 0, 1, -1])

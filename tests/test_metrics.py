"""The pointing game against a literal loop and worked cases."""

import math

import numpy as np
import pytest

from fixlip.metrics import pointing_ratio, quadrants


def test_the_published_cells():
    seven = quadrants(7, 7).reshape(7, 7)
    assert [(seven == q).sum() for q in range(4)] == [9] * 4 and (seven == -1).sum() == 13
    assert (seven[3] == -1).all() and (seven[:, 3] == -1).all()
    assert seven[0, 6] == 1 and seven[6, 0] == 2
    for grid, cell in ((8, 16), (14, 49), (16, 64), (6, 9)):
        assert np.bincount(quadrants(grid, grid)).tolist() == [cell] * 4


def literal(cross, where, own):
    right = wrong = 0.0
    for t, quadrant in enumerate(own):
        for i, place in enumerate(where):
            if place == -1 or quadrant == -1:
                continue
            good = (cross[i, t] > 0) == (place == quadrant)
            right, wrong = (
                (right + abs(cross[i, t]), wrong) if good else (right, wrong + abs(cross[i, t]))
            )
    return right / (right + wrong)


@pytest.mark.parametrize("seed", range(3))
def test_pointing_ratio_equals_the_literal_sum(seed):
    rng = np.random.default_rng(seed)
    cross, where = rng.normal(size=(49, 5)), quadrants(7, 7)
    own = rng.integers(-1, 4, size=5)
    own[0] = 2
    assert pointing_ratio(cross, where, own) == pytest.approx(literal(cross, where, own))


def test_perfect_inverted_flat_and_empty_maps():
    where = quadrants(6, 6)
    perfect = np.where(where == 1, 1.0, -1.0)[:, None]
    assert pointing_ratio(perfect, where, [1]) == 1
    assert pointing_ratio(-perfect, where, [1]) == 0
    assert pointing_ratio(np.ones((36, 1)), where, [1]) == 0.25
    assert math.isnan(pointing_ratio(np.zeros((36, 1)), where, [1]))

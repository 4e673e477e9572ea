"""What a fit warns of: numbers that should not be trusted, where they should not."""

import warnings

import numpy as np
import pytest
from toy_games import Smooth

import fixlip
from fixlip.games import exact
from fixlip.solver import solve_dense


def swept(n, seed=0, **options):
    return fixlip.sweep(Smooth(n, seed=n), seed=seed, **options)


def test_players_that_are_never_removed_are_warned_about():
    """Their terms are a penalty's guesses, 0, with small error bars."""
    with pytest.warns(UserWarning, match=r"64 masks leave \d+ of 36 first-order terms undeter"):
        fixlip.fit(swept(36, masks=64, p=0.999))


@pytest.mark.parametrize(("p", "masks", "warned"), [(0.95, 512, True), (0.8, 512, False)])
def test_pairs_that_are_rarely_removed_together_are_warned_about(p, masks, warned):
    """95 % intervals of pairs within 12 image players covered .34 at p=.95, and .95 at p=.8."""
    sides = fixlip.fit(swept(12, masks=masks, p=p)), fixlip.fit(swept(4, seed=1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fixlip.pair(*sides)
    found = [str(w.message) for w in caught if "two players are both removed" in str(w.message)]
    assert bool(found) == warned
    if warned:
        assert "in 1.3 of 512 masks" in found[0] and "Use 4,000 masks or more" in found[0]


@pytest.mark.parametrize("ridge", [0.1, 1.0])
def test_a_penalty_on_listed_masks_has_error_bars(ridge):
    """Nothing was drawn, and yet the terms are biased: an error bar of 0 would be a lie."""
    image, text = Smooth(6, seed=6), Smooth(4, seed=4)
    e = fixlip.solve(fixlip.sweep(image), fixlip.sweep(text), ridge=ridge)
    truth = exact.weighted_banzhaf(exact.game_values(fixlip.Game(image, text)), n_image=6)
    bias = np.abs(e.e2 - truth.e2)[:6, :6]
    assert bias.max() > 1e-3 and e.stderr.e2[:6, :6][bias > 0].min() > 0
    assert (bias <= 4 * e.stderr.e2[:6, :6]).mean() > 0.9
    plain = fixlip.solve(fixlip.sweep(image), fixlip.sweep(text))
    assert not plain.stderr.e2.any() and np.allclose(plain.e2, truth.e2)


def test_the_dense_fit_warns_of_undetermined_terms():
    sweeps = swept(6, masks=18), swept(4, seed=1)
    with pytest.warns(UserWarning, match="leave 8 of 56 terms undetermined"):
        solve_dense(*sweeps)


@pytest.mark.parametrize(("ridge", "warned"), [(1.0, True), (0.001, False), ("auto", False)])
def test_a_penalty_far_above_the_likeliest_warns(ridge, warned):
    """95 % intervals of a game of 10 players covered .4 to .6 of its terms at ridge=1."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fixlip.fit(swept(10, masks=300), ridge=ridge)
        game = Smooth(10)
        fixlip.estimate(
            lambda z: game.embed(z)[:, 0], n=10, masks=300, ridge=ridge, index="shapley"
        )
    found = [str(w.message) for w in caught]
    assert len(found) == 2 * warned and all("what the values speak for" in text for text in found)

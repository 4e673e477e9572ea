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


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize("ridge", [0.1, 10.0, 1000.0])
def test_intervals_cover_the_bias_of_a_penalty_of_any_size(ridge, p):
    """A penalty of 10 on listed masks covered a quarter of the pairs: it does not say how large
    terms are, and the likeliest penalty does."""
    covered = []
    for seed in range(4):
        swept = [fixlip.sweep(Smooth(n, seed=seed + 10 * n), masks=2**n, p=p) for n in (7, 5)]
        plain, shrunk = (fixlip.solve(*swept, ridge=r) for r in (0, ridge))
        bias, bar = (
            np.abs(x)[:7, :7][np.triu_indices(7, 1)]
            for x in (shrunk.e2 - plain.e2, shrunk.stderr.e2)
        )
        covered += (bias <= 1.96 * bar).tolist()
    assert 0.85 < np.mean(covered) < 1


def test_a_penalty_on_drawn_masks_keeps_error_bars_that_cover():
    covered = []
    for seed in range(6):
        side, other = Smooth(10, seed=20 + seed), fixlip.sweep(Smooth(4, seed=1))
        truth = fixlip.solve(fixlip.sweep(side), other)
        e = fixlip.solve(fixlip.sweep(side, masks=300, seed=seed), other, ridge=5.0)
        pairs = np.triu_indices(10, 1)
        covered += (np.abs(e.e2 - truth.e2) <= 1.96 * e.stderr.e2)[pairs].tolist()
    assert np.mean(covered) > 0.85


def told(call):
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("basis", ["full", "top"])
@pytest.mark.parametrize("ridge", [0, "auto"])
def test_a_fit_says_once_what_its_masks_leave_open_and_once_that_they_are_few(ridge, basis):
    sides = swept(12, masks=16), swept(9, masks=12, seed=1)
    found = told(lambda: fixlip.solve(*sides, ridge=ridge, basis=basis, k=14))
    assert sum("undetermined" in text for text in found) == 2  # a side each
    assert sum("error bars" in text for text in found) == 2


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
@pytest.mark.parametrize("ridge", [0, "auto"])
@pytest.mark.parametrize("basis", ["full", "top"])
def test_an_estimate_says_nothing_twice(index, order, ridge, basis):
    game = Smooth(10, width=1, seed=2)
    options = {"index": index, "order": order, "ridge": ridge, "basis": basis, "k": 6}
    found = told(lambda: fixlip.estimate(lambda z: game.embed(z)[:, 0], n=10, masks=11, **options))
    assert sum("undetermined" in text for text in found) == 1
    assert sum("error bars" in text for text in found) == 1


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"p": 0.2, "sampling": "distinct-reference"}, True),
        ({"p": 0.8, "sampling": "distinct-reference"}, True),
        ({"index": "shapley", "sampling": "distinct-reference"}, True),
        ({"p": 0.2, "sampling": "distinct"}, False),
        ({"index": "shapley", "sampling": "distinct"}, False),
        ({"p": 0.5, "sampling": "distinct-reference"}, False),
        ({"p": 0.2, "sampling": "distinct-reference", "masks": 1024}, False),
    ],
)
def test_published_weights_that_bias_terms_beyond_their_error_bars_are_warned_about(
    options, warned
):
    """95 % intervals covered .76 at 400 masks and .45 at 700, of 10 players at p=.2 and .8."""
    game = Smooth(10, width=1, seed=2)
    options = {"masks": 500, **options}
    found = told(lambda: fixlip.estimate(lambda z: game.embed(z)[:, 0], n=10, **options))
    assert any("by right: terms are biased" in text for text in found) == warned


def test_the_dense_fit_warns_of_undetermined_terms():
    sweeps = swept(6, masks=18), swept(4, seed=1)
    with pytest.warns(UserWarning, match="leave 8 of 56 terms undetermined"):
        solve_dense(*sweeps)


@pytest.mark.filterwarnings("ignore:.*undetermined:UserWarning")
@pytest.mark.parametrize("masks", [1, 2])
def test_masks_that_say_nothing_of_errors_give_no_error_bars(masks):
    """They gave error bars of 0: one mask, or one with its twin, has nothing to vary against."""
    with pytest.warns(UserWarning, match="say nothing of the errors: there are no error bars"):
        e = fixlip.solve(swept(9, masks=masks), fixlip.sweep(Smooth(3, seed=2)))
    assert e.stderr is None
    with pytest.warns(UserWarning, match="say nothing of the errors"):
        assert fixlip.estimate(lambda z: z.all(1), n=9, masks=2 + masks).stderr is None

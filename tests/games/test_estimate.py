"""Estimates on a budget against exact values, known polynomials, and counted questions."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from toy_games import Polynomial, Smooth

import fixlip
from fixlip.games import exact
from fixlip.sampler import MaskSample, bernoulli, distinct, shapley_masks


class Counted:
    """A game that remembers how it was asked."""

    def __init__(self, game, n):
        self.game, self.n, self.calls, self.asked = game, n, 0, []

    def __call__(self, masks):
        self.calls += 1
        self.asked += map(tuple, masks.tolist())
        return self.game(masks)


def quadratic(n, seed=0):
    """A game of order 2 and the explanation that equals it."""
    rng = np.random.default_rng(seed)
    pairs = np.triu(rng.normal(size=(n, n)), 1)
    names = tuple(map(str, range(n)))
    known = fixlip.Explanation(0.4, rng.normal(size=n), pairs + pairs.T, names, 0)
    return lambda masks: known.value(masks), known


def smooth(n=8):
    side = Smooth(n, seed=1)
    return lambda masks: side.embed(masks)[:, 0]


def distance(a, b):
    return max(abs(a.e0 - b.e0), np.abs(a.e1 - b.e1).max(), np.abs(a.e2 - b.e2).max())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("index", "p"), [("banzhaf", 0.5), ("banzhaf", 0.2), ("shapley", 0.5)])
def test_all_masks_give_the_exact_explanation(index, p, order):
    found = fixlip.estimate(smooth(), n=8, index=index, p=p, masks=256, order=order)
    values = exact.game_values(smooth(), n=8)
    truth = (
        exact.weighted_banzhaf(values, p=p, order=order)
        if index == "banzhaf"
        else exact.faith_shapley(values, order=order)
    )
    assert distance(found, truth) == 0
    assert (found.empty_value, found.grand_value) == (values[0], values[-1])
    assert found.p == (p, p) and found.n_image == 0 and not found.stderr.e2.any()


@pytest.mark.parametrize("ridge", [0, "auto"])
@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
@pytest.mark.parametrize("sampling", [None, "distinct", "distinct-reference"])
def test_a_game_of_order_two_is_recovered_from_few_masks(index, sampling, ridge):
    game, known = quadratic(9)
    p = 0.3 if index == "banzhaf" else 0.5
    found = fixlip.estimate(game, n=9, index=index, p=p, masks=160, sampling=sampling, ridge=ridge)
    assert distance(found, known) < (1e-9 if ridge == 0 else 1e-4)


@pytest.mark.parametrize("weighting", ["mass", "reference"])
@pytest.mark.parametrize("order", [1, 2])
def test_shapley_fit_is_the_weighted_fit_with_ends_of_weight_1e7(order, weighting):
    # the literal program: one row per mask, square roots of weights, least squares
    sample = shapley_masks(7, 70, seed=3, weighting=weighting)
    Z = np.concatenate([sample.masks.numpy(), np.zeros((1, 7), bool), np.ones((1, 7), bool)])
    root = np.sqrt(np.concatenate([sample.weights.numpy(), [1e7, 1e7]]))
    i, j = np.triu_indices(7, 1)
    design = np.column_stack([np.ones(len(Z)), Z, *(Z[:, [i, j]].all(1).T if order == 2 else ())])
    values = smooth(7)(torch.from_numpy(Z)).numpy()
    terms = np.linalg.lstsq(root[:, None] * design, root * values, rcond=None)[0]
    sampling = "distinct" if weighting == "mass" else "distinct-reference"
    found = fixlip.estimate(
        smooth(7), n=7, index="shapley", masks=72, order=order, seed=3, sampling=sampling, ridge=0
    )
    np.testing.assert_allclose(found.value(Z), design @ terms, atol=1e-5)
    np.testing.assert_allclose(found.e1, terms[1:8], atol=1e-5)
    own = fixlip.estimate(smooth(7), n=7, index="shapley", masks=sample, order=order, ridge=0)
    assert distance(own, found) < 1e-12


def test_shapley_estimates_add_up_for_any_budget():
    for m in (3, 5, 20, 100):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = fixlip.estimate(smooth(), n=8, index="shapley", masks=m)
        ends = torch.tensor([[False], [True]]).expand(2, 8)
        np.testing.assert_allclose(found.value(ends), smooth()(ends), atol=1e-10)


def test_shapley_masks_have_the_kernel_as_weights():
    n = 9
    sample = shapley_masks(n, 150, seed=1)
    size = sample.masks.sum(1)
    assert len({tuple(row) for row in sample.masks.tolist()}) == sample.m == 150
    assert 0 < size.min() and size.max() < n
    total = sum(1 / (k * (n - k)) for k in range(1, n))
    listed = [k for k in range(1, n) if (size == k).sum() == math.comb(n, k)]
    assert {1, 8} <= set(listed) and len(listed) < n - 1  # the border, and no more
    for k in listed:
        share = float(sample.weights[size == k].sum())
        assert share == pytest.approx(1 / (k * (n - k)) / total, rel=1e-12)
    # the reference gives the drawn masks weight 1 in place of the share that is left
    mass = sum(1 / (k * (n - k)) for k in listed) / total
    reference = shapley_masks(n, 150, seed=1, weighting="reference")
    weight = float(reference.weights[torch.isin(size, torch.tensor(listed))].sum())
    assert weight == pytest.approx(mass / (mass + 1), rel=1e-12)


@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
@pytest.mark.parametrize("sampling", [None, "distinct"])
@pytest.mark.parametrize("m", [3, 4, 37, 200, 256, 1000])
def test_the_budget_is_kept(index, sampling, m):
    game = Counted(smooth(), 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fixlip.estimate(game, index=index, sampling=sampling, masks=m)
    assert game.calls == 1
    assert len(game.asked) == len(set(game.asked)) == found.info["fit"]["masks"] <= m
    assert {(False,) * 8, (True,) * 8} <= set(game.asked)


def biases(sampling, seeds=100):
    """Mean error of estimates over seeds, in standard errors of that mean."""
    game, p = smooth(), 0.3
    truth = exact.weighted_banzhaf(exact.game_values(game, n=8), p=p, order=1)
    found = [
        fixlip.estimate(game, n=8, p=p, masks=121, order=1, seed=s, sampling=sampling, ridge=0).e1
        for s in range(seeds)
    ]
    return (np.mean(found, 0) - truth.e1) / (np.std(found, 0) / math.sqrt(seeds))


def test_estimates_are_right_on_average():
    for sampling in ("independent", "antithetic", "distinct"):
        assert np.abs(biases(sampling)).max() < 5


@pytest.mark.filterwarnings("ignore:.*terms are biased")
def test_weights_that_forget_the_listed_mass_are_found_out():
    # negative control: the test above fails the weights of the published code
    assert np.abs(biases("distinct-reference")).max() > 6


def test_more_masks_are_better():
    truth = {
        "banzhaf": exact.weighted_banzhaf(exact.game_values(smooth(), n=8)),
        "shapley": exact.faith_shapley(exact.game_values(smooth(), n=8)),
    }
    for index, right in truth.items():
        few, many = (
            np.mean(
                [
                    distance(fixlip.estimate(smooth(), n=8, index=index, masks=m, seed=s), right)
                    for s in range(5)
                ]
            )
            for m in (60, 240)
        )
        assert many < few


@pytest.mark.parametrize(
    ("index", "sampling", "m"),
    [
        ("banzhaf", "antithetic", 140),
        ("banzhaf", "independent", 140),
        ("banzhaf", "distinct", 140),
        ("banzhaf", "distinct", 60),
        ("shapley", "distinct", 90),
        ("shapley", "distinct", 140),
    ],
)
def test_standard_errors_are_as_large_as_the_errors(index, sampling, m):
    values = exact.game_values(smooth(), n=8)
    right = (exact.weighted_banzhaf if index == "banzhaf" else exact.faith_shapley)(values)
    found = [
        fixlip.estimate(smooth(), n=8, index=index, masks=m, sampling=sampling, ridge=0, seed=s)
        for s in range(60)
    ]
    upper = np.triu_indices(8, 1)
    for part in (lambda e: e.e1, lambda e: e.e2[upper]):
        error = np.array([part(e) - part(right) for e in found])
        claimed = np.array([part(e.stderr) for e in found])
        assert 0.8 < np.sqrt(np.square(claimed).mean() / np.square(error).mean()) < 1.25
        assert 0.88 < (abs(error) < 1.96 * claimed).mean() < 0.98


@pytest.mark.filterwarnings("ignore:all masks but")
def test_sizes_listed_whole_have_no_error():
    # of 8 players all masks of 0, 1, 2, 6, 7 and 8 are listed at p=.5 with 250 of 256 masks
    found = fixlip.estimate(smooth(), n=8, masks=252, sampling="distinct")
    drawn = fixlip.estimate(smooth(), n=8, masks=252, sampling="independent")
    assert found.stderr.e2.max() < 0.5 * drawn.stderr.e2.max()


def test_a_game_of_two_sides_keeps_its_names_and_descriptions():
    image, text = Polynomial(5, seed=1), Smooth(3, width=8, seed=2, info={"kind": "text"})
    found = fixlip.estimate(fixlip.Game(image, text), masks=256)
    assert found.players == (*image.names, *text.names) and found.cross.shape == (5, 3)
    assert found.info["text"] == {"kind": "text"} and found.info["fit"]["masks"] == 256
    swept = [fixlip.sweep(s, masks=2**s.n) for s in (image, text)]
    assert distance(found, fixlip.solve(*swept)) < 1e-9


BANZHAF = [("banzhaf", p) for p in (0.001, 0.5, 0.999)]


@pytest.mark.parametrize(("index", "p"), [*BANZHAF, ("shapley", 0.5)])
@pytest.mark.parametrize("n", [1, 2, 3, 11])
def test_degenerate_cases_are_finite(n, p, index):
    games = (smooth(n), lambda masks: torch.full((len(masks),), 3.0))
    budgets = {m for m in (2, 3, 4, 12, 70) if m >= min(3, 2**n)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for game in games:
            for m in budgets:
                for order in (1, 2):
                    for ridge in (0, "auto"):
                        e = fixlip.estimate(
                            game, n=n, index=index, p=p, masks=m, order=order, ridge=ridge
                        )
                        numbers = np.concatenate([[e.e0], e.e1, e.e2.ravel()])
                        assert np.isfinite(numbers).all()
                        if game is games[1]:  # a constant is explained by itself
                            assert e.e0 == pytest.approx(3, abs=1e-9)
                            assert np.abs(numbers[1:]).max() < 1e-9


@pytest.mark.filterwarnings("ignore:.*say nothing of the errors:UserWarning")
def test_one_mask_of_ones_own():
    one = MaskSample(torch.tensor([[True, False, True]]), torch.ones(1))
    for index in ("banzhaf", "shapley"):
        with pytest.warns(UserWarning, match="undetermined"):
            e = fixlip.estimate(smooth(3), n=3, index=index, masks=one)
        assert np.isfinite(e.e1).all() and np.isfinite(e.e2).all()
        assert e.info["fit"]["masks"] == 3


@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
def test_open_terms_are_warned_about(index):
    with pytest.warns(UserWarning, match=r"leave \d+ of \d+ first-order terms undetermined"):
        fixlip.estimate(smooth(), n=8, index=index, masks=6)
    with pytest.warns(UserWarning, match=r"masks (leave|do not determine)"):
        fixlip.estimate(smooth(), n=8, index=index, masks=24, ridge=0)


@pytest.mark.parametrize(
    "returned", [lambda v: v, lambda v: v.numpy(), lambda v: v.tolist(), lambda v: v.float()]
)
def test_values_may_be_torch_or_numpy(returned):
    game = smooth(3)
    found = fixlip.estimate(lambda masks: returned(game(masks)), n=3, masks=8)
    assert distance(found, fixlip.estimate(game, n=3, masks=8)) < 1e-5


@pytest.mark.parametrize(
    ("game", "options", "error", "message"),
    [
        (smooth(), {"n": None}, ValueError, "how many players"),
        (Counted(smooth(), 8), {"n": 7}, ValueError, "8 players, and n=7"),
        (smooth(), {"index": "owen"}, ValueError, "index must be"),
        (smooth(), {"order": 3}, ValueError, "order must be 1 or 2"),
        (smooth(), {"ridge": -1}, ValueError, "ridge must be"),
        (smooth(), {"p": 1.0}, ValueError, "strictly between 0 and 1"),
        (smooth(), {"masks": 2}, ValueError, "budget of 2 masks is too small"),
        (smooth(), {"masks": 2, "index": "shapley"}, ValueError, "give 3 or more"),
        (smooth(), {"masks": 0}, ValueError, "1 or more"),
        (smooth(), {"masks": 99.5}, ValueError, "whole number"),
        (smooth(), {"masks": bernoulli(7, 9)}, ValueError, r"\(masks, 8\)"),
        (smooth(), {"masks": bernoulli(8, 9, p=0.99), "index": "shapley"}, ValueError, "leave out"),
        (smooth(), {"sampling": "sobol"}, ValueError, "sampling must be"),
        (smooth(), {"sampling": "antithetic", "index": "shapley"}, ValueError, "sampling must be"),
        (smooth(), {"sampling": "sobol", "masks": 256}, ValueError, "sampling must be"),
        (smooth(), {"p": "x", "index": "shapley"}, ValueError, "p is the probability"),
        (smooth(), {"p": 7, "masks": bernoulli(8, 9)}, ValueError, "p is the probability"),
        (smooth(), {"seed": "x", "masks": bernoulli(8, 9)}, ValueError, "seed must be"),
        (smooth(), {"sampling": "x", "masks": bernoulli(8, 9)}, ValueError, "sampling must be"),
        (lambda masks: masks.sum(1).double() * 1e-90, {}, ValueError, "largest value is 8e.90 in"),
        (lambda masks: masks.sum(1).double() * 1e90, {}, ValueError, "largest value is 8e.90 in"),
        (smooth(), {"ridge": "much", "masks": 256}, ValueError, "ridge must be"),
        (lambda masks: masks.sum(1), {"n": 8.7}, ValueError, "whole number"),
        (lambda masks: torch.zeros(3), {}, ValueError, r"returned values of the shape \(3,\)"),
        (lambda masks: masks.double(), {}, ValueError, "one number per mask"),
        (lambda masks: masks.sum(1) / 0, {}, ValueError, "NaN or infinite"),
        (lambda masks: masks.sum(1) * 1j, {}, TypeError, "one real number"),
        (lambda masks: None, {}, TypeError, "NoneType"),
        (lambda masks: ["a"] * len(masks), {}, TypeError, "one real number"),
    ],
)
def test_errors_say_what_to_do(game, options, error, message):
    with pytest.raises(error, match=message):
        fixlip.estimate(game, **{"n": 8, "masks": 100, **options})


class TwoSides:
    """Any game, the first 7 of whose 10 players are of the image."""

    n, n_image = 10, 7
    names = tuple("abcdefghij")

    def __init__(self):
        self.game = smooth(10)

    def __call__(self, masks):
        return self.game(masks)


def literal(game, pairs, weights, Z):
    """e0, e1 and the terms of some pairs by weighted least squares on listed masks."""
    root = np.sqrt(weights)
    design = np.column_stack([np.ones(len(Z)), Z, *(Z[:, [i, j]].all(1) for i, j in pairs)])
    values = game(torch.from_numpy(Z)).numpy()
    found = np.linalg.lstsq(root[:, None] * design, root * values, rcond=None)[0]
    e2 = np.zeros((Z.shape[1],) * 2)
    for (i, j), term in zip(pairs, found[1 + Z.shape[1] :], strict=True):
        e2[i, j] = e2[j, i] = term
    return found[0], found[1 : 1 + Z.shape[1]], e2


@pytest.mark.parametrize("masks", [300, 1024])
@pytest.mark.parametrize("basis", ["cross", "top"])
@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
def test_a_basis_is_the_least_squares_fit_with_its_pairs(index, basis, masks):
    game, options = TwoSides(), {"index": index, "masks": masks, "ridge": 0}
    if index == "banzhaf":
        options["sampling"] = "distinct"
    found = fixlip.estimate(game, basis=basis, k=6, **options)
    pairs = [(i, j) for i in range(7) for j in range(7, 10)]
    if basis == "top":  # 5 text players at least, but there are 3; and 3 of the image
        first = np.abs(fixlip.estimate(game, order=1, **options).e1)
        kept = [*np.sort(np.argsort(-first[:7])[:3]), 7, 8, 9]
        pairs = list(itertools.combinations(kept, 2))
    if index == "banzhaf":
        sample = distinct(10, masks - 2 if masks < 1024 else masks)
        Z, weights = sample.masks.numpy(), sample.weights.numpy()
    else:
        sample = shapley_masks(10, min(masks - 2, 1022))
        Z = np.concatenate([sample.masks.numpy(), np.zeros((1, 10), bool), np.ones((1, 10), bool)])
        weights = np.concatenate([sample.weights.numpy(), [1e7, 1e7]])
    e0, e1, e2 = literal(game, pairs, weights, Z)
    assert found.e2 == pytest.approx(e2, abs=1e-6)
    assert found.e1 == pytest.approx(e1, abs=1e-6) and found.e0 == pytest.approx(e0, abs=1e-6)
    assert not found.stderr.e2[e2 == 0].any() and found.info["fit"]["basis"] == basis
    assert found.stderr.e1.any() == (masks < 1024)


def test_top_of_a_game_without_sides_keeps_the_strongest_of_all():
    game, _ = quadratic(8)
    found = fixlip.estimate(game, n=8, masks=256, basis="top", k=3)
    kept = np.flatnonzero(found.e2.any(0))
    assert len(kept) == 3
    assert set(kept) == set(
        np.argsort(-np.abs(fixlip.estimate(game, n=8, masks=256, order=1).e1))[:3]
    )


def test_order_one_of_many_players_needs_no_room_for_their_pairs():
    n = 600  # 180,000 pairs: rows of deviations would take 57 MB
    found = fixlip.estimate(
        lambda masks: masks[:, :3].all(1), n=n, order=1, masks=4 * n + 2, sampling="antithetic"
    )
    assert found.deviations.shape[1] == 1 + n and not found.stderr.e2.any()
    assert found.first_order().deviations.shape[1] == 1 + n


@pytest.mark.parametrize("sampling", ["distinct", "distinct-reference", "shapley"])
def test_more_players_than_a_float_can_count_masks_of(sampling):
    """From 1,024 players on, the number of all masks is beyond a float64."""
    n = 1100
    weights = torch.arange(n, dtype=torch.float64)
    how = {"index": "shapley"} if sampling == "shapley" else {"sampling": sampling}
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = fixlip.estimate(
            lambda masks: masks.double() @ weights, n=n, masks=2 * n + 400, order=1, **how
        )
    assert np.allclose(found.e1, weights, atol=0.5)


def white_noise(n, seed):
    """A game whose values have nothing to do with each other, and its values."""
    values = np.random.default_rng(seed).normal(size=2**n)
    return lambda masks: torch.from_numpy(values)[masks.long() @ 2 ** torch.arange(n)], values


@pytest.mark.filterwarnings("ignore:all masks but")
@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
def test_a_sample_of_nearly_all_masks_is_not_shrunk_as_if_it_were_noise(index):
    errors, inside = {"auto": [], 0: []}, []
    for seed in range(8):
        game, values = white_noise(9, seed)
        truth = (
            exact.weighted_banzhaf(values) if index == "banzhaf" else exact.faith_shapley(values)
        )
        for ridge, found in errors.items():
            e = fixlip.estimate(
                game, n=9, index=index, masks=510, ridge=ridge, sampling="distinct", seed=seed
            )
            off = (e.e2 - truth.e2)[np.triu_indices(9, 1)]
            found.append(np.square(off).mean())
            inside.append(np.abs(off) <= 1.96 * e.stderr.e2[np.triu_indices(9, 1)])
    assert np.mean(errors["auto"]) < 1.2 * np.mean(errors[0])  # was 14 times as much
    assert np.mean(inside) > 0.8  # was .6


@pytest.mark.parametrize("index", ["banzhaf", "shapley"])
@pytest.mark.parametrize("masks", [300, 700, 1014])
def test_bars_that_hold_by_chance_only_are_said_so(index, masks):
    """Intervals of white noise's pairs covered the truth in .6 to .8, some games' in none."""
    inside = []
    for seed in range(12):
        game, values = white_noise(10, seed)
        right = exact.weighted_banzhaf if index == "banzhaf" else exact.faith_shapley
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            e = fixlip.estimate(
                game, n=10, index=index, masks=masks, sampling="distinct", seed=seed
            )
        said = " ".join(str(one.message) for one in caught)
        if "interactions for noise" in said or "all masks but" in said:
            continue
        pairs = np.triu_indices(10, 1)
        off = np.abs(e.e2 - right(values).e2)[pairs]
        inside.append((off <= 1.96 * e.stderr.e2[pairs]).mean())
    assert not inside if masks == 1014 else min(inside) > 0.75 and np.mean(inside) > 0.88, inside


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("n", "masks"), [(3, 4), (3, 5), (5, 7), (5, 10), (8, 10), (10, 15)])
def test_few_masks_of_the_shapley_kernel_warn_that_their_bars_are_too_small(n, masks, order):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fixlip.estimate(lambda z: z.all(1), n=n, index="shapley", masks=masks, order=order)
    said = [str(one.message) for one in caught]
    few = "different masks are few for" if masks > n + 1 else "say nothing of the errors"
    assert any(few in message for message in said), said


def test_all_masks_of_the_shapley_kernel_given_as_a_sample_are_exact():
    game, values = white_noise(6, 0)
    found = fixlip.estimate(game, n=6, index="shapley", masks=shapley_masks(6, 62))
    assert distance(found, exact.faith_shapley(values)) < 1e-9 and not found.stderr.e2.any()


@pytest.mark.parametrize("p", [0.3, "x", None, (0.5, 0.5)])
def test_shapley_has_no_p(p):
    """A p that plays no part was taken without a word, whatever it was."""
    with pytest.raises(ValueError, match=r"have no p, got p=0.3|strictly between 0 and 1, got"):
        fixlip.estimate(smooth(4), n=4, index="shapley", masks=16, p=p)


@pytest.mark.parametrize("scale", [1e-60, 1e-45, 1e38, 1e60])
def test_error_bars_have_the_size_of_the_game(scale):
    """In float32 they became 0, which says "exact", or infinite."""
    plain = fixlip.estimate(smooth(8), n=8, masks=100)
    scaled = fixlip.estimate(lambda z: smooth(8)(z) * scale, n=8, masks=100)
    for one, other in zip(plain.stderr, scaled.stderr, strict=True):
        np.testing.assert_allclose(np.asarray(other) / scale, one, rtol=1e-4)
    quantity = scaled.stderr_of(fixlip.Explanation.attributions)
    np.testing.assert_allclose(
        quantity / scale, plain.stderr_of(fixlip.Explanation.attributions), rtol=1e-4
    )

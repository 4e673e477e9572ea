"""Exact quantities against slow literal definitions, shapiq's exact computer, and known games."""

import itertools
import math

import numpy as np
import pytest
import torch
from toy_games import Smooth, exact_terms

import fixlip
from fixlip.games import exact
from fixlip.sampler import enumerate_masks


def random_game(n, seed=0):
    return np.random.default_rng(seed).normal(size=2**n)


def as_function(values):
    """The game whose values are listed, as a function of masks."""
    n = len(values).bit_length() - 1
    return lambda masks: values[masks.numpy() @ 2 ** np.arange(n)]


def row(players):
    return sum(2**i for i in players)


def sets(n):
    return [s for k in range(n + 1) for s in itertools.combinations(range(n), k)]


def literal_index(values, players, p):
    """Expected discrete derivative, every other player kept with its own probability."""
    n = len(values).bit_length() - 1
    total = 0.0
    for others in sets(n):
        if set(others) & set(players):
            continue
        chance = math.prod(p[k] if k in others else 1 - p[k] for k in range(n) if k not in players)
        for k in range(len(players) + 1):
            for kept in itertools.combinations(players, k):
                total += chance * (-1) ** (len(players) - k) * values[row(others) + row(kept)]
    return total


@pytest.mark.parametrize("p", [0.5, 0.2, [0.1, 0.9, 0.4, 0.5]])
def test_every_interaction_is_its_definition(p):
    values = random_game(4)
    index = exact.interactions(values, p=p)
    for players in sets(4):
        expected = literal_index(values, players, np.broadcast_to(p, 4))
        assert index[row(players)] == pytest.approx(expected, abs=1e-12)


def test_moebius_coefficients_are_signed_sums_and_rebuild_the_game():
    values = random_game(5)
    coefficients = exact.moebius(values)
    for players in sets(5):
        signed = sum(
            (-1) ** (len(players) - k) * values[row(kept)]
            for k in range(len(players) + 1)
            for kept in itertools.combinations(players, k)
        )
        assert coefficients[row(players)] == pytest.approx(signed, abs=1e-12)
    rebuilt = [
        sum(coefficients[row(s)] for s in sets(5) if row(s) & r == row(s)) for r in range(32)
    ]
    np.testing.assert_allclose(rebuilt, values, atol=1e-12)


def test_shapley_values_are_the_mean_over_all_orders_of_arrival():
    values = random_game(4)
    gains = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for k, player in enumerate(order):
            gains[player] += values[row(order[: k + 1])] - values[row(order[:k])]
    np.testing.assert_allclose(exact.shapley_values(values), gains / 24, atol=1e-12)


def test_shapley_value_is_the_mean_banzhaf_value_over_p():
    values = random_game(6)
    nodes, weights = np.polynomial.legendre.leggauss(4)  # exact up to degree 7 in p
    mean = sum(
        w / 2 * exact.banzhaf_values(values, p=(1 + x) / 2)
        for x, w in zip(nodes, weights, strict=True)
    )
    np.testing.assert_allclose(exact.shapley_values(values), mean, atol=1e-12)


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.2, 0.2), (0.7, 0.4), (0.001, 0.999)])
def test_weighted_banzhaf_terms_are_the_definition(p):
    game = fixlip.Game(Smooth(4, seed=1), Smooth(3, seed=2))
    explanation = exact.weighted_banzhaf(exact.game_values(game), p=p, n_image=4)
    e0, e1, e2 = exact_terms(game, np.repeat(p, [4, 3]))
    assert explanation.e0 == pytest.approx(e0, rel=1e-11)
    np.testing.assert_allclose(explanation.e1, e1, atol=1e-11)
    np.testing.assert_allclose(explanation.e2, e2, atol=1e-11)
    assert explanation.cross.shape == (4, 3)


@pytest.mark.parametrize("order", [1, 2])
def test_polynomial_is_the_nearest_one_for_any_p_of_each_player(order):
    p, values = np.array([0.2, 0.5, 0.8, 0.35]), random_game(4)
    Z = enumerate_masks(4).masks.numpy()
    w = np.where(Z, p, 1 - p).prod(1)
    i, j = np.triu_indices(4, 1)
    design = np.column_stack([np.ones(16), Z, *(Z[:, [i, j]].all(1).T if order == 2 else ())])
    root = np.sqrt(w)
    fitted = design @ np.linalg.lstsq(root[:, None] * design, root * values, rcond=None)[0]
    e0, e1, e2 = exact.polynomial(values, p=p, order=order)
    np.testing.assert_allclose(e0 + Z @ e1 + ((Z @ e2) * Z).sum(1) / 2, fitted, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_faith_shapley_is_the_constrained_least_squares_fit(n, order):
    values = random_game(n)
    explanation = exact.faith_shapley(values, order=order)
    Z = enumerate_masks(n).masks.numpy()
    i, j = np.triu_indices(n, 1)
    design = np.column_stack([np.ones(2**n), Z, *(Z[:, [i, j]].all(1).T if order == 2 else ())])
    inside = (Z.sum(1) > 0) & (Z.sum(1) < n)
    kernel = np.array([1 / math.comb(n - 2, k - 1) for k in Z[inside].sum(1)])
    # Lagrange: minimise sum of kernel * residual^2 with both ends met exactly
    ends = design[[0, -1]]
    normal = design[inside].T @ (kernel[:, None] * design[inside])
    system = np.block([[normal, ends.T], [ends, np.zeros((2, 2))]])
    right = np.concatenate([design[inside].T @ (kernel * values[inside]), values[[0, -1]]])
    fitted = design @ np.linalg.lstsq(system, right, rcond=None)[0][:-2]
    np.testing.assert_allclose(explanation.value(Z), fitted, atol=1e-10)
    np.testing.assert_allclose(explanation.attributions(), exact.shapley_values(values), atol=1e-12)
    assert explanation.value(Z)[-1] == pytest.approx(values[-1], abs=1e-12)


@pytest.mark.slow
def test_shapiq_agrees():
    shapiq = pytest.importorskip("shapiq")
    values = exact.game_values(fixlip.Game(Smooth(4, seed=1), Smooth(3, seed=2)))
    values = values / np.abs(values).max()
    game = as_function(values)
    computer = shapiq.ExactComputer(
        n_players=7, game=lambda z: game(torch.as_tensor(np.atleast_2d(z)).bool())
    )
    ours = {"FBII": exact.weighted_banzhaf(values), "FSII": exact.faith_shapley(values)}
    for index, explanation in ours.items():
        theirs = fixlip.Explanation.from_shapiq(computer(index, order=2), n_image=0)
        assert explanation.e0 == pytest.approx(theirs.e0, abs=1e-8)
        np.testing.assert_allclose(explanation.e1, theirs.e1, atol=1e-8)
        np.testing.assert_allclose(explanation.e2, theirs.e2, atol=1e-8)
    for index, values_ in (
        ("SV", exact.shapley_values(values)),
        ("BV", exact.banzhaf_values(values)),
    ):
        np.testing.assert_allclose(computer(index, order=1).values[1:], values_, atol=1e-12)
    every = exact.interactions(values)
    theirs = computer("BII", order=4)
    for players, position in theirs.interaction_lookup.items():
        assert every[row(players)] == pytest.approx(theirs.values[position], abs=1e-12)


def eleven(masks):
    """A game of 11 players who earn nothing alone, and less for every pair that quarrels."""
    k = masks.sum(1).double()
    return torch.where(k > 1, k - 0.1 * k * (k - 1) / 2, 0)


def test_published_faith_banzhaf_values():
    # https://jmlr.org/papers/v24/22-0202.html, as in shapiq's tests: 1.08 and -0.113 (cut off)
    explanation = exact.weighted_banzhaf(exact.game_values(eleven, n=11))
    np.testing.assert_allclose(explanation.e1, 1.08, atol=5e-3)
    np.testing.assert_allclose(explanation.e2[np.triu_indices(11, 1)], -0.1 - 7 / 512, atol=1e-12)


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_axioms(p):
    one, two = random_game(5, 1), random_game(5, 2)
    both = exact.interactions(3 * one - two, p=p)
    np.testing.assert_allclose(
        both, 3 * exact.interactions(one, p=p) - exact.interactions(two, p=p), atol=1e-12
    )
    # player 5 adds 0.7 to everybody's coalition and does nothing else
    dummy = np.concatenate([one, one + 0.7])
    for e in (exact.weighted_banzhaf(dummy, p=p), exact.faith_shapley(dummy)):
        assert e.e1[5] == pytest.approx(0.7) and np.abs(e.e2[5]).max() < 1e-12
    # player 5 does what player 4 does
    Z = enumerate_masks(6).masks.numpy()
    twin = one[np.where(Z[:, 4] | Z[:, 5], 16, 0) + Z[:, :4] @ 2 ** np.arange(4)]
    for e in (exact.weighted_banzhaf(twin, p=p), exact.faith_shapley(twin)):
        assert e.e1[4] == pytest.approx(e.e1[5])
        np.testing.assert_allclose(e.e2[4, :4], e.e2[5, :4], atol=1e-12)


def test_sixteen_players_are_quick_and_right():
    rng = np.random.default_rng(0)
    e1, pairs = rng.normal(size=16), np.triu(rng.normal(size=(16, 16)), 1)
    known = fixlip.Explanation(0.3, e1, pairs + pairs.T, tuple("abcdefghijklmnop"), 0)
    values = exact.game_values(known.value, n=16)
    for found in (exact.weighted_banzhaf(values, p=0.3), exact.faith_shapley(values)):
        np.testing.assert_allclose(found.e1, known.e1, atol=1e-9)
        np.testing.assert_allclose(found.e2, known.e2, atol=1e-9)


def test_no_harm_at_extreme_p():
    for p in (0.0, 0.001, 0.999, 1.0):
        e = exact.weighted_banzhaf(random_game(8), p=p)
        assert np.isfinite(e.e1).all() and np.isfinite(e.e2).all() and np.isfinite(e.e0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.moebius(np.zeros(6)), r"2\*\*n masks .* shape \(6,\)"),
        (lambda: exact.interactions(np.zeros(8), p=1.2), "from 0 to 1"),
        (lambda: exact.interactions(np.zeros(8), p=[0.5, 0.5]), "one for each of 3 players"),
        (lambda: exact.weighted_banzhaf(np.zeros(8), p=[0.5] * 3), "exact.polynomial"),
        (lambda: exact.faith_shapley(np.zeros(8), order=3), "order must be 1 or 2"),
        (lambda: exact.game_values(eleven), "how many players"),
        (lambda: exact.game_values(eleven, n=40), "at most 24 players"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Shapley and weighted Banzhaf values against their definitions."""

import itertools

import numpy as np
import pytest
import torch
from toy_games import Smooth, all_masks, exact_terms

import fixlip
from fixlip.explainers.values import banzhaf_values, shapley_values
from fixlip.explanation import Explanation
from fixlip.paths import root

SOURCES = ("order 1", "order 2")


def sides(n_I=3, n_T=2):
    return Smooth(n_I, seed=0), Smooth(n_T, seed=1)


def literal_shapley(game, n):
    """The mean over all orders of joining."""
    value = {
        tuple(m): v for m, v in zip(all_masks(n).tolist(), game(all_masks(n)).tolist(), strict=True)
    }
    total = np.zeros(n)
    orders = list(itertools.permutations(range(n)))
    for order in orders:
        mask = [False] * n
        for player in order:
            before = value[tuple(mask)]
            mask[player] = True
            total[player] += value[tuple(mask)] - before
    return total / len(orders)


def test_shapley_values_are_the_mean_over_all_orders():
    image, text = sides()
    found = shapley_values(image, text, masks=32)
    game = fixlip.Game(image, text)
    np.testing.assert_allclose(found.values, literal_shapley(game, 5), atol=1e-10)
    assert found.n_image == 3 and found.players == (*image.names, *text.names)
    assert not found.stderr.any()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("masks", [32, 20])
def test_shapley_values_of_both_sources_are_efficient(source, masks):
    found = shapley_values(*sides(), masks=masks, source=source)
    assert found.values.sum() == pytest.approx(found.grand_value - found.empty_value, abs=1e-9)


def test_shapley_values_of_order_2_share_the_interactions_in_halves():
    image, text = sides()
    game = fixlip.Game(image, text)
    found = shapley_values(image, text, masks=20, source="order 2")
    fsii = fixlip.estimate(game, index="shapley", masks=20)
    shares = fsii.e1.copy()
    for i, j in itertools.permutations(range(5), 2):
        shares[i] += fsii.e2[i, j] / 2
    np.testing.assert_allclose(found.values, shares, atol=1e-10)
    sampled = shapley_values(image, text, masks=20)
    assert not np.allclose(found.values, sampled.values, atol=1e-3)
    # with all masks the sources agree
    exact = shapley_values(image, text, masks=32, source="order 2")
    np.testing.assert_allclose(exact.values, literal_shapley(game, 5), atol=1e-10)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("p", [0.5, (0.3, 0.7)])
def test_banzhaf_values_are_expected_differences(source, p):
    image, text = sides()
    found = banzhaf_values(image, text, p=p, masks=8, source=source)
    each = np.repeat(np.broadcast_to(p, 2), [3, 2])
    _, e1, e2 = exact_terms(fixlip.Game(image, text), each)
    np.testing.assert_allclose(found.values, e1 + e2 @ each, atol=1e-10)
    assert not found.stderr.any()


@pytest.mark.parametrize("source", SOURCES)
def test_sampled_banzhaf_values_have_error_bars_that_fit(source):
    image, text = Smooth(10, seed=0), Smooth(9, seed=1)
    truth = banzhaf_values(image, text, masks=1024).values
    found = banzhaf_values(image, text, masks=(400, 300), seed=3, source=source)
    error = np.abs(found.values - truth)
    assert (found.stderr > 0).all() and (error < 5 * found.stderr).all()


def test_sampled_shapley_values_approach_the_truth():
    image, text = Smooth(6, seed=0), Smooth(5, seed=1)
    truth = shapley_values(image, text, masks=2**11).values
    found = shapley_values(image, text, masks=1500)
    assert np.corrcoef(found.values, truth)[0, 1] > 0.99
    assert (found.stderr > 0).all()


def test_the_same_seed_gives_the_same_values():
    image, text = Smooth(9, seed=0), Smooth(8, seed=1)
    for method, masks in ((shapley_values, 200), (banzhaf_values, 100)):
        one, two, other = (method(image, text, masks=masks, seed=s).values for s in (4, 4, 5))
        assert one.tolist() == two.tolist() != other.tolist()


def test_one_player_per_side():
    image, text = sides(1, 1)
    v = [float(x) for x in fixlip.Game(image, text)(all_masks(2))]  # nothing, text, image, both
    expected = [(v[2] - v[0] + v[3] - v[1]) / 2, (v[1] - v[0] + v[3] - v[2]) / 2]
    for method in (shapley_values, banzhaf_values):
        np.testing.assert_allclose(method(image, text, masks=4).values, expected)


def test_values_as_an_explanation_rank_and_evaluate():
    found = banzhaf_values(*sides())
    e = found.to_explanation()
    assert isinstance(e, Explanation)
    assert e.value(torch.ones(1, 5, dtype=torch.bool))[0] == pytest.approx(found.values.sum())
    assert e.info["fit"]["method"] == "banzhaf values"


def test_on_a_model_the_scale_is_its_own_and_two_images_pair():
    encoder = fixlip.load("demo-clip", device="cpu")
    image = encoder.image(root() / "data/scenes/val/000000000209.png", players="3x3")
    text = encoder.text("a blue heart")
    found = shapley_values(image, text, masks=2**7)
    cosine = shapley_values(image, text, masks=2**7, scale=1.0, bias=0.0)
    np.testing.assert_allclose(found.values, encoder.logit_scale * cosine.values, rtol=1e-6)
    assert found.grand_value == pytest.approx(
        encoder.logit(image.picture, "a blue heart"), abs=1e-3
    )
    assert found.to_explanation().on_grid(found.image).shape == (6, 6)
    twice = banzhaf_values(image, image, masks=16)
    np.testing.assert_allclose(twice.image, twice.text, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [shapley_values, banzhaf_values])
def test_refusals(method):
    with pytest.raises(ValueError, match='source must be "order 1" or "order 2", got \'both\''):
        method(*sides(), source="both")
    models = [{"model": {"name": m, "fingerprint": m}} for m in "xy"]
    with pytest.raises(ValueError, match="make both sides with the same encoder"):
        method(Smooth(2, info=models[0]), Smooth(2, info=models[1]), masks=16)
    with pytest.raises(ValueError):
        method(*sides(), masks=0)

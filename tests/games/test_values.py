"""Shapley and weighted Banzhaf values against their definitions, by fits of either order."""

import itertools

import numpy as np
import pytest
import torch
from toy_games import Smooth, all_masks, exact_terms

import fixlip
from fixlip.checks import per_side
from fixlip.paths import root
from fixlip.sampler import side_seeds

ORDERS = (1, 2)


def sides(n_I=3, n_T=2):
    return Smooth(n_I, seed=0), Smooth(n_T, seed=1)


def shapley_values(image, text, *, masks, seed=0, order=1, **scale):
    """First-order Shapley values: of a fit of order 1, or out of the interactions of order 2."""
    game = fixlip.Game(image, text, **scale)
    e = fixlip.estimate(game, index="shapley", masks=masks, order=order, seed=seed)
    return e.first_order()


def banzhaf_values(image, text, *, masks, p=0.5, seed=0, order=1):
    """Weighted Banzhaf values, alike."""
    each = zip(
        (image, text), per_side("masks", masks), per_side("p", p), side_seeds(seed), strict=True
    )
    swept = [fixlip.sweep(s, masks=m, p=q, seed=r) for s, m, q, r in each]
    return fixlip.solve(*swept, order=order).first_order()


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
    np.testing.assert_allclose(found.e1, literal_shapley(game, 5), atol=1e-10)
    assert found.n_image == 3 and found.players == (*image.names, *text.names)
    assert not found.stderr.e1.any()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("masks", [32, 20])
def test_shapley_values_of_both_sources_are_efficient(order, masks):
    found = shapley_values(*sides(), masks=masks, order=order)
    assert found.e1.sum() == pytest.approx(found.grand_value - found.empty_value, abs=1e-9)


def test_shapley_values_of_order_2_share_the_interactions_in_halves():
    image, text = sides()
    game = fixlip.Game(image, text)
    found = shapley_values(image, text, masks=20, order=2)
    fsii = fixlip.estimate(game, index="shapley", masks=20)
    shares = fsii.e1.copy()
    for i, j in itertools.permutations(range(5), 2):
        shares[i] += fsii.e2[i, j] / 2
    np.testing.assert_allclose(found.e1, shares, atol=1e-10)
    sampled = shapley_values(image, text, masks=20)
    assert not np.allclose(found.e1, sampled.e1, atol=1e-3)
    # with all masks the sources agree
    exact = shapley_values(image, text, masks=32, order=2)
    np.testing.assert_allclose(exact.e1, literal_shapley(game, 5), atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("p", [0.5, (0.3, 0.7)])
def test_banzhaf_values_are_expected_differences(order, p):
    image, text = sides()
    found = banzhaf_values(image, text, p=p, masks=8, order=order)
    each = np.repeat(np.broadcast_to(p, 2), [3, 2])
    _, e1, e2 = exact_terms(fixlip.Game(image, text), each)
    np.testing.assert_allclose(found.e1, e1 + e2 @ each, atol=1e-10)
    assert not found.stderr.e1.any()


@pytest.mark.parametrize("order", ORDERS)
def test_sampled_banzhaf_values_have_error_bars_that_fit(order):
    image, text = Smooth(10, seed=0), Smooth(9, seed=1)
    truth = banzhaf_values(image, text, masks=1024).e1
    found = banzhaf_values(image, text, masks=(400, 300), seed=3, order=order)
    error = np.abs(found.e1 - truth)
    assert (found.stderr.e1 > 0).all() and (error < 5 * found.stderr.e1).all()


def test_sampled_shapley_values_approach_the_truth():
    image, text = Smooth(6, seed=0), Smooth(5, seed=1)
    truth = shapley_values(image, text, masks=2**11).e1
    found = shapley_values(image, text, masks=1500)
    assert np.corrcoef(found.e1, truth)[0, 1] > 0.99
    assert (found.stderr.e1 > 0).all()


def test_the_same_seed_gives_the_same_values():
    image, text = Smooth(9, seed=0), Smooth(8, seed=1)
    for method, masks in ((shapley_values, 200), (banzhaf_values, 100)):
        one, two, other = (method(image, text, masks=masks, seed=s).e1 for s in (4, 4, 5))
        assert one.tolist() == two.tolist() != other.tolist()


def test_one_player_per_side():
    image, text = sides(1, 1)
    v = [float(x) for x in fixlip.Game(image, text)(all_masks(2))]  # nothing, text, image, both
    expected = [(v[2] - v[0] + v[3] - v[1]) / 2, (v[1] - v[0] + v[3] - v[2]) / 2]
    for method in (shapley_values, banzhaf_values):
        np.testing.assert_allclose(method(image, text, masks=4).e1, expected)


@pytest.mark.parametrize("p", [0.5, (0.3, 0.8)])
def test_the_first_order_of_an_explanation_is_its_best_fit_of_order_1(p):
    image, text = sides(4, 3)
    e = fixlip.solve(
        *(
            fixlip.sweep(s, masks=16, p=q)
            for s, q in zip((image, text), per_side("p", p), strict=True)
        )
    )
    masks = all_masks(7)
    keep = torch.tensor(e.keep_probability)
    w = torch.where(masks, keep, 1 - keep).prod(1).sqrt().numpy()
    design = np.column_stack([np.ones(len(masks)), masks.numpy()])
    slow = np.linalg.lstsq(design * w[:, None], e.value(masks) * w, rcond=None)[0]
    np.testing.assert_allclose([e.first_order().e0, *e.first_order().e1], slow, atol=1e-9)
    assert not e.first_order().e2.any()


def test_error_bars_go_with_the_first_order():
    swept = (fixlip.sweep(Smooth(9, seed=0), masks=60), fixlip.sweep(Smooth(8, seed=1), masks=50))
    e = fixlip.solve(*swept)
    bars = e.stderr_of(fixlip.Explanation.attributions)
    np.testing.assert_allclose(e.first_order().stderr.e1, bars, rtol=1e-5)
    assert fixlip.solve(*swept, errors=False).first_order().stderr is None


def test_on_a_model_the_scale_is_its_own_and_two_images_pair():
    encoder = fixlip.load("demo-clip", device="cpu")
    image = encoder.image(root() / "data/scenes/val/000000000209.png", players="3x3")
    text = encoder.text("a blue heart")
    found = shapley_values(image, text, masks=2**7)
    cosine = shapley_values(image, text, masks=2**7, scale=1.0, bias=0.0)
    np.testing.assert_allclose(found.e1, encoder.logit_scale * cosine.e1, rtol=1e-6)
    assert found.grand_value == pytest.approx(
        encoder.logit(image.picture, "a blue heart"), abs=1e-3
    )
    assert found.on_grid(found.e1[: found.n_image]).shape == (6, 6)
    twice = banzhaf_values(image, image, masks=16)
    half = twice.n_image
    np.testing.assert_allclose(twice.e1[:half], twice.e1[half:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [shapley_values, banzhaf_values])
def test_sides_of_two_models_are_refused(method):
    models = [{"model": {"name": m, "fingerprint": m}} for m in "xy"]
    with pytest.raises(ValueError, match="make both sides with the same encoder"):
        method(Smooth(2, info=models[0]), Smooth(2, info=models[1]), masks=16)
    with pytest.raises(ValueError, match="masks must be a whole number"):
        method(*sides(), masks=0)

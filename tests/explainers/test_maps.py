"""Factors, pairs of factors, and first-order maps."""

import numpy as np
import pytest
from toy_games import Smooth

import fixlip
from fixlip.explainers import Factor, FactorPair, FirstOrderMap, banzhaf
from fixlip.paths import root

IMAGE = root() / "data/scenes/val/000000000209.png"
CAPTION = "a blue heart left of a red arrow"


@pytest.fixture(scope="module")
def encoder():
    return fixlip.load("demo-clip", device="cpu")


def random_pair(n_I=5, n_T=3, width=4, scale=2.0, **changes):
    rng = np.random.default_rng(0)
    image = Factor(
        rng.normal(size=(n_I, width)),
        tuple(f"p{i}" for i in range(n_I)),
        "image",
        rng.normal(size=(1, width)),
        ("CLS",),
    )
    text = Factor(
        rng.normal(size=(n_T, width)),
        tuple(f"w{i}" for i in range(n_T)),
        "text",
        rng.normal(size=(2, width)),
        ("start", "end"),
    )
    return FactorPair(image, text, scale, **changes)


# --- factors and pairs -----------------------------------------------------------------------


def test_the_map_is_the_scaled_inner_products_and_special_tokens_come_first():
    pair = random_pair()
    for i in range(5):
        for t in range(3):
            product = sum(pair.image.vectors[i, d] * pair.text.vectors[t, d] for d in range(4))
            assert pair.cross[i, t] == pytest.approx(2 * product)
    assert pair.full.shape == (6, 5)
    np.testing.assert_allclose(pair.full[1:, 2:], pair.cross)
    assert pair.full[0, 1] == pytest.approx(2 * pair.image.special[0] @ pair.text.special[1])
    assert pair.cross.dtype == np.float64


@pytest.mark.parametrize(("variant", "over"), [("mean", True), ("sum", False)])
def test_first_order_is_the_mean_or_sum_over_the_other_sides_players(variant, over):
    pair = random_pair()
    first = pair.first_order(variant)
    for i in range(5):
        total = sum(pair.cross[i, t] for t in range(3))
        assert first.image[i] == pytest.approx(total / 3 if over else total)
    for t in range(3):
        total = sum(pair.cross[i, t] for i in range(5))
        assert first.text[t] == pytest.approx(total / 5 if over else total)
    assert first.players == (*pair.image.players, *pair.text.players)
    assert first.info["fit"]["variant"] == variant
    assert pair.first_order().image.tolist() == pair.first_order("mean").image.tolist()


def test_as_an_explanation_a_pair_has_cross_terms_only():
    pair = random_pair(empty_value=0.5, grand_value=3.0)
    e = pair.to_explanation()
    assert (e.e0, e.p, e.n_image) == (0.0, (0.5, 0.5), 5) and not e.e1.any()
    np.testing.assert_array_equal(e.cross, pair.cross)
    np.testing.assert_array_equal(e.e2, e.e2.T)
    assert not e.e2[:5, :5].any() and not e.e2[5:, 5:].any()
    assert (e.empty_value, e.grand_value) == (0.5, 3.0)
    assert e.value(np.ones((1, 8), bool))[0] == pytest.approx(pair.cross.sum())


def test_words_give_maps_and_patches_give_scores():
    pair = random_pair()
    np.testing.assert_allclose(pair.given("w1"), pair.cross[:, 1])
    np.testing.assert_allclose(pair.given(["w0", "w2"]), pair.cross[:, 0] + pair.cross[:, 2])
    np.testing.assert_allclose(pair.given(["p1", "p4"]), pair.cross[1] + pair.cross[4])
    weights = np.array([0, 1, 0, 0, 0.5])
    np.testing.assert_allclose(pair.words_in(weights), pair.cross[1] + pair.cross[4] / 2)
    with pytest.raises(ValueError, match="5 players and needs a weight for each"):
        pair.words_in(np.ones(4))


def test_a_first_order_map_as_an_explanation():
    first = FirstOrderMap([1.0, 2.0], [3.0], ["a", "b", "c"], 2, grand_value=7.0)
    e = first.to_explanation()
    assert e.e1.tolist() == first.values.tolist() == [1.0, 2.0, 3.0]
    assert not e.e2.any() and e.e0 == 0 and e.grand_value == 7
    assert e.attributions().tolist() == [1.0, 2.0, 3.0]
    assert "2 image + 1 text" in repr(first)


def test_single_players_and_empty_special_tokens():
    pair = FactorPair(Factor([[2.0]], ("a",), "image"), Factor([[3.0]], ("b",), "text"))
    assert pair.cross.tolist() == pair.full.tolist() == [[6.0]]
    assert pair.first_order().values.tolist() == [6.0, 6.0]


# --- refusals --------------------------------------------------------------------------------


def test_factors_of_different_models_methods_or_widths_do_not_pair():
    def factor(kind, width=2, model="x", method="m"):
        info = {"model": {"name": model, "fingerprint": model}, "method": method}
        return Factor(np.ones((1, width)), ("a",), kind, info=info)

    FactorPair(factor("image"), factor("image"))  # two images do
    with pytest.raises(ValueError, match=r"one side belongs to x .* and the other to y"):
        FactorPair(factor("image"), factor("text", model="y"))
    with pytest.raises(ValueError, match="made by 'm' and the other by 'k'"):
        FactorPair(factor("image"), factor("text", method="k"))
    with pytest.raises(ValueError, match="width 2 and 3"):
        FactorPair(factor("image"), factor("text", width=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sound"}, 'of kind "image" or "text", got \'sound\''),
        ({"players": ("a",)}, r"1 players need vectors of shape \(1, D\), got \(2, 3\)"),
        ({"vectors": np.ones(2)}, r"2 players need vectors of shape \(2, D\), got \(2,\)"),
        ({"vectors": np.full((2, 3), np.nan)}, "6 values of the map are NaN"),
        ({"special_names": ("CLS",)}, r"1 special tokens need vectors of shape \(1, 3\)"),
    ],
)
def test_bad_factors_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Factor(**{"vectors": np.ones((2, 3)), "players": ("a", "b"), "kind": "image", **change})


def test_bad_first_order_maps_and_variants_are_refused():
    with pytest.raises(ValueError, match=r"values of shape \(1,\) and \(2,\), got \(2,\) and"):
        FirstOrderMap([1, 2], [3], ("a", "b", "c"), 1)
    with pytest.raises(ValueError, match="1 values of the map are NaN"):
        FirstOrderMap([1], [np.inf], ("a", "b"), 1)
    with pytest.raises(ValueError, match=r"stderr must have shape \(2,\)"):
        FirstOrderMap([1], [2], ("a", "b"), 1, stderr=np.ones(3))
    with pytest.raises(ValueError, match='"mean" or "sum", got \'max\''):
        random_pair().first_order("max")


# --- sides of a model ------------------------------------------------------------------------


def test_a_groups_vector_is_the_sum_of_its_units(encoder):
    side = encoder.image(IMAGE, players="3x3")
    units = np.random.default_rng(0).normal(size=(36, 4))
    made = Factor.from_units(side, units, method="m", options={"steps": 3})
    for player in range(side.n):
        own = [units[u] for u in range(36) if side.players.owner[u] == player]
        np.testing.assert_allclose(made.vectors[player], sum(own))
    assert made.info["method"] == "m" and made.info["options"] == {"steps": 3}
    assert made.kind == "image" and made.players == side.names and made.picture is side.picture
    with pytest.raises(ValueError, match="36 patches or tokens and needs a vector for each"):
        Factor.from_units(side, units[1:], method="m", options={})


def test_a_pair_of_model_sides_has_a_grid_and_survives_a_file(encoder, tmp_path):
    image, text = encoder.image(IMAGE), encoder.text(CAPTION)
    rng = np.random.default_rng(0)
    pair = FactorPair(
        *(
            Factor.from_units(s, rng.normal(size=(s.n, 4)), method="m", options={})
            for s in (image, text)
        )
    )
    e = pair.to_explanation()
    grid = e.on_grid(pair.given("heart"))
    assert grid.shape == (6, 6)
    np.testing.assert_array_equal(grid.ravel(), pair.cross[:, 2])
    back = fixlip.Explanation.load(e.save(tmp_path / "pair.npz"))
    assert back.info["fit"]["method"] == "m" and np.array_equal(back.e2, e.e2)
    first = pair.first_order()
    assert first.to_explanation().on_grid(first.image).shape == (6, 6)


def test_two_images_pair(encoder):
    side = encoder.image(IMAGE)
    one = Factor.from_units(side, np.eye(36), method="m", options={})
    e = FactorPair(one, one).to_explanation()
    assert e.cross.shape == (36, 36) and e.on_grid(e.cross[:, 3], "text")[0, 3] == 1


# --- FIxLIP's own factors --------------------------------------------------------------------


@pytest.mark.parametrize("masks", [(60, 8), (400, 100), (40, 30)])
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_banzhaf_factors_give_the_cross_terms_of_the_fit(masks, p):
    image = fixlip.sweep(Smooth(12, seed=0), masks=masks[0], p=p, seed=1)
    text = fixlip.sweep(Smooth(7, seed=1), masks=masks[1], p=p, seed=2)
    solved = fixlip.solve(image, text, errors=False)
    pair = banzhaf.explain(image, text)
    np.testing.assert_allclose(pair.cross, solved.cross, atol=1e-9)
    assert pair.empty_value == solved.empty_value and pair.grand_value == solved.grand_value
    crossed = fixlip.solve(image, text, basis="cross", errors=False)
    np.testing.assert_allclose(pair.full[1:, 1:], crossed.cross, atol=1e-9)


def test_one_image_factor_pairs_with_many_captions():
    image = fixlip.sweep(Smooth(6, seed=0), masks=64)
    factor = banzhaf.factor(image)
    for seed in (1, 3):
        text = fixlip.sweep(Smooth(4, seed=seed), masks=16)
        pair = FactorPair(factor, banzhaf.factor(text))
        np.testing.assert_allclose(pair.cross, fixlip.solve(image, text).cross, atol=1e-9)


def test_the_sum_of_everything_is_the_fitted_value_with_everything_kept():
    image, text = (
        fixlip.sweep(Smooth(5, seed=0), masks=32),
        fixlip.sweep(Smooth(3, seed=1), masks=8),
    )
    fitted = []
    for swept in (image, text):
        design = np.column_stack([np.ones(swept.sample.m), swept.masks.numpy()])
        terms = np.linalg.lstsq(design, swept.embeddings.numpy(), rcond=None)[0]
        fitted.append(terms.sum(0))
    assert banzhaf.explain(image, text).full.sum() == pytest.approx(fitted[0] @ fitted[1])


def test_banzhaf_factors_refuse_other_models_and_bad_penalties():
    def swept(model):
        return fixlip.sweep(Smooth(3, info={"model": {"name": model, "fingerprint": model}}))

    with pytest.raises(ValueError, match="make both sides with the same encoder"):
        banzhaf.explain(swept("x"), swept("y"))
    with pytest.raises(ValueError, match="ridge must be"):
        banzhaf.factor(swept("x"), ridge="much")

"""Factors and their pairing: the inner products of two sides' vectors, whatever made them."""

import itertools
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_games import Smooth

import fixlip
from fixlip import Factor, pair
from fixlip.paths import root

IMAGE = root() / "data/scenes/val/000000000209.png"
CAPTION = "a blue heart left of a red arrow"


def random_factors(n_I=5, n_T=3, width=4, **changes):
    rng = np.random.default_rng(0)
    image = Factor(
        rng.normal(size=(n_I, width)),
        tuple(f"p{i}" for i in range(n_I)),
        "image",
        special=rng.normal(size=(1, width)),
        special_names=("CLS",),
        **changes,
    )
    text = Factor(
        rng.normal(size=(n_T, width)),
        tuple(f"w{i}" for i in range(n_T)),
        "text",
        special=rng.normal(size=(2, width)),
        special_names=("start", "end"),
        **changes,
    )
    return image, text


def swept(n, masks, p=0.5, seed=0, **options):
    return fixlip.sweep(Smooth(n, seed=n, **options), masks=masks, p=p, seed=seed)


# --- any factors -----------------------------------------------------------------------------


def test_the_map_is_the_scaled_inner_products_and_special_tokens_come_first():
    image, text = random_factors()
    cross = pair(image, text, scale=2).cross
    for i, t in itertools.product(range(5), range(3)):
        product = sum(float(image.first[i, d] * text.first[t, d]) for d in range(4))
        assert cross[i, t] == pytest.approx(2 * product)
    everything = pair(image.with_special(), text.with_special(), scale=2)
    assert everything.cross.shape == (6, 5)
    assert everything.players == ("CLS", *image.names, "start", "end", *text.names)
    np.testing.assert_allclose(everything.cross[1:, 2:], cross)
    expected = 2 * float(image.special[0] @ text.special[1])
    assert everything.cross[0, 1] == pytest.approx(expected)
    assert cross.dtype == np.float64


def test_vectors_alone_give_cross_terms_only():
    ends = torch.tensor([[1.0, 0, 0, 0], [2.0, 1, 0, 0]])
    image, text = random_factors(ends=ends)
    e = pair(image, text, scale=2, bias=3)
    assert (e.e0, e.p, e.n_image) == (0.0, (0.5, 0.5), 5) and not e.e1.any()
    np.testing.assert_array_equal(e.e2, e.e2.T)
    assert not e.e2[:5, :5].any() and not e.e2[5:, 5:].any()
    assert (e.empty_value, e.grand_value) == (2 * 1 + 3, 2 * 5 + 3)
    assert e.value(np.ones((1, 8), bool))[0] == pytest.approx(e.cross.sum())
    assert e.deviations is None and e.stderr is None
    assert np.isnan(pair(*random_factors()).grand_value)


def test_words_give_maps_and_patches_give_scores():
    e = pair(*random_factors())
    np.testing.assert_allclose(e.given("w1"), e.cross[:, 1])
    np.testing.assert_allclose(e.given(["w0", "w2"]), e.cross[:, 0] + e.cross[:, 2])
    np.testing.assert_allclose(e.given(["p1", "p4"]), e.cross[1] + e.cross[4])


def test_lists_arrays_and_tensors_are_taken():
    vectors = [[2.0, 1.0]]
    for given in (vectors, np.array(vectors), torch.tensor(vectors)):
        found = pair(Factor(given, ("a",), "image"), Factor([[3, 0]], ("b",), "text"))
        assert found.cross.tolist() == [[6.0]]


def test_factors_of_different_models_methods_or_widths_do_not_pair():
    def factor(kind, width=2, model="x", method="m"):
        info = {"model": {"name": model, "fingerprint": model}}
        return Factor(np.ones((1, width)), ("a",), kind, method=method, info=info)

    pair(factor("image"), factor("image"))  # two images do
    with pytest.raises(ValueError, match=r"one side belongs to x .* and the other to y"):
        pair(factor("image"), factor("text", model="y"))
    with pytest.raises(ValueError, match=r"made by 'm', .* made by 'k'"):
        pair(factor("image"), factor("text", method="k"))
    with pytest.raises(ValueError, match=r"of width 2, .* of width 3"):
        pair(factor("image"), factor("text", width=3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sound"}, 'kind must be "image" or "text", got \'sound\''),
        ({"names": ("a",)}, r"1 players need vectors of shape \(1, D\), got \(2, 3\)"),
        ({"first": np.ones(2)}, r"2 players need vectors of shape \(2, D\), got \(2,\)"),
        ({"first": np.full((2, 3), np.nan)}, "6 numbers of a factor are NaN"),
        ({"special_names": ("CLS",)}, r"1 special tokens need vectors of shape \(1, 3\)"),
    ],
)
def test_bad_factors_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Factor(**{"first": np.ones((2, 3)), "names": ("a", "b"), "kind": "image", **change})


def test_a_map_of_model_sides_has_a_grid_and_survives_a_file(tmp_path):
    encoder = fixlip.load("demo-clip", device="cpu")
    rng = np.random.default_rng(0)
    image, text = (
        Factor(rng.normal(size=(s.n, 4)), s.names, s.info["kind"], method="m", info=s.info)
        for s in (encoder.image(IMAGE), encoder.text(CAPTION))
    )
    e = pair(image, text)
    np.testing.assert_array_equal(e.on_grid(e.given("heart")).ravel(), e.cross[:, 2])
    assert e.on_grid(e.given("heart")).shape == (6, 6)
    back = fixlip.Explanation.load(e.save(tmp_path / "pair.safetensors"))
    assert back.info["fit"]["method"] == "m" and np.array_equal(back.e2, e.e2)
    twice = pair(image, image)
    assert twice.cross.shape == (36, 36)
    assert twice.on_grid(twice.cross[:, 3], "text")[0, 3] == twice.cross[3, 3]


# --- fitted sides ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*terms undetermined")
@pytest.mark.parametrize("ridge", [0, "auto"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("p", "masks"), [(0.5, 100), (0.3, 40), (0.7, 2**9)])
def test_solving_is_fitting_and_pairing(p, masks, order, ridge):
    sides = swept(9, masks, p, seed=1), swept(6, 50, p, seed=2)
    together = fixlip.solve(*sides, order=order, ridge=ridge)
    one, two = (fixlip.fit(s, order=order, ridge=ridge) for s in sides)
    apart = pair(one, two, order=order)
    for name in ("e0", "e1", "e2", "deviations", "empty_value", "grand_value"):
        np.testing.assert_array_equal(getattr(apart, name), getattr(together, name))
    assert apart.info["image"] == together.info["image"] and apart.p == together.p


def test_one_image_pairs_with_many_captions():
    image = fixlip.fit(swept(6, 64))
    for n in (4, 5):
        text = swept(n, 2**n)
        found = pair(image, fixlip.fit(text))
        solved = fixlip.solve(swept(6, 64), text)
        np.testing.assert_array_equal(found.e2, solved.e2)
        np.testing.assert_array_equal(found.deviations, solved.deviations)


@pytest.mark.parametrize("masks", [(60, 8), (400, 100), (40, 30)])
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_the_vectors_are_the_slopes_of_the_embedding(masks, p):
    """Whatever the order of the side's own terms, and also where slopes are penalised."""
    image, text = swept(12, masks[0], p, seed=1), swept(7, masks[1], p, seed=2)
    solved = fixlip.solve(image, text)
    for order in (1, 2):
        J_I, J_T = (fixlip.fit(s, order=order, errors=False).first for s in (image, text))
        np.testing.assert_allclose((J_I @ J_T.T).numpy(), solved.cross, atol=1e-9)


def test_the_sum_of_everything_is_the_fitted_value_with_everything_kept():
    sides = swept(5, 32), swept(3, 8)
    ours, slow = [], []
    for side in sides:
        factor = fixlip.fit(side, order=1)
        ours.append((factor.origin + factor.first.sum(0)).numpy())
        design = np.column_stack([np.ones(side.sample.m), side.masks.numpy()])
        slow.append(np.linalg.lstsq(design, side.embeddings.numpy(), rcond=None)[0].sum(0))
    np.testing.assert_allclose(ours, slow, atol=1e-9)


def test_a_sides_own_terms_are_linear_in_the_vector():
    factor = fixlip.fit(swept(8, 100))
    width = factor.first.shape[1]
    v = torch.randn(width, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mixed = v @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    for three, one in zip(factor.own(v), factor.own(mixed), strict=True):
        expected = three[..., 0] - 2 * three[..., 1] + 0.5 * three[..., 2]
        np.testing.assert_allclose(one[..., 0], expected, atol=1e-9)


def test_the_terms_of_a_swapped_pair_are_the_same():
    one, two = fixlip.fit(swept(7, 60, seed=1)), fixlip.fit(swept(5, 20, seed=2))
    there, back = pair(one, two), pair(two, one)
    order = [*range(5, 12), *range(5)]
    assert there.e0 == pytest.approx(back.e0)
    np.testing.assert_allclose(there.e1, back.e1[order], atol=1e-12)
    np.testing.assert_allclose(there.e2, back.e2[np.ix_(order, order)], atol=1e-12)
    np.testing.assert_allclose(there.stderr.e2, back.stderr.e2[np.ix_(order, order)], rtol=1e-4)


def test_other_sides_of_a_factor_only_need_its_contract():
    """No polynomial: a side given by its expected differences pairs like a fitted one."""
    image = fixlip.fit(swept(4, 16))
    exact = fixlip.fit(swept(3, 8))
    e1, e2 = exact.own(torch.eye(exact.first.shape[1], dtype=torch.float64))[1:]
    origin = exact.own(torch.eye(exact.first.shape[1], dtype=torch.float64))[0]
    other = Factor(
        exact.first,
        exact.names,
        exact.kind,
        method="fixlip",
        mean=exact.mean,
        origin=exact.origin,
        own=lambda v: (origin @ v, e1 @ v, e2 @ v),
        ends=exact.ends,
    )
    np.testing.assert_allclose(pair(image, other).e2, pair(image, exact).e2, atol=1e-12)
    assert pair(image, other).deviations is None


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="ridge must be"):
        fixlip.fit(swept(3, 8), ridge="much")
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        fixlip.fit(swept(3, 8), order=3)
    one = fixlip.fit(swept(3, 8))
    with pytest.raises(ValueError, match="order=1"):
        pair(one, one, order=1)
    with pytest.raises(ValueError, match="k=3 keeps text players alone: give k of 4 or more"):
        fixlip.solve(swept(3, 8), swept(6, 64), basis="top", k=3)
    for model in "xy":
        info = {"model": {"name": model, "fingerprint": model}}
        with pytest.raises(ValueError, match="make both sides with the same encoder"):
            pair(one, fixlip.fit(swept(3, 8, info=info)))


def test_a_pair_says_how_each_side_was_made():
    """What both sides share once; what differs, by side; and cross terms of order-1 fits."""
    a, b = swept(7, 60), swept(5, 32)

    def fit_of(one, two, **options):
        return pair(fixlip.fit(a, **one), fixlip.fit(b, **two), **options).info["fit"]

    same = fit_of({"ridge": 0}, {"ridge": 0})
    assert same == {"method": "fixlip", "order": 2, "ridge": 0, "scale": 1.0, "bias": 0.0}
    other = fit_of({"among": [0, 2]}, {"ridge": 0, "order": 1})
    assert other["order"] == {"image": 2, "text": 1} and other["ridge"] == {
        "image": "auto",
        "text": 0,
    }
    assert other["among"] == {"image": [0, 2], "text": None}
    crossed = fit_of({"order": 1}, {"order": 1})
    assert (crossed["order"], crossed["basis"]) == (2, "cross")
    assert fit_of({"order": 1}, {"order": 1}, order=1)["order"] == 1
    top = fixlip.solve(a, b, basis="top", k=8)
    assert (top.info["fit"]["basis"], top.info["fit"]["k"]) == ("top", 8)
    assert {k: len(v) for k, v in top.info["fit"]["among"].items()} == {"image": 3, "text": 5}


class Times(Smooth):
    """A side in other units."""

    def __init__(self, unit):
        super().__init__(4, seed=1)
        self.unit = unit

    def embed(self, masks):
        return self.unit * super().embed(masks)


@pytest.mark.parametrize("unit", [1e-60, 1e-30, 1e30, 1e60])
def test_units_do_not_matter(unit):
    """Error bars were kept in float32, in which 1e-60 is 0 and 1e60 infinite."""
    plain, other = (
        fixlip.solve(fixlip.sweep(side, masks=12), fixlip.sweep(Smooth(3)))
        for side in (Times(1.0), Times(unit))
    )
    np.testing.assert_allclose(other.e2 / unit, plain.e2, atol=1e-9)
    np.testing.assert_allclose(other.stderr.e2 / unit, plain.stderr.e2, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: fixlip.fit("a dog"), TypeError, "expected a Sweep, got str: fixlip.sweep"),
        (lambda s: pair(s, s), TypeError, "expected a Factor, got Sweep: fixlip.fit"),
        (lambda s: fixlip.fit(s, among=[0, 9]), ValueError, r"players, 0 to 3, got \[0, 9\]"),
        (lambda s: fixlip.fit(s, among=[0, 0]), ValueError, "different players"),
        (lambda s: fixlip.fit(s, among=["dog"]), ValueError, "different players"),
        (
            lambda s: fixlip.fit(s, among=[True, False]),
            ValueError,
            r"players, .* got \[True, False",
        ),
        (lambda s: fixlip.fit(s, among=7), ValueError, r"different players, 0 to 3, got \[7\]"),
        (lambda s: fixlip.solve(s, "b"), TypeError, "expected a Sweep, got str"),
        (lambda s: fixlip.sweep("a.png"), TypeError, "expected a side, .*got str without n, names"),
        (lambda s: fixlip.Game(s, s), TypeError, "got Sweep without embed"),
        (lambda s: replace(s, ends=s.ends[:1]), ValueError, "ends of"),
        (lambda s: replace(s, embeddings=s.embeddings[1:]), ValueError, "16 masks need embeddings"),
        (
            lambda s: pair(fixlip.fit(s), fixlip.fit(s), scale=math.nan),
            ValueError,
            "scale must be a number",
        ),
        (lambda s: fixlip.solve(s, s, scale=0), ValueError, "with scale=0 every score is the bias"),
        (lambda s: fixlip.solve(s, s, scale=1e300), ValueError, r"the scale is 1e\+300 in size"),
        (lambda s: fixlip.sweep(Smooth(4), p="x", masks=s.sample), ValueError, "p is the prob"),
        (lambda s: fixlip.sweep(Smooth(4), seed=-1, masks=s.sample), ValueError, "seed must be"),
        (lambda s: fixlip.sweep(Smooth(4), sampling=1, masks=s.sample), ValueError, "sampling mu"),
        (lambda s: fixlip.sweep(Times(1e-90)), ValueError, r"embeddings is .*e-89 in size"),
        (
            lambda s: pair(fixlip.fit(s), fixlip.fit(s), bias="1"),
            ValueError,
            "bias must be a number",
        ),
    ],
)
def test_what_does_not_fit_or_pair_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(fixlip.sweep(Smooth(4, seed=1), masks=16))


def test_players_that_no_mask_tells_apart_are_warned_about_under_any_penalty():
    rare = fixlip.sweep(Smooth(20, seed=1), masks=100, p=0.001)  # most players are never kept
    with pytest.warns(UserWarning, match=r"\d+ of 21 terms undetermined.* Use more masks\.$"):
        found = fixlip.fit(rare)
    assert torch.isfinite(found.first).all()


def test_factors_go_through_pickle():
    """To another process, for instance: with error bars, and to the same explanation."""
    sides = [fixlip.fit(swept(7, 60)), fixlip.fit(swept(5, 32))]
    here, there = pair(*sides), pair(*pickle.loads(pickle.dumps(sides)))
    np.testing.assert_array_equal(here.e2, there.e2)
    np.testing.assert_array_equal(here.stderr.e2, there.stderr.e2)


def test_explanations_do_not_share_their_records():
    """A change of one was seen in all others that the same factor is in, and in the factor."""
    image, text = (fixlip.fit(fixlip.sweep(Smooth(4, seed=k))) for k in (1, 2))
    image.info["grid"] = [2, 2]
    one, other = pair(image, text), pair(image, text)
    one.info["image"]["grid"][0] = 0
    assert other.info["image"]["grid"] == image.info["grid"] == [2, 2]

"""The product explanation against its definition: a projection, expected derivatives, files."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from toy_games import Polynomial, Smooth, all_masks

import fixlip.solver.product as product
from fixlip.explanation import Explanation
from fixlip.files import read_arrays, write_arrays
from fixlip.games.game import Game
from fixlip.sampler import MaskSample, sweep
from fixlip.solver import solve, solve_dense
from fixlip.solver.dense import dense_fit
from fixlip.solver.product import ProductExplanation


def swept(n_I=7, n_T=6, m=60, p=(0.4, 0.6), sampling="independent", seed=1, **smooth):
    sides = Smooth(n_I, seed=1, **smooth), Smooth(n_T, seed=2, **smooth)
    return [
        sweep(side, masks=m, p=q, seed=s, sampling=sampling)
        for side, q, s in zip(sides, p, (seed, 1000 + seed), strict=True)
    ]


def joint(image, text):
    """All pairs of the sides' masks, image-major, with their weights and values of <E, F>."""
    a, b = len(image.masks), len(text.masks)
    masks = torch.cat([image.masks.repeat_interleave(b, 0), text.masks.repeat(a, 1)], 1)
    weights = (image.weights[:, None] * text.weights).flatten()
    return masks, weights, (image.embeddings @ text.embeddings.T).flatten()


def literal_projection(image, text):
    """Fitted values of least squares on every product of two monomials of order 2, (a b,)."""
    designs = []
    for side in (image, text):
        z = side.masks.double()
        i, j = torch.triu_indices(side.n, side.n, 1)
        designs.append(torch.cat([torch.ones(len(z), 1).double(), z, z[:, i] * z[:, j]], 1))
    design = torch.einsum("aq,bt->abqt", *designs).flatten(0, 1).flatten(1)
    _, weights, values = joint(image, text)
    root = weights.sqrt()[:, None]
    fit = torch.linalg.lstsq(root * design, root * values[:, None], driver="gelsd")
    return (design @ fit.solution)[:, 0]


@pytest.mark.parametrize("sampling", ["antithetic", "independent", "distinct"])
def test_it_is_the_projection_on_the_tensor_product(sampling):
    sides = swept(5, 5, m=30, sampling=sampling)
    e = solve(*sides, order="product", ridge=0, errors=False)
    masks = joint(*sides)[0]
    np.testing.assert_allclose(e.value(masks), literal_projection(*sides), atol=1e-9)


def test_it_is_the_projection_under_arbitrary_weights():
    rng = torch.Generator().manual_seed(0)
    sides = []
    for n, seed in ((4, 1), (5, 2)):  # the text has more terms than the image
        masks = torch.rand(40, n, generator=rng) < 0.4
        weights = torch.rand(40, generator=rng, dtype=torch.float64) + 0.1
        sides.append(sweep(Smooth(n, seed=seed), masks=MaskSample(masks, weights, 0.4)))
    e = solve(*sides, order="product", ridge=0, errors=False)
    np.testing.assert_allclose(e.value(joint(*sides)[0]), literal_projection(*sides), atol=1e-9)
    uniform = [
        sweep(Smooth(s.n, seed=k), masks=MaskSample(s.masks, torch.ones(40).double(), 0.4))
        for k, s in zip((1, 2), sides, strict=True)
    ]
    other = solve(*uniform, order="product", ridge=0, errors=False)  # control: weights matter
    assert np.abs(e.value(joint(*sides)[0]) - other.value(joint(*sides)[0])).max() > 1e-3


@pytest.mark.parametrize("sampling", ["antithetic", "independent"])
@pytest.mark.parametrize("basis", ["full", "top"])
def test_its_order_2_fit_is_the_order_2_explanation(sampling, basis):
    sides = swept(6, 6, m=60, sampling=sampling)
    e = solve(*sides, order="product", ridge=0, basis=basis, k=8)
    second = solve(*sides, ridge=0, basis=basis, k=8)
    assert e.e0 == second.e0 and (e.e1 == second.e1).all() and (e.e2 == second.e2).all()
    np.testing.assert_array_equal(e.deviations, second.deviations)
    masks, weights, _ = joint(*sides)
    i, j = torch.triu_indices(12, 12, 1)
    kept = torch.from_numpy(second.e2[i, j] != 0)
    c, first, pairs = dense_fit(
        masks.double(), weights, torch.from_numpy(e.value(masks)), i[kept], j[kept]
    )
    np.testing.assert_allclose(float(c), e.e0, atol=1e-9)
    np.testing.assert_allclose(first, e.e1, atol=1e-9)
    np.testing.assert_allclose(pairs, e.e2[i[kept], j[kept]], atol=1e-9)


def test_the_product_of_two_polynomials_is_recovered():
    sides = Polynomial(6, seed=3), Polynomial(4, seed=5)
    image, text = sweep(sides[0], masks=60, p=0.4), sweep(sides[1], masks=16, p=0.7)
    e = solve(image, text, order="product", ridge=0)
    masks = all_masks(10)
    np.testing.assert_allclose(e.value(masks), Game(*sides)(masks), atol=1e-8)
    row = {(int(i), int(j)): k for k, (i, j) in enumerate(zip(sides[0].i, sides[0].j, strict=True))}
    expected = sides[0].pairs[row[1, 4]] @ sides[1].first[2]
    assert e.coefficient([1, 4, 8]) == pytest.approx(float(expected), abs=1e-8)
    assert e.coefficient([]) == pytest.approx(float(sides[0].const @ sides[1].const), abs=1e-8)


@pytest.mark.parametrize("ridge", [0, "auto"])
def test_interactions_are_expected_discrete_derivatives(ridge):
    model = {"fingerprint": "f", "logit_scale": 3.0, "logit_bias": -1.0}
    sides = swept(4, 4, m=15, p=(0.3, 0.8), info={"model": model})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        e = solve(*sides, order="product", ridge=ridge)
    masks = all_masks(8).numpy()
    chance = np.where(masks, e.keep_probability, 1 - e.keep_probability).prod(1)
    sets = [(), (1,), (6,), (0, 3), (5, 7), (1, 4), (0, 2, 5), (3, 4, 6), (0, 1, 4, 7)]
    for players in sets:
        derivative = 0.0
        for kept in itertools.product([False, True], repeat=len(players)):
            with_them = masks.copy()
            with_them[:, list(players)] = kept
            derivative = derivative + (-1) ** (len(players) - sum(kept)) * e.value(with_them)
        assert e.interaction(players) == pytest.approx(chance @ derivative, abs=1e-9), players
    # monomials: the derivative where nobody else is kept
    nobody = np.zeros((1, 8), bool)
    assert e.coefficient([]) == pytest.approx(e.value(nobody)[0])
    nobody[:, [0, 2, 5]] = True
    subsets = (s for k in range(4) for s in itertools.combinations((0, 2, 5), k))
    assert sum(map(e.coefficient, subsets)) == pytest.approx(e.value(nobody)[0])


def test_of_enumerated_sides_they_agree_with_the_order_2_terms():
    sides = [sweep(Smooth(n, seed=s), masks=2**n, p=0.3) for n, s in ((5, 1), (4, 2))]
    e = solve(*sides, order="product")
    for i, j in itertools.combinations(range(9), 2):
        assert e.interaction((i, j)) == pytest.approx(e.e2[i, j], abs=1e-10)
    singles = [e.interaction(i) for i in range(9)]
    np.testing.assert_allclose(singles, e.attributions(), atol=1e-10)
    assert not e.stderr_of(lambda e: e.given_pair(0, 1)).any()


def test_of_drawn_masks_they_are_the_better_estimate_across_sides():
    sides = Smooth(8, seed=1), sweep(Smooth(4, seed=2), masks=16, p=0.3)
    truth = solve(sweep(sides[0], masks=256, p=0.3), sides[1]).cross
    errors = np.zeros(2)
    for seed in range(10):
        e = solve(sweep(sides[0], masks=100, p=0.3, seed=seed), sides[1], order="product")
        across = [[e.interaction([i, j]) for j in range(8, 12)] for i in range(8)]
        errors += [np.square(e.cross - truth).sum(), np.square(across - truth).sum()]
    assert errors[1] < 0.8 * errors[0]
    # antithetic masks at p = .5 cancel the pairs: both are the same
    e = solve(*swept(p=(0.5, 0.5), sampling="antithetic"), order="product", ridge=0)
    across = [[e.interaction([i, j]) for j in range(7, 13)] for i in range(7)]
    np.testing.assert_allclose(across, e.cross, atol=1e-9)


def test_views_of_third_and_fourth_order():
    e = solve(*swept(), order="product")
    words = e.given_pair("w0", "w3")
    assert words.shape == (7,)
    np.testing.assert_allclose(words, [e.interaction([i, "w0", "w3"]) for i in range(7)])
    patches = e.given_pair("p1", 4)
    np.testing.assert_allclose(patches, [e.interaction(["p1", "p4", w]) for w in range(7, 13)])
    third = {
        s: e.interaction(s)
        for s in itertools.combinations(range(13), 3)
        if 1 <= sum(i < 7 for i in s) <= 2
    }
    best = sorted(third, key=lambda s: -abs(third[s]))[:7]
    found = e.strongest_interactions(7)
    assert [s for s, _ in found] == best
    np.testing.assert_allclose([v for _, v in found], [third[s] for s in best])
    fourth = e.strongest_interactions(10_000, order=4)
    assert len(fourth) == 21 * 15 and fourth[0][1] == pytest.approx(e.interaction(fourth[0][0]))
    assert (np.diff([abs(v) for _, v in fourth]) <= 0).all()


def test_blocks_do_not_change_anything(monkeypatch):
    e = solve(*swept(), order="product")
    whole = e.strongest_interactions(20), e.value(all_masks(13)), e.image_fit.deviations
    monkeypatch.setattr(product, "BLOCK", 300)
    monkeypatch.setattr("fixlip.solver.product.BLOCK", 7)
    small = solve(*swept(), order="product")
    assert [s for s, _ in small.strongest_interactions(20)] == [s for s, _ in whole[0]]
    np.testing.assert_allclose(small.value(all_masks(13)), whole[1], atol=1e-9)
    np.testing.assert_allclose(small.image_fit.deviations, whole[2], atol=1e-6)


def test_players_that_make_no_interaction_are_named():
    e = solve(*swept(), order="product")
    for ask in (e.interaction, e.coefficient):
        with pytest.raises(ValueError, match="3 players of the image and 1 of the text"):
            ask([0, 1, 2, "w0"])
        with pytest.raises(ValueError, match="names a player twice"):
            ask(["p1", 1])
        with pytest.raises(KeyError, match="no player is called 'blue'"):
            ask(["p1", "blue"])
        with pytest.raises(IndexError, match="there are 13"):
            ask([0, 13])
    with pytest.raises(ValueError, match="of different sides"):
        e.given_pair("p1", "w1")
    with pytest.raises(ValueError, match="twice"):
        e.given_pair("p1", "p1")
    with pytest.raises(ValueError, match=r"order must be 3 or 4 .* got 2"):
        e.strongest_interactions(order=2)
    for count in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="count must be a whole number of 1 or more"):
            e.strongest_interactions(count)
    for one in (True, 1.5, None):
        with pytest.raises(TypeError, match="name or its position"):
            e.interaction(one)
    assert e.interaction({"p1", "w0"}) == e.interaction(np.array([7, 1]))


def test_options_that_do_not_go_together():
    sides = swept(3, 3, m=8)
    with pytest.raises(ValueError, match='basis="cross" has neither'):
        solve(*sides, order="product", basis="cross")
    with pytest.raises(ValueError, match=r"order must be 1 or 2, got 'product'"):
        solve_dense(*sides, order="product")
    with pytest.raises(ValueError, match='order must be 1, 2 or "product"'):
        solve(*sides, order="tensor")


def test_top_keeps_pairs_of_the_strongest_players_only():
    e = solve(*swept(9, 6, m=200), order="product", basis="top", k=8)
    image, text = e.image_fit.among, e.text_fit.among
    assert (len(image), len(text)) == (3, 5)
    out = next(i for i in range(9) if i not in image)
    assert e.interaction([out, int(image[0]), 9]) == 0 and e.interaction([out, 9]) != 0
    assert not e.given_pair(out, int(image[0])).any()
    assert len(e.image_fit.terms) == 1 + 9 + 3
    assert e.stderr_of(lambda e: e.given_pair(*image[:2])).shape == (6,)


@pytest.mark.parametrize("errors", [True, False])
def test_files_give_back_the_same_bits(tmp_path, errors):
    e = solve(*swept(), order="product", errors=errors)
    path = e.save(tmp_path / "e.safetensors")
    back = Explanation.load(path)
    assert type(back) is ProductExplanation and type(ProductExplanation.load(path)) is type(back)
    for mine, its in ((e.image_fit, back.image_fit), (e.text_fit, back.text_fit)):
        assert (mine.n, mine.p) == (its.n, its.p)
        for field in ("among", "terms", "deviations"):
            a, b = getattr(mine, field), getattr(its, field)
            assert (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b))
    assert (e.value(all_masks(13)) == back.value(all_masks(13))).all()
    assert "ProductExplanation(" in repr(back)
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is not a whole explanation file"):
            Explanation.load(path)


def test_a_file_with_parts_that_do_not_fit_is_named(tmp_path):
    e = solve(*swept(), order="product")
    path = e.save(tmp_path / "e.safetensors")
    arrays, about = read_arrays(path)
    arrays["text_terms"] = arrays["text_terms"][:-1]
    write_arrays(path, arrays, about)
    with pytest.raises(ValueError, match=r"not a whole explanation file.*22 rows of terms"):
        Explanation.load(path)


@pytest.mark.slow
def test_shapiq_gets_the_order_2_part():
    pytest.importorskip("shapiq")
    e = solve(*swept(), order="product")
    back = ProductExplanation.from_shapiq(e.to_shapiq(), n_image=7)
    assert type(back) is Explanation
    np.testing.assert_array_equal(back.e2, e.e2)


# --- error bars ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampling", "p", "text_masks"),  # 16 masks list the text side; 60 of 6 players are drawn
    [("independent", 0.5, 16), ("antithetic", 0.4, 60)],
)
def test_claimed_errors_are_the_spread_of_repeated_estimates(sampling, p, text_masks):
    n_T = 4 if text_masks == 16 else 6
    sides = Smooth(7, seed=1), Smooth(n_T, seed=2)
    kept = np.arange(7 + n_T)[None] % 2 == 0

    def quantities(e):
        fourth = [e.interaction([0, 3, 7, 8]), e.interaction([1, 2, 9, 10])]
        return np.r_[e.given_pair(7, 8), e.given_pair(0, 3), fourth, e.value(kept)]

    found, claimed = [], []
    for seed in range(60):
        image = sweep(sides[0], masks=90, p=p, seed=seed, sampling=sampling)
        text = sweep(sides[1], masks=text_masks, p=p, seed=1000 + seed, sampling=sampling)
        e = solve(image, text, order="product", ridge=0)
        found.append(quantities(e))
        claimed.append(e.stderr_of(quantities))
    variance, claim = np.var(found, axis=0, ddof=1), np.square(claimed).mean(0)
    parts = np.split(np.arange(len(claim)), [7, 7 + n_T, 9 + n_T])
    ratios = [float(np.sqrt(claim[part].mean() / variance[part].mean())) for part in parts]
    assert all(0.8 < ratio < 1.25 for ratio in ratios[:2]), ratios
    # one or two numbers each: 60 repetitions tell their spread to 10 %
    assert all(0.6 < ratio < 1.5 for ratio in ratios[2:]), ratios


def test_errors_of_both_kinds_come_from_one_call():
    e = solve(*swept(), order="product")
    np.testing.assert_allclose(e.stderr_of(lambda e: e.e2), e.stderr.e2, rtol=1e-6, atol=1e-12)
    both = e.stderr_of(lambda e: np.r_[e.e2[0, 7], e.interaction([0, 1, 7])])
    assert (both > 0).all()
    with pytest.raises(ValueError, match="without error bars"):
        solve(*swept(), order="product", errors=False).stderr_of(lambda e: e.interaction([0, 1]))


def test_errors_that_take_too_much_memory_are_left_out_with_a_word(monkeypatch):
    monkeypatch.setattr(product, "MAX_DEVIATIONS", 1000)
    with pytest.warns(UserWarning, match="errors=False for none"):
        e = solve(*swept(), order="product")
    assert e.image_fit.deviations is None and (e.stderr_of(Explanation.attributions) > 0).all()
    for of in (lambda e: e.given_pair(0, 1), lambda e: e.value(np.ones((1, 13), bool))):
        of(e)
        with pytest.raises(ValueError, match="no error bars"):
            e.stderr_of(of)


def test_the_smaller_sides_errors_see_the_whole_space():
    # 11 terms of the text fill 11 of 16 dimensions; an error of theirs may leave those
    sides = swept(6, 4, m=15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        e = solve(*sides, order="product")
        whole = solve(*sides, order="product", errors=False)
    assert e.text_fit.terms.shape == (11, 16) and whole.text_fit.terms.shape == (11, 11)
    assert e.text_fit.deviations.shape[2] == 16 and e.image_fit.deviations.shape[2] == 11
    assert np.abs(e.text_fit.terms[:, 11:]).max() < 1e-12
    np.testing.assert_allclose(e.value(all_masks(10)), whole.value(all_masks(10)), atol=1e-10)


# --- degenerate inputs ---------------------------------------------------------------------


class Constant:
    n, names, info = 3, ("a", "b", "c"), {}

    def embed(self, masks):
        return torch.ones(len(masks), 16, dtype=torch.float64)


@pytest.mark.parametrize("p", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("m", [1, 2, 7])
def test_degenerate_samples_give_finite_numbers(p, m):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for side in (Smooth(1, seed=1), Smooth(2, seed=1), Smooth(9, seed=1), Constant()):
            for other in (Smooth(1, seed=2), Constant()):
                e = solve(sweep(side, masks=m, p=p), sweep(other, masks=m, p=p), order="product")
                masks = np.ones((2, side.n + other.n), bool)
                assert np.isfinite(e.value(masks)).all()
                if e.stderr is not None or m > 2:
                    assert np.isfinite(e.stderr_of(lambda e, masks=masks: e.value(masks))).all()
                assert np.isfinite([v for _, v in e.strongest_interactions(5)]).all()
                assert np.isfinite([v for _, v in e.strongest_interactions(5, order=4)]).all()
                if side.n > 1:
                    assert np.isfinite(e.given_pair(0, 1)).all()


def test_equal_masks_give_finite_numbers():
    same = MaskSample(torch.tensor([[True, False, True]] * 8), torch.ones(8).double())
    with pytest.warns(UserWarning, match="undetermined"):
        e = solve(*[sweep(Smooth(3, seed=s), masks=same) for s in (1, 2)], order="product", ridge=0)
    assert np.isfinite(e.value(all_masks(6))).all()
    assert np.isfinite(e.stderr_of(lambda e: e.interaction([0, 1, 3]))).all()

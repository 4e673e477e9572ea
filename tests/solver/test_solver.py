"""The split solver against the dense joint fit, the definition, and known polynomials."""

import warnings

import numpy as np
import pytest
import torch
from toy_games import Polynomial, Smooth, exact_terms

import fixlip
from fixlip.games.game import Game
from fixlip.sampler import MaskSample, enumerate_masks, sweep
from fixlip.solver import solve, solve_dense
from fixlip.solver.solve import top_players


def distance(a, b):
    """Largest relative distance of two explanations, over constant, first and pair terms."""
    return max(
        abs(a.e0 - b.e0) / abs(b.e0),
        np.abs(a.e1 - b.e1).max() / np.abs(b.e1).max(),
        np.abs(a.e2 - b.e2).max() / max(np.abs(b.e2).max(), 1e-300),
    )


@pytest.mark.parametrize("basis", ["full", "cross", "top"])
@pytest.mark.parametrize(
    "sampling", ["antithetic", "independent", "distinct", "distinct-reference"]
)
@pytest.mark.parametrize("p", [(0.5, 0.5), (0.3, 0.3), (0.3, 0.7)])
def test_split_equals_the_dense_joint_fit(p, sampling, basis):
    image = sweep(Smooth(8, seed=1), masks=180, p=p[0], seed=1, sampling=sampling)
    text = sweep(Smooth(6, seed=2), masks=62, p=p[1], seed=4, sampling=sampling)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # all terms are determined
        split = solve(image, text, ridge=0, basis=basis, k=9, errors=False)
    assert distance(split, solve_dense(image, text, basis=basis, k=9)) < 1e-9


def test_split_equals_dense_for_order_one_and_arbitrary_weights():
    rng = torch.Generator().manual_seed(0)
    swept = []
    for n, seed in ((7, 1), (5, 2)):
        masks = torch.rand(90, n, generator=rng) < 0.4
        weights = torch.rand(90, generator=rng, dtype=torch.float64) + 0.1
        swept.append(sweep(Smooth(n, seed=seed), masks=MaskSample(masks, weights, 0.4)))
    for order in (1, 2):
        assert (
            distance(solve(*swept, order=order, ridge=0), solve_dense(*swept, order=order)) < 1e-9
        )
    assert not solve(*swept, order=1).e2.any()


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.2, 0.2), (0.7, 0.4)])
def test_full_enumeration_gives_the_definition(p):
    sides = Smooth(5, seed=1), Smooth(4, seed=2)
    swept = [sweep(s, masks=2**s.n, p=q) for s, q in zip(sides, p, strict=True)]
    e0, e1, e2 = exact_terms(Game(*sides), np.repeat(p, [5, 4]))
    for explanation in (solve(*swept), solve_dense(*swept)):
        assert explanation.e0 == pytest.approx(e0, rel=1e-9)
        np.testing.assert_allclose(explanation.e1, e1, rtol=0, atol=1e-9 * np.abs(e1).max())
        np.testing.assert_allclose(explanation.e2, e2, rtol=0, atol=1e-9 * np.abs(e2).max())


def test_first_order_fit_of_an_enumerated_game_is_the_banzhaf_value():
    sides = Smooth(5, seed=1), Smooth(4, seed=2)
    swept = [sweep(s, masks=2**s.n, p=0.3) for s in sides]
    first, second = solve(*swept, order=1), solve(*swept)
    np.testing.assert_allclose(first.e1, second.attributions(), atol=1e-12)


@pytest.mark.parametrize(
    ("p", "sampling"), [(0.5, "antithetic"), (0.3, "antithetic"), (0.6, "independent")]
)
def test_within_side_terms_of_a_known_polynomial_are_recovered(p, sampling):
    # a constant text embedding leaves the image polynomial projected on it
    side = Polynomial(7, seed=3)
    image = sweep(side, masks=100, p=p, sampling=sampling)

    class Constant:
        n, names, info = 2, ("a", "b"), {}

        def embed(self, masks):
            return torch.ones(len(masks), 8, dtype=torch.float64)

    explanation = solve(image, sweep(Constant(), masks=4), ridge=0)
    np.testing.assert_allclose(explanation.e1[:7], side.first.sum(1), atol=1e-9)
    pairs = explanation.e2[side.i, side.j]
    np.testing.assert_allclose(pairs, side.pairs.sum(1), atol=1e-9)
    assert explanation.e0 == pytest.approx(float(side.const.sum()), abs=1e-9)
    assert np.abs(explanation.cross).max() < 1e-9


def test_a_shifted_weighting_breaks_the_agreement():
    # negative control: the tolerance above can fail
    image, text = (sweep(Smooth(n, seed=s), masks=150, p=0.3, seed=s) for n, s in ((8, 1), (6, 2)))
    tilted = torch.linspace(1, 2, image.sample.m, dtype=torch.float64)
    other = sweep(Smooth(8, seed=1), masks=MaskSample(image.masks, tilted, 0.3))
    assert distance(solve(image, text, ridge=0), solve_dense(other, text)) > 1e-4


def test_scale_and_bias_are_the_models_own_or_as_asked():
    model = {"name": "toy", "fingerprint": "f", "logit_scale": 10.0, "logit_bias": -2.0}
    swept = [
        sweep(Smooth(n, seed=s, info={"model": model}), masks=64, p=0.3)
        for n, s in ((6, 1), (5, 2))
    ]
    own, cosine = solve(*swept), solve(*swept, scale=1, bias=0)
    np.testing.assert_allclose(own.e1, 10 * cosine.e1)
    np.testing.assert_allclose(own.e2, 10 * cosine.e2)
    assert own.e0 == pytest.approx(10 * cosine.e0 - 2)
    assert own.grand_value == pytest.approx(10 * cosine.grand_value - 2)


def test_sides_of_different_models_do_not_pair():
    def side(seed, print_, width=16):
        info = {"model": {"name": f"model-{print_}", "fingerprint": print_}}
        return sweep(Smooth(5, width=width, seed=seed, info=info), masks=32)

    with pytest.raises(ValueError, match=r"one side belongs to model-a .* the other to model-b"):
        solve(side(1, "a"), side(2, "b"))
    with pytest.raises(ValueError, match=r"width 16, .* width 8"):
        solve(side(1, "a"), side(2, "a", width=8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 3}, "order must be 1, 2 or"),
        ({"basis": "clique"}, "basis must be"),
        ({"ridge": -1}, "ridge must be"),
        ({"ridge": "some"}, "ridge must be"),
        ({"ridge": float("nan")}, "ridge must be"),
        ({"k": 1}, "k must be a whole number of 2 or more, got 1"),
    ],
)
def test_unknown_options_are_refused(options, message):
    swept = [sweep(Smooth(3, seed=s), masks=8) for s in (1, 2)]
    with pytest.raises(ValueError, match=message):
        solve(*swept, **options)


def test_too_few_masks_for_least_squares_are_warned_about():
    image, text = sweep(Smooth(20, seed=1), masks=100), sweep(Smooth(4, seed=2), masks=16)
    with pytest.warns(UserWarning, match="100 masks leave 141 of 211 terms undetermined"):
        solve(image, text, ridge=0)
    repeated = MaskSample(image.masks[:2].repeat(150, 1), torch.ones(300, dtype=torch.float64))
    with pytest.warns(UserWarning, match="undetermined"):
        solve(sweep(Smooth(20, seed=1), masks=repeated), text, ridge=0)


@pytest.fixture(scope="module")
def many_players():
    """A side with 24 players, the other side, and the first one's pairs from 30,000 masks."""
    side, text = Smooth(24, seed=1), sweep(Smooth(4, seed=2), masks=16)
    many = sweep(side, masks=30_000, seed=9)
    return side, text, solve(many, text, ridge=0, errors=False).e2[:24, :24]


@pytest.mark.parametrize("m", [300, 330, 600])  # 301 unknowns
@pytest.mark.parametrize("sampling", ["antithetic", "independent"])
def test_ridge_beats_least_squares_where_masks_are_few(m, sampling, many_players):
    side, text, truth = many_players

    def error(ridge):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            swept = sweep(side, masks=m, sampling=sampling, seed=4)
            return np.square(solve(swept, text, ridge=ridge).e2[:24, :24] - truth).sum()

    assert error("auto") < error(0)
    assert error("auto") < 0.8 * np.square(truth).sum()  # and better than saying nothing


def test_ridge_leaves_a_well_determined_fit_alone():
    side, text = Polynomial(10, seed=3), sweep(Smooth(4, width=8, seed=2), masks=16)
    for sampling in ("antithetic", "independent"):
        image = sweep(side, masks=600, sampling=sampling)
        assert distance(solve(image, text), solve(image, text, ridge=0)) < 1e-5


class Constant:
    n, names, info = 3, ("a", "b", "c"), {}

    def embed(self, masks):
        return torch.ones(len(masks), 16, dtype=torch.float64)


def assert_finite(explanation):
    numbers = [explanation.e0, *explanation.e1, *explanation.e2.ravel()]
    assert np.isfinite([*numbers, *explanation.attributions()]).all()
    if (errors := explanation.stderr) is not None:
        assert np.isfinite([errors.e0, *errors.e1, *errors.e2.ravel()]).all()
        assert np.isfinite(explanation.stderr_of(fixlip.Explanation.attributions)).all()
    return errors is not None


@pytest.mark.parametrize("p", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_degenerate_samples_give_finite_numbers(p, m):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in (1, 2, 9):
            for order in (1, 2, "product"):
                for ridge in (0, "auto"):
                    image, text = (
                        sweep(side, masks=m, p=p) for side in (Smooth(n, seed=1), Smooth(3, seed=2))
                    )
                    bars = assert_finite(solve(image, text, order=order, ridge=ridge))
                    assert bars or m <= 2


@pytest.mark.parametrize("order", [1, 2, "product"])
def test_equal_masks_and_constant_games_give_finite_numbers_and_a_warning(order):
    equal = MaskSample(torch.tensor([[True, False, True]]).repeat(20, 1), torch.ones(20))
    text = sweep(Smooth(4, seed=2), masks=16)
    with pytest.warns(UserWarning, match="masks"):
        assert_finite(solve(sweep(Smooth(3, seed=1), masks=equal), text, order=order))
    for masks in (8, 5):
        constant = solve(sweep(Constant(), masks=masks, seed=3), text, order=order)
        assert_finite(constant)
        assert np.abs(constant.e1[:3]).max() < 1e-9 and np.abs(constant.cross).max() < 1e-9


def test_a_side_pairs_with_itself():
    side = sweep(Smooth(6, seed=1), masks=64)
    explanation = solve(side, side)
    np.testing.assert_allclose(explanation.cross, explanation.cross.T, atol=1e-12)


def test_the_papers_filter_keeps_the_strongest_players_of_both_sides():
    first = np.r_[np.arange(49.0), -np.arange(12.0)]
    image, text = top_players(first, 49, 30)
    assert len(text) == 6 and len(image) == 24  # ceil(12 * 30 / 61) = 6
    assert image.tolist() == list(range(25, 49)) and text.tolist() == list(range(6, 12))
    image, text = top_players(np.ones(57), 49, 72)
    assert len(image) == 49 and len(text) == 8


def test_memory_of_the_primal_fit_is_blocked(monkeypatch):
    import fixlip.solver.leastsquares as leastsquares

    image = sweep(Smooth(9, seed=1), masks=300, p=0.4, sampling="independent")
    text = sweep(Smooth(3, seed=2), masks=8)
    whole = solve(image, text)
    monkeypatch.setattr(leastsquares, "BLOCK", 100)
    assert distance(solve(image, text), whole) < 1e-10


def test_enumerated_sides_are_not_shrunk():
    image, text = (sweep(Smooth(n, seed=s), masks=enumerate_masks(n)) for n, s in ((7, 1), (4, 2)))
    assert distance(solve(image, text), solve(image, text, ridge=0)) < 1e-12


def spread_and_claim(sampling, p, text_masks, repeats=60):
    """Standard deviation of repeated estimates beside the mean claimed standard error."""
    sides, found, claimed = (Smooth(7, seed=1), Smooth(6, seed=2)), [], []
    for seed in range(repeats):
        image = sweep(sides[0], masks=90, p=p, seed=seed, sampling=sampling)
        text = sweep(sides[1], masks=text_masks, p=p, seed=1000 + seed, sampling=sampling)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explanation = solve(image, text, ridge=0)
        found.append(explanation)
        claimed.append(explanation.stderr)

    def ratio(part):
        values = np.array([part(e.e0, e.e1, e.e2) for e in found])
        errors = np.array([part(*terms) for terms in claimed])
        return np.sqrt(np.square(errors).mean() / values.var(0, ddof=1).mean())

    return {
        "cross": ratio(lambda e0, e1, e2: e2[:7, 7:]),
        "within": ratio(lambda e0, e1, e2: e2[np.triu_indices(7, 1)]),
        "first": ratio(lambda e0, e1, e2: e1[:7]),
        "text": ratio(lambda e0, e1, e2: e1[7:]),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    (
        "sampling",
        "p",
        "text_masks",
    ),  # 64 masks list the text side; 60 are drawn
    [("antithetic", 0.5, 64), ("antithetic", 0.4, 64), ("independent", 0.5, 60)],
)
def test_standard_errors_are_as_large_as_the_spread_of_repeated_estimates(sampling, p, text_masks):
    ratios = spread_and_claim(sampling, p, text_masks)
    assert all(0.85 < ratio < 1.3 for ratio in ratios.values()), ratios


@pytest.mark.slow
@pytest.mark.parametrize(("m", "least"), [(60, 0.8), (400, 0.9)])
def test_intervals_cover_the_truth_where_ridge_has_to_fill_in(m, least):
    # 20 players have 190 pairs; without what the penalty took, coverage is .2 and .8
    side, text = Smooth(20, seed=1), sweep(Smooth(4, seed=2), masks=16)
    truth = solve(sweep(side, masks=30_000, seed=9), text, ridge=0, errors=False)
    upper = np.triu_indices(20, 1)
    covered = {"within": [], "first": [], "cross": []}
    for seed in range(30):
        found = solve(sweep(side, masks=m, seed=seed), text)
        for name, part in (
            ("within", lambda e: e.e2[upper]),
            ("first", lambda e: e.e1[:20]),
            ("cross", lambda e: e.e2[:20, 20:]),
        ):
            covered[name].append(abs(part(found) - part(truth)) < 1.96 * part(found.stderr))
    coverage = {name: np.mean(hits) for name, hits in covered.items()}
    assert all(least < share <= 0.99 for share in coverage.values()), coverage


def test_too_few_different_masks_for_error_bars_are_warned_about():
    image = sweep(Smooth(9, seed=1), masks=400)
    with pytest.warns(UserWarning, match=r"34 different masks are few for .*; 64 list them all"):
        solve(image, sweep(Smooth(6, seed=2), masks=50, seed=5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(image, sweep(Smooth(6, seed=2), masks=64))
        solve(image, sweep(Smooth(6, seed=2), masks=50, seed=5), errors=False)


def test_no_sampling_no_error():
    swept = [sweep(Smooth(n, seed=s), masks=2**n) for n, s in ((6, 1), (4, 2))]
    explanation = solve(*swept)
    assert explanation.deviations.shape == (0, 1 + 10 + 45)
    assert explanation.stderr.e0 == 0 and not explanation.stderr.e2.any()
    assert solve(*swept, errors=False).stderr is None


def test_errors_of_what_is_derived():
    image, text = sweep(Smooth(7, seed=1), masks=120), sweep(Smooth(5, seed=2), masks=20)
    explanation = solve(image, text, ridge=0.01)
    kept = np.zeros((1, 12), bool)
    np.testing.assert_allclose(
        explanation.stderr_of(lambda e: e.value(kept)), explanation.stderr.e0, rtol=1e-9
    )
    np.testing.assert_allclose(
        explanation.stderr_of(lambda e: e.e2), explanation.stderr.e2, rtol=1e-9, atol=1e-15
    )
    # correlated terms: the error of a sum is not the root of the summed squares
    both = explanation.stderr_of(lambda e: e.attributions())
    assert both.shape == (12,) and (both > 0).all()
    with pytest.raises(ValueError, match="without error bars"):
        solve(image, text, errors=False).stderr_of(lambda e: e.e0)


@pytest.mark.parametrize("basis", ["full", "cross", "top"])
@pytest.mark.parametrize("order", [1, 2])
def test_every_basis_has_error_bars_where_it_has_terms(basis, order):
    image, text = sweep(Smooth(9, seed=1), masks=150), sweep(Smooth(6, seed=2), masks=50)
    explanation = solve(image, text, basis=basis, order=order, k=9)
    assert ((explanation.stderr.e2 > 0) == (explanation.e2 != 0)).all()
    assert (explanation.stderr.e1 > 0).all()


def test_twins_of_unequal_weight_are_not_folded():
    drawn = sweep(Smooth(7, seed=1), masks=100).sample
    tilted = torch.linspace(1, 2, 100, dtype=torch.float64)
    image = sweep(Smooth(7, seed=1), masks=MaskSample(drawn.masks, tilted, 0.5, "antithetic"))
    text = sweep(Smooth(4, seed=2), masks=16)
    assert distance(solve(image, text, ridge=0), solve_dense(image, text)) < 1e-9

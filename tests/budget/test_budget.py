"""The advice on numbers of masks, against measured errors, and sweeps up to a tolerance."""

import itertools
import math
import re
import time
import warnings

import numpy as np
import pytest
import torch
from toy_games import Smooth, all_masks

import fixlip
from fixlip.budget import sweep_to_tolerance
from fixlip.budget.variance import VarianceComponents, least_masks
from fixlip.sampler import MaskSample, side_seeds

COSTS = (1e-3, 1e-3)


class Rough(Smooth):
    """A side with strong terms of order 3, which first-order slopes are blurred by."""

    def __init__(self, n, width=8, seed=0, strength=1.0):
        super().__init__(n, width, seed)
        rng = torch.Generator().manual_seed(seed + 100)
        order = torch.rand(15, n, generator=rng).argsort(1)
        self.triples = order[:, :3].T  # (3, 15), three different players each
        self.third = torch.randn(15, width, generator=rng, dtype=torch.float64) * strength

    def embed(self, masks):
        x = 2 * masks.double() - 1
        return super().embed(masks) + x[:, self.triples].prod(1) @ self.third


class Constant:
    """A side that its masks do not change."""

    def __init__(self, n=20):
        self.n, self.names = n, [f"c{i}" for i in range(n)]

    def embed(self, masks):
        return torch.ones(len(masks), 8, dtype=torch.float64)


class Counting:
    """Any side, with the masks that it was asked for."""

    def __init__(self, side):
        self.side, self.n, self.names, self.asked = side, side.n, side.names, []

    def embed(self, masks):
        self.asked.append(masks)
        return self.side.embed(masks)

    def check(self, masks):
        asked = torch.cat(self.asked)
        assert len(asked) == len(torch.unique(asked, dim=0)) <= masks + 2


def truth(image, text, p=0.5):
    """Interactions from all masks of both sides."""
    swept = [fixlip.sweep(side, masks=2**side.n, p=p) for side in (image, text)]
    return fixlip.solve(*swept, basis="cross", errors=False).cross


def measured(image, text, masks, exact, p=0.5, repetitions=12):
    """Root-mean-square error of the interactions over repetitions."""
    squares = []
    for seed in range(repetitions):
        swept = [
            fixlip.sweep(side, masks=m, p=p, seed=s + 1)
            for side, m, s in zip((image, text), masks, side_seeds(seed), strict=True)
        ]
        cross = fixlip.solve(*swept, basis="cross", errors=False).cross
        squares.append(np.square(cross - exact).mean())
    return np.mean(squares) ** 0.5


def test_the_pilot_has_the_error_bars_of_the_explanation():
    for p, sampling in ((0.5, "antithetic"), (0.3, "antithetic"), (0.5, "independent")):
        swept = [
            fixlip.sweep(Smooth(n, seed=n), masks=200, p=p, seed=n, sampling=sampling)
            for n in (12, 9)
        ]
        explanation = fixlip.solve(*swept, scale=2.0)
        error = np.square(explanation.stderr.e2[:12, 12:]).mean()
        size = np.square(explanation.cross).mean() - error
        components = VarianceComponents.of(*swept, scale=2.0)
        assert components.relative * components.rms_interaction == pytest.approx(
            error**0.5, rel=1e-5
        )
        assert components.rms_interaction == pytest.approx(size**0.5, rel=1e-5)


@pytest.mark.parametrize(("p", "sampling"), [(0.5, "antithetic"), (0.4, "independent")])
def test_a_pilot_of_all_masks_knows_how_drawn_ones_would_vary(p, sampling):
    sides = Smooth(9, seed=1), Smooth(7, seed=2)
    options = {"seconds": 0.9, "costs": (0.001, 0.01), "sampling": sampling}
    drawn = [fixlip.sweep(s, masks=2 ** (s.n - 1), p=p, sampling=sampling, seed=5) for s in sides]
    listed = [fixlip.sweep(s, masks=2**s.n, p=p) for s in sides]
    few, all_ = fixlip.advise(*drawn, **options), fixlip.advise(*listed, **options)
    np.testing.assert_allclose(few.components, all_.components, rtol=0.35)
    assert all_.masks[1] < 128  # too dear to be listed again


def test_the_components_are_those_of_a_two_sample_statistic():
    """From all masks: the slope of player i varies by x_i r / sd, r = E - its linear fit."""
    sides = Rough(10, seed=0), Rough(10, seed=1)
    slopes, moves = [], []
    for side in sides:
        masks = all_masks(10)
        x, E = 2 * masks.double() - 1, side.embed(masks)
        J = x.T @ E / len(x)  # (n, D), orthonormal x
        r = E - E.mean(0) - x @ J
        slopes.append(2 * J)
        moves.append(2 * x[:, :, None] * r[:, None])  # (masks, n, D)
    (J_I, J_T), (d_I, d_T) = slopes, moves
    zeta_I = (d_I @ J_T.T).square().mean()
    zeta_T = (d_T @ J_I.T).square().mean()
    both = torch.einsum("and,ane->de", d_I, d_I) * torch.einsum("btd,bte->de", d_T, d_T)
    both = both.sum() / 2**20 / 100
    swept = [
        fixlip.sweep(side, masks=900, seed=i, sampling="independent")
        for i, side in enumerate(sides)
    ]
    found = fixlip.advise(*swept, seconds=3, costs=COSTS).components
    expected = [float(x) for x in (zeta_I, zeta_T, zeta_I + zeta_T + both)]
    np.testing.assert_allclose(found, expected, rtol=0.15)
    a, b = 1000, 800  # not all of 1,024, and many next to the 11 terms of the fit
    theorem = ((b - 1) * found[0] + (a - 1) * found[1] + found[2]) / (a * b)
    assert VarianceComponents.of(*swept).variance(a, b) == pytest.approx(theorem, rel=0.03)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_the_predicted_error_is_the_measured_one(p):
    image, text = Rough(12, seed=0, strength=2.0), Rough(10, seed=1)
    exact = truth(image, text, p)
    for seconds in (0.3, 1.2):
        advice = fixlip.advise(image, text, seconds=seconds, p=p, costs=(1e-3, 1e-3))
        assert advice.error == pytest.approx(
            measured(image, text, advice.masks, exact, p), rel=0.25
        )
        assert advice.paper_error == pytest.approx(
            measured(image, text, advice.paper_masks, exact, p), rel=0.25
        )
    gentle = Rough(12, seed=0, strength=0.2), Rough(10, seed=1, strength=0.2)
    size = fixlip.advise(*gentle, seconds=1, p=p, costs=COSTS).size
    assert size == pytest.approx(np.square(truth(*gentle, p)).mean() ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("strengths", "costs"),
    [((0.1, 3.0), (1e-3, 1e-3)), ((1.0, 1.0), (1e-3, 1e-5)), ((1.0, 1.0), (1e-3, 3e-2))],
)
def test_the_advised_split_beats_the_papers_and_the_equal_one(strengths, costs):
    image, text = (Rough(12, seed=s, strength=x) for s, x in zip((0, 1), strengths, strict=True))
    exact = truth(image, text)
    seconds = 600 * sum(costs)
    advice = fixlip.advise(image, text, seconds=seconds, costs=costs)
    assert 0.95 * seconds <= advice.seconds <= seconds * (1 + 1e-9)
    found = measured(image, text, advice.masks, exact)
    equal = int(seconds / sum(costs) - 2) // 2 * 2
    assert found < measured(image, text, (equal, equal), exact)
    assert found < measured(image, text, advice.paper_masks, exact)


def test_the_split_is_the_roots_of_variance_over_cost():
    image, text = Rough(30, seed=0, strength=2.0), Rough(30, seed=1)
    advice = fixlip.advise(image, text, seconds=1e4, costs=(4e-3, 1e-3), pilot=2000)
    zeta_I, zeta_T, _ = advice.components
    ratio = advice.masks[0] / advice.masks[1]
    assert ratio == pytest.approx(math.sqrt(zeta_I * 1 / (zeta_T * 4)), rel=0.02)


def test_the_time_for_a_tolerance_gives_that_tolerance():
    sides = Rough(20, seed=0), Rough(16, seed=1)
    for tolerance in (0.2, 0.02):
        advice = fixlip.advise(*sides, tolerance=tolerance, costs=COSTS)
        assert 0.97 * tolerance < advice.relative <= tolerance
        again = fixlip.advise(*sides, seconds=advice.seconds, costs=COSTS)
        assert again.error == pytest.approx(advice.error, rel=0.01)
        assert all(m % 2 == 0 for m in advice.masks)


def test_a_side_that_is_cheap_to_list_is_listed():
    image, text = Rough(30, seed=0), Rough(11, seed=1)
    advice = fixlip.advise(image, text, seconds=8, costs=(1e-3, 1e-4))
    assert advice.masks[1] == 2048
    assert advice.masks[0] == pytest.approx((8 - 0.2048) / 1e-3, abs=6)
    assert "2,048 (all) text masks" in repr(advice)
    both = fixlip.advise(Rough(12), text, seconds=8, costs=(1e-3, 1e-4))
    assert both.masks == (4096, 2048) and both.error == 0 and both.seconds < 5


@pytest.mark.parametrize(("n_image", "n_text"), [(1, 1), (1, 6), (6, 1), (5, 7)])
def test_sides_smaller_than_the_pilot_are_listed_and_exact(n_image, n_text):
    sides = Smooth(n_image, seed=0), Smooth(n_text, seed=1)
    advice = fixlip.advise(*sides, seconds=100)
    assert advice.masks == (2**n_image, 2**n_text)
    assert advice.error == advice.relative == 0 and advice.size > 0
    *swept, report = sweep_to_tolerance(*sides, tolerance=0.01)
    assert report["error"] == 0 and report["rounds"] == 1
    assert [s.sample.sampling for s in swept] == ["enumerated"] * 2


def test_the_first_call_is_not_counted():
    class Lazy(Smooth):
        calls = 0

        def embed(self, masks):
            time.sleep(0.3 if self.calls == 0 else 0)
            self.calls += 1
            return super().embed(masks)

    advice = fixlip.advise(Lazy(20), Lazy(20, seed=1), seconds=60)
    assert 0 < max(advice.costs) < 0.3 / 256


def test_too_little_time_is_said():
    sides = Rough(30, seed=0), Rough(16, seed=1)
    with pytest.warns(UserWarning, match=r"too short: 124 image and 68 text masks"):
        advice = fixlip.advise(*sides, seconds=0.01, costs=COSTS)
    assert advice.masks == (124, 68) and math.isfinite(advice.error)
    assert "435 terms, and 124 masks leave some of them to the ridge" in repr(advice)


def test_sweeps_serve_as_a_pilot():
    sides = Rough(20, seed=0), Rough(16, seed=1)
    swept = [
        fixlip.sweep(side, masks=m, seed=s)
        for side, m, s in zip(sides, (256, 128), side_seeds(0), strict=True)
    ]
    from_sides = fixlip.advise(*sides, seconds=2, costs=COSTS)
    for pilot in (swept, (swept[0], sides[1])):
        advice = fixlip.advise(*pilot, seconds=2, costs=COSTS)
        assert advice.masks == from_sides.masks
        assert advice.error == pytest.approx(from_sides.error, rel=1e-9)
    with pytest.raises(ValueError, match=r"give costs=\(image, text\)"):
        fixlip.advise(*swept, seconds=2)


def test_pilots_that_tell_nothing_are_refused():
    side = Rough(20)
    good = fixlip.sweep(side, masks=256)
    one, alike = torch.ones(1, 20, dtype=torch.bool), torch.ones(256, 20, dtype=torch.bool)
    for masks, message in ((one, "1 masks of 20 players are too few"), (alike, "20 of 20 players")):
        sample = MaskSample(masks, torch.ones(len(masks)), sampling="independent")
        with pytest.raises(ValueError, match=message):
            fixlip.advise(fixlip.sweep(side, masks=sample), good, seconds=1, costs=COSTS)
    chosen = fixlip.sweep(side, masks=200, sampling="distinct")
    with pytest.raises(ValueError, match="'distinct' masks"):
        fixlip.advise(chosen, good, seconds=1, costs=COSTS)
    with pytest.raises(ValueError, match="width 8 and 6"):
        fixlip.advise(good, Smooth(20, width=6), seconds=1, costs=COSTS)


@pytest.mark.parametrize("sides", [(Constant(), Rough(20)), (Rough(20), Constant())])
def test_a_game_without_interactions_is_said_at_once(sides):
    with pytest.warns(UserWarning, match="no interaction of any image player"):
        advice = fixlip.advise(*sides, seconds=1, costs=COSTS)
    assert np.isfinite([advice.error, advice.size, advice.relative, *advice.components]).all()
    with pytest.warns(UserWarning, match="no interaction of any image player"):
        *_, report = sweep_to_tolerance(*sides, tolerance=0.01)
    assert report["rounds"] == 1 and report["masks"] == [256, 128]
    assert math.isfinite(report["error"])


def test_a_pilot_of_noise_is_said_to_be_one():
    advice = fixlip.advise(
        Rough(20, seed=0, strength=9.0), Rough(20, seed=1, strength=9.0), seconds=1, costs=COSTS
    )
    assert "does not tell the interactions from zero" in repr(advice)


def test_interactions_hidden_in_noise_cost_all_masks_but_stay_finite():
    class Half(Rough):
        def embed(self, masks):  # what depends on the masks is orthogonal to the other side's
            return super().embed(masks).roll(self.n, 1) * (torch.arange(8) % 2 == self.n % 2)

    sides = Half(20, seed=0), Half(21, seed=1)
    with pytest.warns(UserWarning, match="no interaction"):
        sweep_to_tolerance(*sides, tolerance=0.1)

    class Cubic(Rough):  # slopes are zero: all that is seen of them is noise
        def embed(self, masks):
            return super().embed(masks) - Smooth.embed(self, masks)

    sides = Cubic(20, seed=0), Cubic(21, seed=1)
    with pytest.warns(UserWarning, match="max_masks=2,000 allows"):
        *_, report = sweep_to_tolerance(*sides, tolerance=0.1, max_masks=2000)
    assert report["masks"] == [2000, 2000] and 0.5 < report["error"] <= 1


def test_sweeps_grow_until_the_tolerance_is_met(monkeypatch):
    # the split follows the measured costs: a clock of its own makes it the same everywhere
    clock = itertools.count()
    monkeypatch.setattr("fixlip.budget.advice.time.perf_counter", lambda: 0.01 * next(clock))
    sides = [Counting(Rough(n, seed=i, strength=0.3)) for i, n in enumerate((13, 12))]
    *swept, report = sweep_to_tolerance(*sides, tolerance=0.1, seed=4)
    assert 0.05 < report["error"] <= 0.1 and report["rounds"] > 1
    for side, one, m, s in zip(sides, swept, report["masks"], side_seeds(4), strict=True):
        assert m < 2**side.n
        side.check(m)
        at_once = fixlip.sweep(side.side, masks=m, seed=s)
        assert torch.equal(one.masks, at_once.masks)
        torch.testing.assert_close(one.embeddings, at_once.embeddings, rtol=0, atol=1e-12)
    exact = truth(*(side.side for side in sides))
    error = measured(*(side.side for side in sides), report["masks"], exact)
    assert error / np.square(exact).mean() ** 0.5 == pytest.approx(0.09, rel=0.25)


def test_a_side_can_end_with_all_its_masks():
    sides = [Counting(Rough(20, seed=0)), Counting(Rough(9, seed=1))]
    *swept, report = sweep_to_tolerance(*sides, tolerance=0.05)
    assert swept[1].sample.sampling == "enumerated" and report["masks"][1] == 512
    for side, m in zip(sides, report["masks"], strict=True):
        side.check(m)


def test_the_most_masks_are_not_exceeded():
    sides = [Counting(Rough(20, seed=0)), Counting(Rough(16, seed=1))]
    with pytest.warns(UserWarning, match=r"not 0\.001: 900 image and 900 text .* max_masks=901"):
        *_, report = sweep_to_tolerance(*sides, tolerance=0.001, max_masks=901)
    assert report["masks"] == [900, 900] and report["error"] > 0.001
    with pytest.raises(ValueError, match="84 or more"):
        sweep_to_tolerance(*sides, max_masks=1)


@pytest.mark.parametrize("p", [0.001, 0.999])
def test_extreme_p_asks_for_enough_masks_to_see_every_player(p):
    sides = Smooth(20, seed=0), Smooth(6, seed=1)
    assert least_masks(20, p) == 8000 and least_masks(6, p) == 64
    with pytest.warns(UserWarning, match="different masks are few for 21 terms"):
        advice = fixlip.advise(*sides, seconds=60, p=p, costs=COSTS)
    assert advice.masks[0] >= 8000 and advice.masks[1] == 64
    assert np.isfinite([advice.error, advice.size, advice.paper_error]).all()
    with pytest.warns(UserWarning, match="different masks are few for 21 terms"):
        *_, report = sweep_to_tolerance(*sides, tolerance=0.5, p=p)
    assert report["masks"][0] >= 8000 and math.isfinite(report["error"])
    with pytest.raises(ValueError, match="8,000 or more"):
        sweep_to_tolerance(*sides, p=p, max_masks=1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either seconds"),
        ({"seconds": 1, "tolerance": 0.1}, "either seconds"),
        ({"seconds": 0}, "seconds must be a number above 0"),
        ({"seconds": math.inf}, "seconds must be a number above 0"),
        ({"seconds": "1 min"}, "seconds must be a number above 0"),
        ({"tolerance": 0}, "strictly between 0 and 1"),
        ({"tolerance": math.nan}, "tolerance must be a number"),
        ({"tolerance": True}, "tolerance must be a number"),
        ({"seconds": 1, "costs": (1, 0)}, "costs must be a number above 0"),
        ({"seconds": 1, "costs": "1 ms"}, "costs must be a number above 0"),
        ({"seconds": 1, "costs": (1, 2, 3)}, "one value or two"),
        ({"seconds": 1, "p": 1}, "strictly between 0 and 1"),
        ({"seconds": 1, "p": 5e-324}, "got 5e-324 (.*) 1e-75 is the least possible"),
        ({"seconds": 1, "p": 1e-9}, "a fit of 30 players needs 8e.09 masks or more"),
        ({"seconds": 1, "p": math.nan}, "strictly between 0 and 1, got nan"),
        ({"seconds": 1, "scale": 0}, "with scale=0 every score is the bias"),
        ({"seconds": 1, "scale": math.nan}, "scale must be a number, got nan"),
        ({"seconds": 1, "scale": math.inf}, "scale must be a number, got inf"),
        ({"seconds": 1, "scale": 1e300}, r"the scale is 1e\+300 in size"),
        ({"seconds": 1, "pilot": (1, 2, 3)}, "one value or two"),
        ({"seconds": 1, "pilot": "small"}, "number of masks"),
        ({"seconds": 1, "sampling": "distinct"}, "antithetic and independent only"),
        ({"seconds": 1, "sampling": "sobol"}, "antithetic and independent only"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fixlip.advise(Smooth(30), Smooth(20, seed=1), **options)


def test_the_advice_reads_as_a_paragraph():
    text = repr(fixlip.advise(Smooth(20), Smooth(12, seed=1), seconds=1, costs=COSTS))
    assert re.match(r"Advice: [\d,]+ image masks and [\d,]+ text masks, about (1|0\.99\d*) s", text)
    assert "paper's split at equal time" in text and "zeta_I" in text


class InDtype:
    """A side whose embeddings come in a dtype of its own."""

    def __init__(self, side, dtype):
        self.side, self.n, self.names, self.dtype = side, side.n, side.names, dtype

    def embed(self, masks):
        return (8 * self.side.embed(masks)).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int32])
def test_interactions_in_half_precision_and_in_integers_are_seen(dtype):
    """Rounding of single embeddings is no reason to call all interactions rounding."""
    sides = InDtype(Smooth(9, seed=0), dtype), InDtype(Smooth(8, seed=1), dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advice = fixlip.advise(*sides, seconds=1, costs=0.001)
    assert sum(advice.masks) > 250  # of 512 + 256; the fewest are 76

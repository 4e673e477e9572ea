"""Mask samples, their weights, and sweeps, against literal enumeration and counted calls."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch

from fixlip.budget.grow import grow
from fixlip.games import joint_masks
from fixlip.sampler import (
    MaskSample,
    bernoulli,
    distinct,
    draw,
    enumerate_masks,
    shapley_masks,
    side_seeds,
    split_budget,
    sweep,
)
from fixlip.sampler.sweep import MIN_BATCH, embed_masks


class Counting:
    """A side that embeds a mask as itself and remembers what it was asked."""

    def __init__(self, n, limit=None):
        self.n, self.names, self.limit, self.batches = n, [f"p{i}" for i in range(n)], limit, []

    def embed(self, masks):
        if self.limit and len(masks) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        self.batches.append(masks.clone())
        return masks.float()

    @property
    def rows(self):
        return sum(map(len, self.batches))


def probability(mask, p):
    return math.prod(p if kept else 1 - p for kept in mask)


@pytest.mark.parametrize("p", [0.5, 0.3, 0.7, 0.999])
def test_enumeration_lists_every_mask_with_its_probability(p):
    sample = enumerate_masks(5, p=p)
    expected = {mask: probability(mask, p) for mask in itertools.product([False, True], repeat=5)}
    found = dict(zip(map(tuple, sample.masks.tolist()), sample.weights.tolist(), strict=True))
    assert found.keys() == expected.keys()
    assert all(found[k] == pytest.approx(expected[k], rel=1e-12) for k in expected)


def test_joint_masks_have_the_probability_of_their_side():
    p = 0.3, 0.8
    masks, weights = joint_masks(2, 3, 32, p=p)
    for mask, weight in zip(masks.tolist(), weights.tolist(), strict=True):
        expected = probability(mask[:2], p[0]) * probability(mask[2:], p[1])
        assert weight == pytest.approx(expected, rel=1e-12)
    assert len({*map(tuple, masks.tolist())}) == 32
    masks, weights = joint_masks(12, 13, 40_000, p=p, seed=3)
    z = masks.double()
    expected = torch.tensor([p[0]] * 12 + [p[1]] * 13)
    assert (z.mean(0) - expected).abs().max() < 5 * math.sqrt(0.25 / 40_000)
    covariance = torch.cov(z.T) - torch.diag(expected * (1 - expected))
    assert covariance.abs().max() < 5 / math.sqrt(40_000)
    assert (weights == 1 / 40_000).all()
    assert torch.equal(masks, joint_masks(12, 13, 40_000, p=p, seed=3)[0])
    assert not torch.equal(masks, joint_masks(12, 13, 40_000, p=p, seed=4)[0])
    assert joint_masks(0, 30, 7)[0].shape == (7, 30)


@pytest.mark.parametrize("p", [0.5, 0.2, 0.7])
@pytest.mark.parametrize("antithetic", [True, False])
def test_bernoulli_masks_have_the_right_law(p, antithetic):
    sample = bernoulli(6, 40_000, p=p, seed=3, antithetic=antithetic)
    z = sample.masks.double()
    assert z.mean(0).sub(p).abs().max() < 5 * math.sqrt(p * (1 - p) / 20_000)
    # pairs of players are independent within one mask
    both = (z[:, 0] * z[:, 1]).mean()
    assert abs(both - p * p) < 5 * math.sqrt(p * p / 20_000)


def test_bernoulli_detects_a_wrong_probability():
    z = bernoulli(6, 40_000, p=0.5, seed=3).masks.double()
    assert z.mean(0).sub(0.52).abs().max() > 5 * math.sqrt(0.25 / 20_000)


def test_antithetic_twins_are_complements_at_one_half_and_opposed_elsewhere():
    half = bernoulli(7, 100, p=0.5, seed=1).masks
    assert torch.equal(half[0::2], ~half[1::2])
    rare = bernoulli(7, 1000, p=0.3, seed=1).masks
    assert not (rare[0::2] & rare[1::2]).any()  # p <= .5: never kept in both twins
    often = bernoulli(7, 1000, p=0.7, seed=1).masks
    assert (often[0::2] | often[1::2]).all()
    assert bernoulli(7, 5, seed=1).m == 5


def test_seeds_give_the_same_masks_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    assert torch.equal(bernoulli(9, 50, seed=4).masks, bernoulli(9, 50, seed=4).masks)
    assert not torch.equal(bernoulli(9, 50, seed=4).masks, bernoulli(9, 50, seed=5).masks)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("p", [0.3, 0.5, 0.7])
@pytest.mark.parametrize(("n", "m"), [(8, 119), (10, 37), (5, 31), (30, 300)])
def test_distinct_masks_are_distinct_and_weighted_by_mass(n, m, p):
    sample = distinct(n, m, p=p, seed=2)
    assert sample.m == m == len(torch.unique(sample.masks, dim=0))
    exact = torch.tensor([probability(mask, p) for mask in sample.masks.tolist()])
    listed = torch.isclose(sample.weights, exact.double(), rtol=1e-9)
    if m == 119:  # the masses that the border trick lists at the paper's budget
        assert exact[listed].sum().item() == pytest.approx(
            {0.5: 0.0, 0.3: 0.552, 0.7: 0.552}[p], abs=1e-3
        )


def test_the_reference_weighting_over_weights_the_drawn_masks():
    mass, reference = (distinct(8, 119, p=0.3, seed=0, weighting=w) for w in ("mass", "reference"))
    assert torch.equal(mass.masks, reference.masks)
    listed = torch.isclose(
        mass.weights,
        torch.tensor([probability(z, 0.3) for z in mass.masks.tolist()], dtype=torch.float64),
    )
    assert mass.weights[listed].sum().item() == pytest.approx(0.5518, abs=1e-3)
    assert reference.weights[listed].sum().item() == pytest.approx(0.5518 / 1.5518, abs=1e-3)


def test_distinct_with_every_mask_is_the_enumeration():
    sample, all_ = distinct(6, 64, p=0.3), enumerate_masks(6, p=0.3)
    key = lambda s: dict(zip(map(tuple, s.masks.tolist()), s.weights.tolist(), strict=True))  # noqa: E731
    a, b = key(sample), key(all_)
    assert a.keys() == b.keys() and all(a[k] == pytest.approx(b[k], rel=1e-9) for k in a)
    with pytest.warns(UserWarning, match="only 64 masks"):
        assert distinct(6, 100, p=0.3).m == 64


def test_the_papers_budget_split():
    # (players, values) -> masks, worked out from the reference code's rule
    assert split_budget(49, 8, 2**19) == (4405, 119)
    assert split_budget(49, 12, 2**21) == (5907, 355)
    assert split_budget(196, 12, 2**21) == (23563, 89)
    assert split_budget(64, 12, 2**15) == (963, 34)
    assert split_budget(8, 49, 2**19) == (119, 4405)
    with pytest.raises(ValueError, match="cannot be split"):
        split_budget(49, 8, 3)


def test_a_sweep_embeds_every_distinct_mask_once_and_two_more():
    side = Counting(12)
    result = sweep(side, masks=500, seed=0, batch_size=64)
    assert side.rows <= 502
    asked = torch.cat(side.batches)
    assert len(torch.unique(asked, dim=0)) == len(asked)
    assert all(len(b) == 64 for b in side.batches[:-1])
    assert torch.equal(result.embeddings, result.masks.float())
    assert torch.equal(result.ends, torch.tensor([[0.0] * 12, [1.0] * 12]))


def test_a_sweep_lists_all_masks_where_it_can():
    side = Counting(5)
    result = sweep(side, masks=32, p=0.3)
    assert side.rows == 32 and result.sample.sampling == "enumerated"


def test_the_last_batch_is_not_a_handful():
    # products of one or two rows go through other kernels and differ in the last bit
    for m in range(60, 75):
        side = Counting(20)
        masks = torch.unique(bernoulli(20, m, seed=3).masks, dim=0)
        assert torch.equal(embed_masks(side, masks, batch_size=32), masks.float())
        assert side.rows == len(masks)
        assert all(MIN_BATCH <= len(batch) <= 32 for batch in side.batches)


@pytest.mark.parametrize("sampling", ["antithetic", "independent"])
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_more_masks_of_a_seed_begin_with_the_fewer(sampling, p):
    for n in (1, 7, 60):
        many = draw(30 + n, 1001, p=p, seed=5, sampling=sampling).masks
        for m in (1, 2, 15, 16, 17, 64, 333, 1000):
            assert torch.equal(draw(30 + n, m, p=p, seed=5, sampling=sampling).masks, many[:m])


@pytest.mark.parametrize("sampling", ["antithetic", "independent", "distinct"])
@pytest.mark.parametrize(("n", "masks"), [(30, (40, 41, 200)), (8, (20, 90, 256)), (3, (5, 9, 9))])
def test_an_extended_sweep_is_the_larger_sweep(sampling, n, masks):
    side = Counting(n)
    grown = sweep(side, masks=masks[0], p=0.4, seed=2, sampling=sampling)
    for m in masks[1:]:
        grown = grow(grown, side, m)
    at_once = sweep(Counting(n), masks=masks[-1], p=0.4, seed=2, sampling=sampling)
    assert torch.equal(grown.masks, at_once.masks)
    assert torch.equal(grown.weights, at_once.weights)
    assert torch.equal(grown.embeddings, at_once.embeddings)
    assert torch.equal(grown.ends, at_once.ends)
    assert (grown.sample.sampling, grown.names) == (at_once.sample.sampling, at_once.names)
    if sampling != "distinct":
        asked = torch.cat(side.batches)
        assert len(torch.unique(asked, dim=0)) == len(asked)  # nothing twice
        assert side.rows <= min(masks[-1], 2**n) + 2


def test_a_sample_of_the_reference_weighting_keeps_it_when_it_grows():
    """A sample that says "distinct" would grow by the other weighting, and its error bars too."""
    side, options = Counting(8), {"p": 0.4, "seed": 2, "weighting": "reference"}
    sample = distinct(8, 40, **options)
    grown = grow(sweep(side, masks=sample), side, 90)
    assert sample.sampling == grown.sample.sampling == "distinct-reference"
    assert torch.equal(grown.weights, distinct(8, 90, **options).weights)
    assert not torch.equal(grown.weights, distinct(8, 90, p=0.4, seed=2).weights)
    shapley = shapley_masks(8, 40, weighting="reference")
    assert shapley.sampling == "shapley-reference"
    with pytest.raises(ValueError, match="not drawn with a seed"):
        grow(sweep(side, masks=shapley), side, 90)


def test_a_sweep_is_not_extended_by_another_picture():
    """Patches have the same names in every picture."""
    one, other = Counting(8), Counting(8)
    one.info, other.info = {"source": "a.png"}, {"source": "b.png"}
    swept = sweep(one, masks=16)
    assert grow(swept, one, 32).sample.m == 32
    with pytest.raises(ValueError, match="image, caption or model differs"):
        grow(swept, other, 32)


def test_a_sweep_is_extended_by_its_own_side_and_to_more_masks():
    side = Counting(20)
    swept = sweep(side, masks=20)
    with pytest.raises(ValueError, match="20 masks cannot be grown to 10"):
        grow(swept, side, 10)
    with pytest.raises(ValueError, match="the side that made it"):
        grow(swept, Counting(21), 30)
    with pytest.raises(ValueError, match="number of masks"):
        grow(swept, side, 2.5)
    given = sweep(side, masks=MaskSample(swept.masks, swept.weights))
    with pytest.raises(ValueError, match="'given' sample was not drawn with a seed"):
        grow(given, side, 30)


def test_a_batch_that_does_not_fit_is_halved_and_the_sweep_goes_on():
    side = Counting(20, limit=40)
    with pytest.warns(UserWarning, match="do not fit in memory: going on with") as caught:
        result = sweep(side, masks=200, batch_size=128)
    assert len(caught) == 2  # 128 -> 64 -> 32
    assert torch.equal(result.embeddings, result.masks.float())
    with pytest.raises(torch.OutOfMemoryError):
        sweep(Counting(20, limit=0.5), masks=4)


def test_other_errors_of_the_encoder_pass_through():
    class Broken(Counting):
        def embed(self, masks):
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        sweep(Broken(4), masks=4)


@pytest.mark.parametrize("p", [0, 1, -0.1, 1.5, float("nan"), "half", None, True])
def test_p_outside_the_open_interval_is_refused(p):
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        sweep(Counting(30), masks=4, p=p)


@pytest.mark.parametrize("masks", [0, -3, 2.5, "many", True])
def test_impossible_numbers_of_masks_are_refused(masks):
    with pytest.raises(ValueError, match="number of masks"):
        sweep(Counting(3), masks=masks)


def test_masks_of_the_wrong_shape_or_type_are_refused():
    ones = torch.ones(3, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"1 and 0.*got dtype torch\.float32"):
        MaskSample(torch.full((3, 4), 0.5), ones)
    with pytest.raises(TypeError, match="got list"):
        MaskSample([[None]], ones)
    with pytest.raises(ValueError, match=r"\(masks, players\)"):
        MaskSample(torch.ones(3, dtype=torch.bool), ones)
    with pytest.raises(ValueError, match="one weight per mask"):
        MaskSample(torch.ones(2, 4, dtype=torch.bool), ones)
    with pytest.raises(ValueError, match="3 numbers of weights are NaN"):
        MaskSample(torch.ones(3, 4, dtype=torch.bool), ones * float("nan"))
    with pytest.raises(ValueError, match="no masks"):
        MaskSample(torch.ones(0, 4, dtype=torch.bool), ones[:0])
    wrong = MaskSample(torch.ones(3, 4, dtype=torch.bool), ones)
    with pytest.raises(ValueError, match=r"\(masks, 5\)"):
        sweep(Counting(5), masks=wrong)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match='sampling must be "antithetic"'):
        draw(30, 10, sampling="sobol")
    with pytest.raises(ValueError, match='weighting must be "mass"'):
        distinct(30, 10, weighting="code")
    with pytest.raises(ValueError, match="batch_size must be a whole number of 1 or more"):
        sweep(Counting(3), masks=4, batch_size=0)
    with pytest.raises(ValueError, match="cannot be listed"):
        enumerate_masks(40)


@pytest.mark.parametrize("kind", [np.array, list, torch.tensor])
def test_samples_of_ones_own_are_taken_as_arrays_and_lists(kind):
    rows = [[True, False], [False, False], [True, True]]
    sample = MaskSample(kind(rows), kind([1, 2, 1]), np.float32(0.25))
    assert sample.masks.tolist() == rows and sample.weights.tolist() == [0.25, 0.5, 0.25]
    assert type(sample.p) is float
    huge = MaskSample(kind(rows), kind(np.full(3, 1e308)))
    assert huge.weights.tolist() == pytest.approx([1 / 3] * 3)


def test_a_sample_is_enumerated_only_if_it_is():
    """Its errors count as 0, and its rows are read as those of `enumerate_masks`."""
    every = enumerate_masks(3, p=0.3)
    MaskSample(every.masks, every.weights * 7, 0.3, "enumerated")
    for masks, weights in (
        (every.masks.flip(0), every.weights),
        (every.masks[:4], every.weights[:4]),
        (every.masks, torch.ones(8)),
    ):
        with pytest.raises(ValueError, match='"enumerated"'):
            MaskSample(masks, weights, 0.3, "enumerated")
    with pytest.raises(ValueError, match="sampling must be"):
        MaskSample(every.masks, every.weights, 0.3, "Antithetic")
    assert enumerate_masks(5, p=1e-70).weights[0] == 1


@pytest.mark.parametrize("sampling", ["antithetic", "independent", "distinct"])
def test_numpy_numbers_are_numbers(sampling):
    """Also small ones, whose arithmetic would overflow."""
    for kind in (np.int64, np.uint8):
        one = draw(kind(9), kind(255), p=np.float32(0.5), seed=kind(3), sampling=sampling)
        other = draw(9, 255, seed=3, sampling=sampling)
        assert torch.equal(one.masks, other.masks) and type(one.seed) is int
    for seed in (-1, 1.5, "1", True, None, 2**64):
        with pytest.raises(ValueError, match="seed must be"):
            draw(9, 20, seed=seed, sampling=sampling)
        with pytest.raises(ValueError, match="seed must be"):
            side_seeds(seed)


def test_rows_that_an_encoder_gives_are_copied():
    class SameMemory(Counting):
        rows_of_all = torch.empty(64, 3)

        def embed(self, masks):
            rows = self.rows_of_all[: len(masks)]
            rows[:] = masks[:, :3].float().requires_grad_()
            return rows

    swept = sweep(SameMemory(5), masks=32, batch_size=10)
    assert torch.equal(swept.embeddings, swept.masks[:, :3].float())
    assert not swept.embeddings.requires_grad


def test_broken_encoders_are_named():
    class Complex(Counting):
        def embed(self, masks):
            return torch.ones(len(masks), 3) * 1j

    class Widening(Counting):
        width = 2

        def embed(self, masks):
            self.width += 1
            return torch.ones(len(masks), self.width)

    class Unnamed(Counting):
        def __init__(self, n):
            super().__init__(n)
            self.names = self.names[1:]

    for kind, message in (
        (Complex, "returned torch.complex64 of width 3, and real numbers"),
        (Widening, "of width 4, and width 3 before"),
        (Unnamed, "5 players and 4 names"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep(kind(5), masks=32, batch_size=10)

    class Nan(Counting):
        def embed(self, masks):
            return torch.full((len(masks), 3), float("nan"))

    class Short(Counting):
        def embed(self, masks):
            return torch.zeros(1, 3)

    with pytest.raises(ValueError, match="NaN or infinite embeddings for 16 of 16"):
        sweep(Nan(4), masks=16)
    with pytest.raises(ValueError, match=r"given 16 masks and returned \(1, 3\)"):
        sweep(Short(4), masks=16)


@pytest.mark.parametrize("p", [0.001, 0.999])
def test_extreme_p_gives_finite_weights(p):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sampling in ("antithetic", "independent", "distinct"):
            assert np.isfinite(draw(60, 50, p=p, sampling=sampling).weights.numpy()).all()

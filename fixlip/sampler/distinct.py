"""Masks without repetition: the published samplers, which list whole sizes and draw the others."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from scipy.special import comb
from scipy.stats import binom

from fixlip import checks
from fixlip.checks import MAX_ENUMERATED, one_of, probability, warn
from fixlip.sampler.masks import MaskSample, check_counts, distinct_rows

ENDING = {"mass": "", "reference": "-reference"}  # of the sample's name, by weighting


def distinct(
    n: int, m: int, *, p: float = 0.5, seed: int = 0, weighting: str = "mass"
) -> MaskSample:
    """Draw masks until m distinct ones are seen: the sampler of the FIxLIP experiments.

    Sizes that the budget covers completely are listed in full (the "border trick"); the others are
    drawn by size and then uniformly, and a mask drawn again counts again.

    Parameters
    ----------
    n, m : int
        Players, and distinct masks (clamped to 2**n with a warning).
    p, seed : float, int
        Probability of keeping a player, in (0, 1); the same seed gives the same masks.
    weighting : {"mass", "reference"}
        "mass" gives the drawn masks together the probability that the listed ones leave over.
        "reference" gives them probability 1 instead, which over-weights them wherever the border
        trick is partial: it reproduces the weights of the published code. Terms are biased by it,
        and a fit warns where that exceeds their error bars: where listed masks have more than half
        of the probability, as they do where p is far from .5 or m near 2**n.

    References
    ----------
    Baniecki et al., "Explaining Similarity in Vision-Language Encoders with Weighted Banzhaf
    Interactions", NeurIPS 2025, and its reference code.
    """
    n, m = check_counts(n, m)
    p, seed = probability(p), checks.seed(seed)
    if n <= MAX_ENUMERATED and m > 2**n:
        warn(f"{n} players have only {2**n} masks, not {m}: using all")
        m = 2**n

    masks, weights = _distinct_by_size(n, m, binom.pmf(np.arange(n + 1), n, p), seed, weighting)
    return MaskSample(masks, weights, p, f"distinct{ENDING[weighting]}", seed)


def shapley_masks(n: int, m: int, *, seed: int = 0, weighting: str = "mass") -> MaskSample:
    """Draw distinct masks with the Shapley kernel as their weights: neither empty nor full.

    A mask of size k has the weight 1 / C(n - 2, k - 1), so that all masks of size k together have
    a weight in proportion to 1 / (k (n - k)); the empty and the full mask have infinite weight and
    are left to the fit. Sizes are listed or drawn as in `distinct`.

    Parameters
    ----------
    n, m : int
        Players, at least 2, and distinct masks (clamped to 2**n - 2 with a warning).
    seed, weighting : int, str
        As in `distinct`. The sample's p is .5, the share of players that the kernel keeps.

    References
    ----------
    Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017; for
    second order Tsai, Yeh and Ravikumar, "Faith-Shap", JMLR 24, 2023.

    Examples
    --------
    >>> sample = shapley_masks(3, 6)
    >>> sample.masks.sum(1).tolist(), round(float(sample.weights[0]), 4)
    ([1, 1, 1, 2, 2, 2], 0.1667)
    """
    (n, m), seed = check_counts(n, m), checks.seed(seed)
    if n < 2:
        raise ValueError("one player has no mask that is neither empty nor full: give 2 or more")
    if n <= MAX_ENUMERATED and m > 2**n - 2:
        warn(f"{n} players have {2**n - 2} such masks, not {m}: using all")
        m = 2**n - 2
    sizes = np.arange(1, n)
    mass = np.zeros(n + 1)
    mass[1:n] = 1 / (sizes * (n - sizes))
    masks, weights = _distinct_by_size(n, m, mass / mass.sum(), seed, weighting)
    return MaskSample(masks, weights, 0.5, f"shapley{ENDING[weighting]}", seed)


def _distinct_by_size(
    n: int, m: int, mass: np.ndarray, seed: int, weighting: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw m distinct masks by the probability of their size, (n + 1,), with the border trick."""
    one_of("weighting", weighting, ENDING)
    sizes = np.arange(n + 1)
    count = comb(n, sizes)
    listed, left = np.zeros(n + 1, bool), m
    while left > 0 and mass[~listed].sum() > 0:
        share = np.where(listed, 0, mass) / mass[~listed].sum()
        covered = ~listed & (mass > 0) & (left * share >= count * (1 - 1e-12))
        if not covered.any():
            break
        listed |= covered
        left -= round(count[covered].sum())

    parts = [torch.from_numpy(_masks_of_size(n, k)) for k in sizes[listed]]
    each = mass[listed] / count[listed]
    weights = [
        torch.full((len(part),), w, dtype=torch.float64)
        for part, w in zip(parts, each, strict=True)
    ]
    rest = np.where(listed, 0, mass)
    if left > 0 and rest.sum() > 0:
        drawn, frequency = _draw_distinct(n, left, rest, seed)
        parts.append(drawn)
        weights.append(frequency * (rest.sum() if weighting == "mass" else 1.0))
    return torch.cat(parts), torch.cat(weights)


def _masks_of_size(n: int, size: int) -> np.ndarray:
    """All masks with exactly ``size`` players kept: (C(n, size), n), bool."""
    kept = np.array(list(itertools.combinations(range(n), size)), dtype=np.int64)
    masks = np.zeros((len(kept), n), bool)
    np.put_along_axis(masks, kept.reshape(len(kept), size), True, axis=1)
    return masks


def _draw_distinct(
    n: int, m: int, mass: np.ndarray, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw sizes by ``mass``, subsets uniformly, until m masks are distinct: masks, frequencies."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((0, n), bool)
    while True:
        size = rng.choice(n + 1, size=max(m, 256), p=mass / mass.sum())
        rank = rng.random((len(size), n)).argsort(1).argsort(1)  # a uniform order of the players
        draws = np.concatenate([draws, rank < size[:, None]])  # (draws, n)
        first, group = distinct_rows(draws)
        if len(first) >= m:
            break
    stop = np.sort(first)[m - 1] + 1  # the draw that brought the m-th distinct mask is the last
    kept = np.sort(first[first < stop])
    counts = np.bincount(group[:stop], minlength=len(first))
    return torch.from_numpy(draws[kept]), torch.from_numpy(counts[group[kept]] / stop)


def split_budget(n_image: int, n_text: int, values: int) -> tuple[int, int]:
    """Split a number of game values into image and text masks as the FIxLIP experiments do.

    The smaller side gets max(4, sqrt(values) * its players / the larger side's players) masks, at
    most all it has; the larger side gets what makes up the product.

    Parameters
    ----------
    n_image, n_text, values : int
        Players of each side, and the wanted number of game values m_I * m_T, at least 4.

    Examples
    --------
    >>> split_budget(49, 8, 2**19)
    (4405, 119)
    """
    if values < 4:
        raise ValueError(f"a budget of {values} game values cannot be split: give 4 or more")
    small, large = sorted((n_image, n_text))
    few = min(math.ceil(max(4.0, math.sqrt(values) * small / large)), 2**small)
    many = values // few
    return (many, few) if n_text < n_image else (few, many)

"""Other estimators of Banzhaf interactions: direct means, cross-fitting, another ridge, leverage.

They serve as comparisons in `estimators.py`. Each turns a sample of masks and what was answered,
Y (m, k), into Banzhaf values (n, k) and interactions of pairs (n, n, k).
"""

import math

import numpy as np
import torch
from scipy.stats import binom

from fixlip.sampler import MaskSample
from fixlip.solver.polynomial import Design, Problem

Terms = tuple[torch.Tensor, torch.Tensor]


def means(sample: MaskSample, Y: torch.Tensor) -> Terms:
    """Plain means of Y times the basis, after Y's own mean is taken off.

    In x = (z - p) / sqrt(p (1 - p)) the monomials are orthonormal under the product measure, so
    every coefficient is such a mean, and every mask serves every term.
    """
    sd = math.sqrt(sample.p * (1 - sample.p))
    x = (sample.masks.double() - sample.p) / sd  # (m, n)
    Y = sample.weights[:, None] * (Y - sample.weights @ Y)  # (m, k)
    pairs = torch.einsum("mi,mj,mk->ijk", x, x, Y)
    return x.T @ Y / sd, pairs * (1 - torch.eye(sample.n))[..., None] / sd**2


def regression(sample: MaskSample, Y: torch.Tensor) -> Terms:
    """Order-2 fit with the automatic ridge, also of the embedding itself."""
    return _values(_fit(sample, Y), sample.p)


def adjusted(sample: MaskSample, Y: torch.Tensor) -> Terms:
    """A fit to half of the masks plus the means of its residuals on the other half; both ways.

    Unbiased whatever the fit is. Antithetic twins stay together.

    References
    ----------
    Regression-adjusted maximum sample reuse: Witter et al., 2025, arXiv 2506.11849.
    """
    if sample.sampling == "enumerated":
        return means(sample, Y)  # exact already
    half = torch.arange(sample.m) // 2 % 2
    found = []
    for fold in (0, 1):
        train, test = half == fold, half != fold
        fit = _fit(_part(sample, train), Y[train])
        residual = Y[test] - _value(fit, sample.masks[test].double())
        parts = _values(fit, sample.p), means(_part(sample, test), residual)
        found.append([a + b for a, b in zip(*parts, strict=True)])
    return tuple((a + b) / 2 for a, b in zip(*found, strict=True))


def uniform(sample: MaskSample, Y: torch.Tensor) -> Terms:
    """Order-2 fit whose ridge expects the same of all pairs, whichever players they are of."""
    fit = _fit(sample, Y, Alike)
    return _values(fit, sample.p)


class Alike(Design):
    """A design that takes all its players to be equally strong."""

    @property
    def strength(self) -> torch.Tensor:
        return torch.ones_like(self.X[0])


def _fit(
    sample: MaskSample, Y: torch.Tensor, kind: type[Design] = Design
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Constant (k,), first order (n, k) and pairs (n, n, k) of the order-2 polynomial."""
    everyone = torch.arange(sample.n)
    design, mean = kind(sample, Y, "side"), sample.weights @ Y
    e0, e1, e2 = Problem(design, everyone, everyone, "auto", Y - mean).fit(Y - mean)
    return e0 + mean, e1, e2


def _value(fit: tuple[torch.Tensor, torch.Tensor, torch.Tensor], Z: torch.Tensor) -> torch.Tensor:
    e0, e1, e2 = fit
    pairs = torch.stack([((Z @ e) * Z).sum(1) / 2 for e in e2.unbind(-1)], 1)  # (m, k)
    return e0 + Z @ e1 + pairs


def _values(fit: tuple[torch.Tensor, torch.Tensor, torch.Tensor], p: float) -> Terms:
    _, e1, e2 = fit
    return e1 + p * e2.sum(1), e2


def _part(sample: MaskSample, rows: torch.Tensor) -> MaskSample:
    return MaskSample(sample.masks[rows], sample.weights[rows], sample.p, sample.sampling)


def leverage_masks(n: int, m: int, *, p: float, seed: int) -> MaskSample:
    """Draw masks by probability times leverage in the order-2 design, weighted back.

    A row's leverage in an orthonormal design is its squared length: one, plus x_i^2 and x_i^2 x_j^2
    summed. It depends on the mask's size only, and at p = .5 not even on that.

    References
    ----------
    For Shapley values: Musco and Witter, "Provably Accurate Shapley Value Estimation via Leverage
    Score Sampling", ICLR 2025.
    """
    size = np.arange(n + 1)
    kept, removed = (1 - p) / p, p / (1 - p)  # x^2
    square = size * kept + (n - size) * removed
    fourth = size * kept**2 + (n - size) * removed**2
    leverage = 1 + square + (square**2 - fourth) / 2
    mass = binom.pmf(size, n, p) * leverage
    rng = np.random.default_rng(seed)
    sizes = rng.choice(n + 1, size=m, p=mass / mass.sum())
    masks = rng.random((m, n)).argsort(1).argsort(1) < sizes[:, None]
    return MaskSample(torch.from_numpy(masks), torch.from_numpy(1 / leverage[sizes]), p, "given")

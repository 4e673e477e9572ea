"""Sides and games with closed forms, and slow literal oracles, shared by the tests of the core."""

import itertools

import numpy as np
import torch


class Smooth:
    """A side whose embedding is a smooth function with interactions of every order."""

    def __init__(self, n, width=16, seed=0, info=None):
        rng = torch.Generator().manual_seed(seed)
        self.n, self.names = n, [f"{'wp'[seed % 2]}{i}" for i in range(n)]
        self.info = info or {}
        self.inner = torch.randn(n, 24, generator=rng, dtype=torch.float64) * 1.5 / n**0.5
        self.outer = torch.randn(24, width, generator=rng, dtype=torch.float64)

    def embed(self, masks):
        return torch.tanh(masks.double() @ self.inner + 0.3) @ self.outer


class Polynomial:
    """A side whose embedding is an order-2 polynomial of the mask, with the coefficients known."""

    def __init__(self, n, width=8, seed=0):
        rng = torch.Generator().manual_seed(seed)
        self.n, self.names, self.info = n, [f"q{i}" for i in range(n)], {}
        self.const = torch.randn(width, generator=rng, dtype=torch.float64)
        self.first = torch.randn(n, width, generator=rng, dtype=torch.float64)
        self.i, self.j = torch.triu_indices(n, n, 1)
        self.pairs = torch.randn(len(self.i), width, generator=rng, dtype=torch.float64)

    def embed(self, masks):
        z = masks.double()
        return self.const + z @ self.first + (z[:, self.i] * z[:, self.j]) @ self.pairs


def all_masks(n):
    """Every mask of n players, literally: (2**n, n), bool."""
    return torch.tensor(list(itertools.product([False, True], repeat=n)))


def exact_terms(game, p):
    """Order-2 weighted Banzhaf terms by the definition, from all 2**n values.

    e2[i, j] is the expected second difference over the other players kept with probability p,
    I(i) the expected first difference, e1 = I - sum_j p_j e2[i, j], and e0 makes the mean right
    (Marichal and Mathonet, 2011).
    """
    p = np.asarray(p, float)
    n = len(p)
    masks = all_masks(n)
    value = dict(zip(map(tuple, masks.tolist()), game(masks).tolist(), strict=True))

    def mean_difference(of):
        total = 0.0
        for mask in masks.tolist():
            if any(mask[i] for i in of):
                continue
            chance = np.prod([p[k] if mask[k] else 1 - p[k] for k in range(n) if k not in of])
            for kept in itertools.product([0, 1], repeat=len(of)):
                with_kept = list(mask)
                for i, bit in zip(of, kept, strict=True):
                    with_kept[i] = bool(bit)
                total += chance * (-1) ** (len(of) - sum(kept)) * value[tuple(with_kept)]
        return total

    e2 = np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        e2[i, j] = e2[j, i] = mean_difference((i, j))
    index = np.array([mean_difference((i,)) for i in range(n)])
    e1 = index - e2 @ p
    e0 = mean_difference(()) - p @ e1 - p @ e2 @ p / 2
    return e0, e1, e2

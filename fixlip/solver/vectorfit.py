"""One side's embedding as an order-2 polynomial of its masks, with vectors as coefficients."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from fixlip.solver.fit import Problem

BLOCK = 2**24  # most float64 entries of one block of work: 128 MB
MAX_DEVIATIONS = 2**28  # most float32 entries kept for error bars: 1 GB


@dataclass(frozen=True, eq=False)
class VectorPolynomial:
    """One side's embedding as an order-2 polynomial of the side's masks.

    Attributes
    ----------
    n : int
        Players of the side.
    p : float
        Probability of being kept.
    among : numpy.ndarray, (k,), int
        Players that have pairs with each other.
    terms : numpy.ndarray, (1 + n + k (k - 1) / 2, r), float64
        Coefficients of 1, z_i and z_i z_j. Both sides' rows are written in the same orthonormal
        basis, which holds all that their inner products need: r is at most the embedding width.
    deviations : numpy.ndarray or None
        (groups, rows of terms, r or fewer), float32: what each group of masks adds to the terms.
    """

    n: int
    p: float
    among: np.ndarray
    terms: np.ndarray
    deviations: np.ndarray | None = None

    def __post_init__(self) -> None:
        rows = 1 + self.n + len(self.among) * (len(self.among) - 1) // 2
        if self.terms.ndim != 2 or len(self.terms) != rows:
            raise ValueError(
                f"{self.n} players with pairs among {len(self.among)} need {rows} rows of terms; "
                f"got {self.terms.shape}"
            )

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Evaluate at masks (m, n), float: (m, r)."""
        i, j = self.pairs.T
        step = max(1, BLOCK // len(self.terms))
        result = np.empty((len(z), self.terms.shape[1]))
        for start in range(0, len(z), step):
            x = z[start : start + step]
            design = np.concatenate([np.ones((len(x), 1)), x, x[:, i] * x[:, j]], 1)
            result[start : start + step] = design @ self.terms
        return result

    @cached_property
    def pairs(self) -> np.ndarray:
        """Players of each pair, (pairs, 2)."""
        return self.among[np.stack(np.triu_indices(len(self.among), 1), 1)]

    @cached_property
    def row(self) -> dict[tuple[int, ...], int]:
        """Row of ``terms`` of every set of players: (), (i,) or (i, j) with i < j."""
        keys = [(), *((i,) for i in range(self.n)), *map(tuple, self.pairs.tolist())]
        return {key: row for row, key in enumerate(keys)}

    @cached_property
    def expected(self) -> np.ndarray:
        """Expected discrete derivative of every set under p, rows as in ``terms``: index vectors.

        The mean for (), A_i + p sum_j A_ij for (i,), and A_ij for (i, j).
        """
        expected, k = self.terms.copy(), len(self.among)
        start = 1 + self.n
        for a in range(k - 1):  # the pairs of player among[a] with later ones lie together
            block = self.p * self.terms[start : start + k - 1 - a]  # (k - 1 - a, r)
            expected[1 + self.among[a]] += block.sum(0)
            expected[1 + self.among[a + 1 :]] += block
            start += k - 1 - a
        singles = (self.terms[1 : 1 + self.n] + expected[1 : 1 + self.n]) / 2  # a pair counts once
        expected[0] += self.p * singles.sum(0)
        return expected

    def moved(self, group: int) -> VectorPolynomial:
        """The polynomial with what one group of masks adds to it."""
        terms, deviation = self.terms.copy(), self.deviations[group]
        terms[:, : deviation.shape[1]] += deviation
        return replace(self, terms=terms, deviations=None)


def fit_embeddings(
    image: Problem, text: Problem, *, errors: bool
) -> tuple[VectorPolynomial, VectorPolynomial]:
    """Fit both sides' embeddings, for inner products of one with the other.

    Only inner products matter, so the fits are made in a basis of the space that the side with
    fewer terms fills. An error of that side's own terms may point anywhere: with it, the basis
    goes on to the whole space, and the other side's errors keep to the basis' beginning.

    Parameters
    ----------
    image, text : Problem
        Order-2 problems of the embeddings.
    errors : bool
        Also find what each group of masks adds to the terms.
    """
    problems = (image, text)
    sizes = [_rows(problem) for problem in problems]
    small = int(sizes[1] <= sizes[0])
    width = image.side.E.shape[1]
    shared = min(width, sizes[small])  # columns that the smaller side's terms fill
    groups = [problem.side.members().shape[1] if errors else 0 for problem in problems]
    columns = [shared, shared]
    columns[small] = width if groups[small] else shared
    entries = sum(g * q * c for g, q, c in zip(groups, sizes, columns, strict=True))
    if entries > MAX_DEVIATIONS:
        warnings.warn(
            f"error bars of the third- and fourth-order terms would take {entries * 4 / 2**30:.1f} "
            'GB, so only those of order 2 are kept: use basis="top" or fewer players for all of '
            "them, or errors=False for none",
            stacklevel=3,
        )
        errors, columns[small] = False, shared
    fewer = problems[small]
    terms = _terms(fewer, fewer.side.E)  # (q, D)
    mode = "complete" if columns[small] > shared else "reduced"
    basis = torch.linalg.qr(terms.T, mode=mode).Q  # (D, r): the first columns span the terms
    fits = []
    for problem, used in zip(problems, columns, strict=True):
        of_side = terms @ basis if problem is fewer else _terms(problem, problem.side.E @ basis)
        deviations = _deviations(problem, basis[:, :used]) if errors else None
        fits.append(
            VectorPolynomial(
                problem.side.n,
                problem.side.p,
                problem.among.numpy(),
                of_side.cpu().numpy(),
                deviations,
            )
        )
    return fits[0], fits[1]


def _rows(problem: Problem) -> int:
    """Number of terms of a side's fit."""
    return 1 + problem.side.n + len(problem.among) * (len(problem.among) - 1) // 2


def _terms(problem: Problem, Y: torch.Tensor) -> torch.Tensor:
    """Terms of targets (m, k) below each other, (1 + n + pairs, k): some targets at a time."""
    i, j = torch.triu_indices(len(problem.among), len(problem.among), 1)
    i, j = problem.among[i], problem.among[j]
    blocks = []
    for part in Y.split(max(1, BLOCK // problem.side.n**2), dim=1):
        const, first, pairs = problem.terms(part)
        blocks.append(torch.cat([const[None], first, pairs[i, j]]))
    return torch.cat(blocks, 1)


def _deviations(problem: Problem, basis: torch.Tensor) -> np.ndarray:
    """What each group of masks adds to the terms in a basis (D, r): (groups, q, r), float32.

    The grouped jackknife of `fixlip.solver`. Here a side's fit does not know the other side.
    """
    side, member, r = problem.side, problem.side.members(), basis.shape[1]
    residual = problem.residual(side.E @ basis)  # (m, r)
    result = np.empty((member.shape[1], _rows(problem), r), np.float32)
    step = max(1, BLOCK // (max(side.m, side.n**2) * r))
    for start in range(0, len(result), step):
        part = member[:, start : start + step]  # (m, b)
        targets = (residual[:, None] * part[..., None]).flatten(1)  # (m, b r)
        moved = _terms(problem, targets).unflatten(1, (-1, r))  # (q, b, r)
        result[start : start + step] = moved.transpose(0, 1).cpu().numpy()
    return result

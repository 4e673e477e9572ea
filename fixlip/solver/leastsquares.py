"""Penalised weighted least squares with free terms, factorised once for all targets and penalties.

Minimises sum_r w_r |Y_r - free_r a - columns_r b|^2 + ridge |b|^2. The free terms are projected
out; what remains is solved by the eigenvectors of the smaller of the columns' two Gram matrices,
(q, q) or (m, m), so neither many masks nor many terms need a large system.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

BLOCK = 2**24  # maximum entries of a block of design columns, float64: 128 MB
KEPT = 2**22  # largest design, in entries, that is cached: 32 MB


@dataclass(frozen=True)
class Columns:
    """Design columns of penalised terms: x_i of ``first``, and x_i x_j - shift among ``pairs``.

    With ``split``, pairs are only those of one of the first ``split`` players with a later one.
    """

    first: torch.Tensor  # (m, n1)
    pairs: torch.Tensor  # (m, n2)
    shift: float = 0.0
    split: int | None = None

    @property
    def count(self) -> int:
        """Number of columns, q."""
        n, k = self.pairs.shape[1], self.split
        return self.first.shape[1] + (n * (n - 1) // 2 if k is None else k * (n - k))

    def positions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions i < j in ``pairs`` of each pair's players, in the order of the columns."""
        i, j = torch.triu_indices(*(self.pairs.shape[1],) * 2, 1)
        if self.split is not None:
            across = (i < self.split) & (j >= self.split)
            i, j = i[across], j[across]
        return i, j

    def kernel(self) -> torch.Tensor:
        """Inner products of all rows, (m, m), without forming the columns."""
        x, k = self.pairs, self.split
        if k is None:
            squares = x.square()
            products = ((x @ x.T).square() - squares @ squares.T) / 2
            total = (x.sum(1).square() - squares.sum(1)) / 2  # (m,): of all pairs
        else:
            products = (x[:, :k] @ x[:, :k].T) * (x[:, k:] @ x[:, k:].T)
            total = x[:, :k].sum(1) * x[:, k:].sum(1)
        if self.shift:
            q, total = self.count - self.first.shape[1], self.shift * total
            products = products - total - total[:, None] + q * self.shift**2
        return self.first @ self.first.T + products

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Rows of the design, a bounded block at a time: slice, (b, q)."""
        m = self.first.shape[0]
        if m * self.count <= KEPT:
            yield slice(0, m), self._whole
            return
        step = max(1, BLOCK // self.count)
        for start in range(0, m, step):
            rows = slice(start, min(m, start + step))
            yield rows, self._rows(rows)

    @cached_property
    def _whole(self) -> torch.Tensor:
        return self._rows(slice(None))

    def _rows(self, rows: slice) -> torch.Tensor:
        x, (i, j) = self.pairs[rows], self.positions()
        return torch.cat([self.first[rows], x[:, i] * x[:, j] - self.shift], 1)


class LeastSquares:
    """A factorised problem: `choose` a penalty for some targets, then `solve` for any.

    Parameters
    ----------
    free : torch.Tensor, (m, f)
        Terms without penalty.
    columns : Columns
        Penalised terms, (m, q).
    w : torch.Tensor, (m,)
        Weights, positive.
    trust : float
        Share of the solution that is not penalised, from 0 to 1. Where the rows are nearly all that
        there are, a penalty would take for noise what is the whole truth.
    """

    Q: torch.Tensor  # (m, rank): an orthonormal basis of the free terms' columns, times roots of w
    s: torch.Tensor  # (rank,): their singular values
    Vt: torch.Tensor  # (rank, f)
    values: torch.Tensor  # (r,): eigenvalues of the smaller Gram matrix of the penalised columns
    V: torch.Tensor  # (q or m, r): its eigenvectors

    def __init__(
        self, free: torch.Tensor, columns: Columns, w: torch.Tensor, trust: float = 0.0
    ) -> None:
        self.free, self.columns, self.trust = free, columns, trust
        self.root = w.sqrt()[:, None]  # (m, 1)
        Q, R = torch.linalg.qr(self.root * free)
        U, s, self.Vt = torch.linalg.svd(R, full_matrices=False)
        keep = s > s.max() * 1e-11 if s.numel() else s > 0
        self.Q, self.s, self.Vt = Q @ U[:, keep], s[keep], self.Vt[keep]  # Q (m, rank): orthonormal
        self.primal = columns.count <= len(w)
        if columns.count:
            values, V = torch.linalg.eigh(self._gram() if self.primal else self._kernel())
            inside = values > values[-1].clamp(min=0) * 1e-11
            self.values, self.V = values[inside], V[:, inside]
        else:
            self.values, self.V = self.root[:0, 0], self.root[:, :0]

    @property
    def n_terms(self) -> int:
        """How many terms there are, free and penalised."""
        return self.free.shape[1] + self.columns.count

    @property
    def undetermined(self) -> int:
        """How many terms the rows do not determine: only a penalty does."""
        return self.n_terms - len(self.s) - len(self.values)

    def _gram(self) -> torch.Tensor:
        """Gram matrix of the columns, (q, q), after the free terms are projected out."""
        gram, mixed = 0.0, 0.0
        for rows, T in self.columns.blocks():
            T = T * self.root[rows]
            gram, mixed = gram + T.T @ T, mixed + T.T @ self.Q[rows]
        return gram - mixed @ mixed.T

    def _kernel(self) -> torch.Tensor:
        """Inner products of the rows, (m, m), after the free terms are projected out."""
        K = self.root * self.columns.kernel() * self.root.T
        K = K - self.Q @ (self.Q.T @ K)
        return K - (K @ self.Q) @ self.Q.T

    def _project(self, Y: torch.Tensor) -> torch.Tensor:
        """Weighted targets with the free terms projected out, (m, k)."""
        y = self.root * Y
        return y - self.Q @ (self.Q.T @ y)

    def _along(self, y: torch.Tensor) -> torch.Tensor:
        """Components of projected targets along the unit vectors that the columns span, (r, k)."""
        if not self.primal:
            return self.V.T @ y
        adjoint = sum((T * self.root[rows]).T @ y[rows] for rows, T in self.columns.blocks())
        return (self.V.T @ adjoint) / self.values.sqrt()[:, None]

    def choose(self, Y: torch.Tensor) -> tuple[float, float]:
        """The penalty of highest restricted likelihood for targets (m, k), on 12 decades.

        Also returns its -2 log-likelihood, per target and up to a constant. A penalty on |b|^2
        is a normal prior on b; its restricted likelihood (Patterson and Thompson, 1971) needs only
        the eigenvalues. Generalised cross-validation degenerates near as many masks as unknowns.
        """
        if not len(self.values):
            return 0.0, 0.0
        inside, outside, rows = self.energy(Y)
        grid = torch.logspace(-8, 4, 145, dtype=Y.dtype, device=Y.device)
        variance = self.values + grid[:, None]  # (grid, r): along each direction
        misfit = (inside.sum(1) / variance).sum(1) + outside.sum() / grid
        noise_only = rows - len(self.values)
        cost = rows * misfit.log() + variance.log().sum(1) + noise_only * grid.log()
        best = cost.argmin()
        return float(grid[best]), float(cost[best])

    def energy(self, Y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Squared components along the columns (r, k), remainder (k,), and degrees of freedom."""
        y = self._project(Y)
        inside = self._along(y).square()
        outside = (y.square().sum(0) - inside.sum(0)).clamp(min=0)
        return inside, outside, len(y) - self.Q.shape[1]

    def solve(self, Y: torch.Tensor, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Free coefficients (f, k) and penalised ones (q, k) of targets (m, k)."""
        q = self.columns.count
        if not q:
            return self.free_part(Y), Y.new_zeros(0, Y.shape[1])
        score = self._along(self._project(Y))  # (r, k)
        inverse = self.kept(ridge) / self.values
        if self.primal:
            b = self.V @ (score * (self.values.sqrt() * inverse)[:, None])
        else:
            dual = self.V @ (score * inverse[:, None])  # (m, k)
            dual = self.root * (dual - self.Q @ (self.Q.T @ dual))
            b = sum(T.T @ dual[rows] for rows, T in self.columns.blocks())
        return self.free_part(Y - self.penalised_part(b)), b

    def kept(self, ridge: float) -> torch.Tensor:
        """What a penalty leaves of the solution along each direction of the columns, (r,)."""
        return self.trust + (1 - self.trust) * self.values / (self.values + ridge)

    def free_part(self, Y: torch.Tensor) -> torch.Tensor:
        """Coefficients of the free terms alone, (f, k)."""
        return self.Vt.T @ ((self.Q.T @ (self.root * Y)) / self.s[:, None])

    def penalised_part(self, b: torch.Tensor) -> torch.Tensor:
        """Fitted values (m, k) of penalised coefficients (q, k)."""
        return torch.cat([T @ b for _, T in self.columns.blocks()])

"""One side's least-squares fits: polynomials of its own masks, for any targets.

Every fit is done in x = (z - p) / sqrt(p (1 - p)), whose monomials are orthonormal under the
product measure; that keeps the systems well conditioned and gives ridge a meaning.
"""

from __future__ import annotations

import math
import warnings
from functools import cached_property

import numpy as np
import torch

from fixlip.sampler import MaskSample, Sweep, distinct_rows
from fixlip.solver.leastsquares import Columns, LeastSquares

FEW = 4  # below FEW masks per free coefficient, first-order terms are shrunk as well
TRIAL = 512  # rows on which two priors are compared
FAINT = 0.01  # least squared slope of a player, relative to the mean
GROUPS = 48  # groups of masks per side from which standard errors are made
SATURATED = 0.8  # terms per different mask above which residuals say too little about errors
DRAWS = 32  # draws of what a penalty may have taken from the terms, for the same


def check_fit(order: int, ridge: float | str) -> None:
    """Raise unless the order and the penalty of a fit are possible."""
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")
    if not (ridge == "auto" or (isinstance(ridge, (int, float)) and 0 <= ridge < math.inf)):
        raise ValueError(f'ridge must be "auto" or a number of 0 or more, got {ridge!r}')


class Side:
    """One side's numbers, shared by its least-squares problems."""

    def __init__(self, swept: Sweep) -> None:
        device = swept.embeddings.device
        device = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self.E = swept.embeddings.to(device, torch.float64)  # (m, D)
        Z = swept.masks.to(device, torch.float64)  # (m, n)
        self.w = swept.weights.to(device)  # (m,)
        self.m, self.n = Z.shape
        self.sample, self.p = swept.sample, swept.sample.p
        self.sd = math.sqrt(self.p * (1 - self.p))
        self.X = (Z - self.p) / self.sd
        self.mean = self.w @ self.E  # (D,)
        self.exact = swept.sample.sampling == "enumerated"
        self.name = swept.info.get("kind", "side")
        # Complementary twins: x' = -x, so a fit falls apart into an even part (constant, pairs) of
        # the twins' means and an odd part (first order) of their half differences, each with half
        # the rows. Exact, and the eigenproblem is eight times cheaper.
        self.folded = (
            swept.sample.sampling == "antithetic"
            and self.m % 2 == 0
            and torch.equal(swept.masks[0::2], ~swept.masks[1::2])
            and torch.equal(swept.weights[0::2], swept.weights[1::2])
        )

    @cached_property
    def strength(self) -> torch.Tensor:
        """How strong each player is by itself, (n,), of mean square 1: roots of its slope's length.

        Roots, because a prior that follows the lengths themselves was measured to be too sure
        about weak players: pairs of them were shrunk, and their intervals too short.
        """
        centred, X = self.E - self.mean, self.X - self.w @ self.X
        inverse = torch.linalg.pinv(X.T @ (self.w[:, None] * X), hermitian=True, rtol=1e-10)
        slopes = inverse @ (X.T @ (self.w[:, None] * centred))  # (n, D)
        misfit = self.w @ (centred - X @ slopes).square().sum(1)
        noise = inverse.diagonal() * misfit / max(self.m - self.n - 1, 1)  # (n,)
        size = slopes.square().sum(1)
        size = (size - noise).clamp(min=FAINT * float(size.mean()))
        if not float(size.sum()) > 0:  # a constant embedding
            return torch.ones_like(size)
        return size.sqrt().sqrt() / size.sqrt().mean().sqrt()

    def members(self) -> torch.Tensor:
        """Rows in up to GROUPS groups that are independent of each other, (m, groups).

        Twins stay together. Rows that chance did not choose belong to no group: all of an
        enumerated side, and sizes that a budget lists in full. What remains is the difference to
        the groups' mean: the drawn rows' common weight is fixed.
        """
        draws = _draws(self.sample).to(self.E.device)
        drawn = torch.nonzero(draws)[:, 0]
        pair = torch.arange(len(drawn), device=drawn.device) // 2
        count = min(GROUPS, int(pair[-1]) + 1) if len(pair) else 0
        member = self.E.new_zeros(self.m, count)
        # a row that stands for c draws varies like the sum of c rows, not like c times one
        member[drawn, pair % max(count, 1)] = draws[drawn].rsqrt()
        if count > 1:
            member -= member.mean(1, keepdim=True)
        return member

    def copies(self) -> torch.Tensor:
        """How often each row's mask occurs (or, folded, its twin): such rows err alike, (m,)."""
        masks = self.sample.masks
        if self.folded:
            masks = masks ^ masks[:, :1]  # the same for twins
        _, group = distinct_rows(masks.cpu().numpy())
        copies = torch.from_numpy(np.bincount(group)[group]).to(self.E)
        return copies / 2 if self.folded else copies


def _draws(sample: MaskSample) -> torch.Tensor:
    """How many draws each row stands for, (m,); 0 where it was listed."""
    if sample.sampling == "enumerated":
        return torch.zeros(sample.m, dtype=torch.float64)
    if sample.sampling not in ("distinct", "shapley"):
        return torch.ones(sample.m, dtype=torch.float64)
    size = sample.masks.sum(1)
    count = torch.bincount(size, minlength=sample.n + 1)
    whole = [int(c) == math.comb(sample.n, k) for k, c in enumerate(count.tolist())]
    drawn = ~torch.tensor(whole)[size]
    draws = torch.where(drawn, sample.weights, 0.0)
    return draws / draws[drawn].min() if drawn.any() else draws


class Problem:
    """One least-squares problem of a side: a constant, x_i for some players, x_i x_j among some.

    The penalty is chosen once, for the targets ``Y`` (m, k); after that any targets are fitted.
    Results are coefficients of monomials in z.
    """

    def __init__(
        self,
        side: Side,
        singles: torch.Tensor,
        among: torch.Tensor,
        ridge: float | str,
        Y: torch.Tensor,
    ) -> None:
        self.side, self.singles, self.among = side, singles, among
        ridge = 0.0 if ridge == "auto" and side.exact else ridge
        n, q = len(singles), len(among) * (len(among) - 1) // 2
        if ridge == 0 and side.m < 1 + n + q:
            warnings.warn(
                f"{side.name}: {side.m} masks do not determine {1 + n + q} terms; plain least "
                "squares gives the smallest of many solutions. Use more masks or ridge='auto'.",
                stacklevel=4,
            )
        # where masks are few, first-order terms are shrunk as well
        self.stretched = ridge == "auto" and side.m < FEW * (n + 1)
        self.scale = torch.ones_like(side.X[0])  # (n,): lengths of the players' columns
        if ridge == "auto" and (q or self.stretched):
            self.scale = self._likelier(Y)
        self.parts = self._factorise(self.scale)
        open_terms = sum(part.undetermined for part in self.parts)
        if ridge == 0 and side.m >= 1 + n + q and open_terms:
            warnings.warn(
                f"{side.name}: the masks leave {open_terms} of {q} pair terms undetermined; plain "
                "least squares gives the smallest of many solutions. Use more masks or "
                "ridge='auto'.",
                stacklevel=5,
            )
        self.ridges = [
            part.choose(y)[0] if ridge == "auto" else float(ridge)
            for part, y in zip(self.parts, self._split(Y), strict=True)
        ]

    def _factorise(
        self, scale: torch.Tensor, rows: slice = slice(None)
    ) -> tuple[LeastSquares, ...]:
        """The fit's parts, with penalised columns of x_i times their players' scale."""
        side = self.side
        X, w = side.X[rows], side.w[rows]
        one, none = torch.ones_like(X[:, :1]), X[:, :0]
        single, pairs = X[:, self.singles], X[:, self.among] * scale[self.among]
        free, shrunk = (none, single * self._lengths(scale)) if self.stretched else (single, none)
        if side.folded:
            return (
                LeastSquares(one[0::2], Columns(none[0::2], pairs[0::2]), 2 * w[0::2]),
                LeastSquares(free[0::2], Columns(shrunk[0::2], none[0::2]), 2 * w[0::2]),
            )
        return (LeastSquares(torch.cat([one, free], 1), Columns(shrunk, pairs), w),)

    def _lengths(self, scale: torch.Tensor) -> torch.Tensor:
        """Lengths of penalised first-order columns: all n matter as much as the n**2 / 2 pairs."""
        return scale[self.singles] * math.sqrt(max(len(self.singles), 1))

    def _likelier(self, Y: torch.Tensor) -> torch.Tensor:
        """Scales of the players, (n,): all alike, or as strong as each is by itself.

        A longer column is penalised less, so these are two priors: that all pairs matter alike, or
        that pairs of strong players do. Restricted likelihood decides, on some of the rows.
        """
        rows = slice(0, TRIAL * (1 + self.side.folded))
        candidates = self.scale, self.side.strength
        costs = [
            sum(
                part.choose(y)[1]
                for part, y in zip(self._factorise(scale, rows), self._split(Y[rows]), strict=True)
            )
            for scale in candidates
        ]
        return candidates[costs[1] < costs[0]]

    def _split(self, Y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Targets of each part: twins' means and half differences (m/2, k), or all rows (m, k)."""
        if self.side.folded:
            return (Y[0::2] + Y[1::2]) / 2, (Y[0::2] - Y[1::2]) / 2
        return (Y,)

    def _solve(self, Y: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [
            part.solve(y, ridge)
            for part, y, ridge in zip(self.parts, self._split(Y), self.ridges, strict=True)
        ]

    def terms(self, Y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fit targets (m, k): constants (k,), first-order (n, k) and pair terms (n, n, k)."""
        return self._monomials(self._solve(Y))

    def shrinkage(
        self, Y: torch.Tensor, draws: int = DRAWS
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Errors that the penalty may have caused in the terms of targets (m, k), in k * draws.

        Columns are draws of the first target, then of the next; the squares of a term's draws sum
        to its expected squared bias. None where nothing is penalised.
        """
        if not any(r and p.columns.count for r, p in zip(self.ridges, self.parts, strict=True)):
            return None
        errors = [
            part.shrinkage(y, ridge, draws)
            for part, y, ridge in zip(self.parts, self._split(Y), self.ridges, strict=True)
        ]
        return self._monomials([(a / draws**0.5, b / draws**0.5) for a, b in errors])

    def _monomials(
        self, solved: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From the parts' coefficients in x to those of monomials in z."""
        n = len(self.singles)
        free, shrunk = solved[0]
        const = free[0]
        if self.side.folded:
            pairs, first = shrunk, solved[1][1 if self.stretched else 0]
        elif not self.stretched:
            pairs, first = shrunk, free[1:]
        else:
            pairs, first = shrunk[n:], shrunk[:n]
        side, k = self.side, len(const)
        a = const.new_zeros(side.n, k)
        if self.stretched:
            first = first * self._lengths(self.scale)[:, None]
        a[self.singles] = first / side.sd
        # from x to z: x_i = (z_i - p) / sd
        const = const - side.p * a.sum(0)
        if not len(pairs):  # (n, n, k) zeros that take no memory: there can be many targets
            return const, a, const.new_zeros(side.n, side.n, 1).expand(-1, -1, k)
        B = const.new_zeros(side.n, side.n, k)
        i, j = torch.triu_indices(len(self.among), len(self.among), 1)
        i, j = self.among[i], self.among[j]
        B[i, j] = B[j, i] = pairs * (self.scale[i] * self.scale[j])[:, None] / side.sd**2
        return const + side.p**2 * B.sum((0, 1)) / 2, a - side.p * B.sum(1), B

    def residual(self, Y: torch.Tensor) -> torch.Tensor:
        """Residuals of targets, corrected for leverage, (m, k)."""
        side = self.side
        copies = side.copies()[0 :: 2 if side.folded else 1]
        parts = []
        for part, y, terms, ridge in zip(
            self.parts, self._split(Y), self._solve(Y), self.ridges, strict=True
        ):
            leverage = part.leverage(ridge)
            different, used = float((1 / copies).sum()), float(leverage.sum())
            # where a penalty settles many more terms than there are masks, `shrinkage` tells
            settled = bool(ridge) and part.terms > 1.1 * different
            if used > SATURATED * different and not side.exact and not settled:
                warnings.warn(
                    f"{side.name}: {different * (1 + side.folded):.0f} different masks are few for "
                    f"{used:.0f} {'even or odd ' * side.folded}terms: error bars within this side "
                    f"are too small. Use more masks{_all_masks(side.n)}.",
                    stacklevel=4,
                )
            parts.append(part.residual(y, terms, leverage * copies))
        if not side.folded:
            return parts[0]
        return torch.stack([parts[0] + parts[1], parts[0] - parts[1]], 1).flatten(0, 1)


def _all_masks(n: int) -> str:
    """A hint for small sides."""
    return f"; {2**n} list them all" if n <= 12 else ""

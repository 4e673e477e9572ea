"""Least-squares polynomials of masks, for any targets.

Every fit is done in x = (z - p) / sqrt(p (1 - p)), whose monomials are orthonormal under the
product measure; that keeps the systems well conditioned and gives the ridge penalty a meaning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch

from fixlip.checks import warn
from fixlip.sampler import MaskSample
from fixlip.solver.leastsquares import Columns, LeastSquares

MIN_MASKS_PER_TERM = 4  # below that, first-order terms are penalised as well
PRIOR_ROWS = 512  # rows (twin pairs, if folded) on which the two priors are compared
TARGETS = 128  # maximum number of targets used to choose a penalty
MIN_STRENGTH = 0.01  # lower bound on a player's squared slope, relative to the mean
POWER = 0.6  # prior scale of a pair term: (|slope_i| |slope_j|) ** POWER

# `Terms` of k targets, in z, the targets on the last axis: (k,), (n, k) and (n, n, k).
Polynomial = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Solution = tuple[torch.Tensor, torch.Tensor]  # free (f, k) and penalised (q, k) coefficients


class Design:
    """Masks and targets, of a side or a game, shared by its least-squares problems.

    It is folded where the masks are complementary twins, x' = -x. Then a fit splits exactly into an
    even part (constant, pairs) on the twins' means and an odd part (first order) on their half
    differences, with half the rows each; an (m, m) eigenproblem is then eight times cheaper.
    """

    def __init__(self, sample: MaskSample, targets: torch.Tensor, kind: str) -> None:
        device = "cpu" if targets.device.type == "mps" else targets.device  # MPS has no float64
        self.sample, self.kind = sample, kind
        self.E = targets.to(device, torch.float64)  # (m, D): embeddings, or other targets
        self.w = sample.weights.to(device)  # (m,), of sum 1
        self.m, self.n, self.p = sample.m, sample.n, sample.p
        self.sd = math.sqrt(self.p * (1 - self.p))
        self.X = (sample.masks.to(device, torch.float64) - self.p) / self.sd  # (m, n)
        self.mean = self.w @ self.E  # (D,)
        # masks that are most of all there are show what a penalty would take for noise
        self.trust = max(0.0, 2 * sample.share - 1)
        self.exact = sample.complete
        self.folded = (
            sample.sampling == "antithetic"
            and self.m % 2 == 0
            and torch.equal(sample.masks[0::2], ~sample.masks[1::2])
            and torch.equal(sample.weights[0::2], sample.weights[1::2])
        )
        self._warned: set[str] = set()

    def warn(self, of: str, message: str) -> None:
        """Warn of open terms ("terms") or of error bars ("errors"), once whatever is fitted."""
        if of not in self._warned:
            self._warned.add(of)
            warn(f"{self.kind}: {message}")

    @property
    def undetermined_players(self) -> int:
        """How many players the masks cannot tell apart: never removed, say, or always together."""
        return self.n - rank(self.X - self.w @ self.X)

    @cached_property
    def sketch(self) -> torch.Tensor:
        """E (m, D), or a random projection to TARGETS columns, for `choose`."""
        D = self.E.shape[1]
        if D <= TARGETS:
            return self.E
        signs = torch.randint(2, (D, TARGETS), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        return self.E @ (signs.to(self.E) / TARGETS**0.5)

    @cached_property
    def strength(self) -> torch.Tensor:
        """Prior scale of each player, (n,): |slope| ** POWER, normalised to mean square 1.

        Larger powers had smaller errors, but shrank pairs of weak players too much and made their
        intervals too short.
        """
        centred, X = self.E - self.mean, self.X - self.w @ self.X
        inverse = torch.linalg.pinv(X.T @ (self.w[:, None] * X), hermitian=True, rtol=1e-10)
        slopes = inverse @ (X.T @ (self.w[:, None] * centred))  # (n, D)
        misfit = self.w @ (centred - X @ slopes).square().sum(1)
        noise = inverse.diagonal() * misfit / max(self.m - self.n - 1, 1)  # (n,)
        size = slopes.square().sum(1)
        size = (size - noise).clamp(min=MIN_STRENGTH * float(size.mean()))
        if not float(size.sum()) > 0:  # a constant embedding
            return torch.ones_like(size)
        return size ** (POWER / 2) / (size**POWER).mean().sqrt()


def warn_of_terms(design: Design, left: int, terms: int, ridge: float | str) -> None:
    """Warn that masks leave terms open that no penalty settles."""
    also = "" if ridge == "auto" else " or ridge='auto'"
    design.warn(
        "terms",
        f"{design.m} masks leave {left} of {terms} terms undetermined; of many solutions the "
        f"smallest is taken. Use more masks{also}.",
    )


def rank(X: torch.Tensor) -> int:
    """Rank of columns (m, n), by their inner products."""
    return int(torch.linalg.matrix_rank(X.T @ X, hermitian=True)) if X.any() else 0


class Problem:
    """One least-squares problem: a constant, x_i for some players, x_i x_j among some.

    With ``split``, pairs are those of one of the first ``split`` of ``among`` with a later one.

    It has one part, or in a folded design an even and an odd one. Each part's penalty is chosen
    once, for the targets ``Y`` (m, k); then any targets are fitted. Results are
    coefficients of monomials in z.
    """

    def __init__(
        self,
        design: Design,
        singles: torch.Tensor,
        among: torch.Tensor,
        ridge: float | str,
        Y: torch.Tensor,
        split: int | None = None,
    ) -> None:
        self.design, self.singles, self.among, self.split = design, singles, among, split
        self.scale = torch.ones_like(design.X[0])  # (n,): lengths of the players' columns
        few = design.m < MIN_MASKS_PER_TERM * (len(singles) + 1)
        auto = ridge == "auto" and not design.exact
        self.penalises_first = auto and few
        self.trust = design.trust if auto else 0.0
        if auto and (len(among) > 1 or self.penalises_first):
            self.scale = self._likelier_scale(Y)
        self.parts = self._factorise(self.scale)
        if auto:
            self.ridges = [chosen for chosen, _ in self._choose(self.parts, Y)]
            self.priors = self.ridges
        else:
            self.ridges = [0.0 if ridge == "auto" else float(ridge)] * len(self.parts)
            self.priors = self.ridges
            if any(self.ridges):  # a penalty of the user's says nothing of how large terms are
                self.priors = [chosen for chosen, _ in self._choose(self.parts, Y)]
        left = sum(part.undetermined for part in self.parts)
        if left and not any(self.ridges):
            warn_of_terms(design, left, sum(part.n_terms for part in self.parts), ridge)

    def _factorise(
        self, scale: torch.Tensor, rows: slice = slice(None)
    ) -> tuple[LeastSquares, ...]:
        """The fit's parts, with penalised columns of x_i times their players' scale."""
        X, w = self.design.X[rows], self.design.w[rows]
        one, none = torch.ones_like(X[:, :1]), X[:, :0]
        single, pairs = X[:, self.singles], X[:, self.among] * scale[self.among]
        free, penalised = single, none
        if self.penalises_first:
            free, penalised = none, single * self._first_scale(scale)
        if not self.design.folded:
            columns = Columns(penalised, pairs, split=self.split)
            one = torch.cat([one, free], 1)
            return (LeastSquares(one, columns, w, self.trust),)
        one, none, free, penalised, pairs = (x[0::2] for x in (one, none, free, penalised, pairs))
        return (
            LeastSquares(one, Columns(none, pairs, split=self.split), 2 * w[0::2]),
            LeastSquares(free, Columns(penalised, none), 2 * w[0::2]),
        )

    def _first_scale(self, scale: torch.Tensor) -> torch.Tensor:
        """Lengths of penalised first-order columns: sqrt(n) times the players' scales."""
        return scale[self.singles] * math.sqrt(max(len(self.singles), 1))

    def _likelier_scale(self, Y: torch.Tensor) -> torch.Tensor:
        """Scales of the players, (n,): all alike, or as strong as each is by itself.

        A longer column is penalised less, so these are two priors: that all pairs matter alike, or
        that pairs of strong players do. Restricted likelihood decides, on some of the rows.
        """
        rows = slice(0, PRIOR_ROWS * (1 + self.design.folded))

        def cost(scale: torch.Tensor) -> float:
            return sum(value for _, value in self._choose(self._factorise(scale, rows), Y[rows]))

        return min(self.scale, self.design.strength, key=cost)

    def _choose(self, parts: Sequence[LeastSquares], Y: torch.Tensor) -> list[tuple[float, float]]:
        """Penalty and cost of each part, from targets (m, k)."""
        return [part.choose(self.of_part(k, Y)) for k, part in enumerate(parts)]

    def of_part(self, part: int, Y: torch.Tensor) -> torch.Tensor:
        """Targets of one part: twins' means or half differences (m/2, k), or all rows."""
        if not self.design.folded:
            return Y
        return ((Y[0::2] - Y[1::2]) if part else (Y[0::2] + Y[1::2])) / 2

    def solutions(self, Y: torch.Tensor) -> list[Solution]:
        """Free and penalised coefficients of each part for targets (m, k)."""
        return [
            part.solve(self.of_part(k, Y), ridge)
            for k, (part, ridge) in enumerate(zip(self.parts, self.ridges, strict=True))
        ]

    def fit(self, Y: torch.Tensor) -> Polynomial:
        """Polynomials in z of targets (m, k)."""
        return self.monomials(self.solutions(Y))

    def along(self, vectors: torch.Tensor) -> Polynomial:
        """Fit the embeddings' inner products with vectors (D, k)."""
        return self.fit(self.design.E @ vectors)

    def monomials(self, solutions: Sequence[Solution]) -> Polynomial:
        """From the parts' coefficients in x to those of monomials in z."""
        design, n = self.design, len(self.singles)
        free, penalised = solutions[0]
        const = free[0]
        if design.folded:
            pairs, first = penalised, solutions[1][1 if self.penalises_first else 0]
        elif self.penalises_first:
            pairs, first = penalised[n:], penalised[:n]
        else:
            pairs, first = penalised, free[1:]
        k = len(const)
        a = const.new_zeros(design.n, k)
        if self.penalises_first:
            first = first * self._first_scale(self.scale)[:, None]
        a[self.singles] = first / design.sd
        # from x to z: x_i = (z_i - p) / sd
        const = const - design.p * a.sum(0)
        if not len(pairs):  # (n, n, k) zeros that take no memory: there can be many targets
            return const, a, const.new_zeros(design.n, design.n, 1).expand(-1, -1, k)
        B = const.new_zeros(design.n, design.n, k)
        i, j = (self.among[some] for some in self.parts[0].columns.positions())
        B[i, j] = B[j, i] = pairs * (self.scale[i] * self.scale[j])[:, None] / design.sd**2
        return const + design.p**2 * B.sum((0, 1)) / 2, a - design.p * B.sum(1), B

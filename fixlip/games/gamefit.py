"""One game's least-squares fit: a polynomial of joint masks to the values that were asked for."""

from __future__ import annotations

import torch

from fixlip.explanation import flatten
from fixlip.solver.errors import (
    DRAWS,
    copies,
    corrected_residual,
    leverage,
    members,
    prior_errors,
    residuals,
    shrinkage,
    warn_of_chosen,
    warn_of_few,
)
from fixlip.solver.leastsquares import Columns, LeastSquares
from fixlip.solver.polynomial import Design, Polynomial, Problem, warn_of_terms


def fit_game(
    design: Design,
    *,
    order: int = 2,
    ridge: float | str = "auto",
    ends: tuple[float, float] | None = None,
    among: torch.Tensor | None = None,
    split: int | None = None,
) -> tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit one polynomial of the mask to a game's values, the one target (m, 1) of a design.

    ``ends`` are values of the empty and of the full mask, which the sample then leaves out, to be
    met exactly: the limit of infinite weights. With the Shapley kernel as weights this is
    KernelSHAP (order 1) or Faith-Shap (order 2). At order 2 the players ``among`` (by default all)
    have pairs; with ``split``, the first so many of them with the others only. Returns e0, e1 (n,),
    e2 (n, n) and deviations as an `Explanation` keeps them.
    """
    everyone = torch.arange(design.n)
    among = everyone if among is None else among
    if order == 1:
        among, split = everyone[:0], None
    if ends is None:
        (e0, e1, e2), *errors = _banzhaf_fit(design, ridge, among, split)
    else:
        (e0, e1, e2), *errors = _shapley_fit(design, ridge, among, split, ends)
    rows = [
        flatten(d0, d1.T, d2.permute(2, 0, 1) if order == 2 else None) for d0, d1, d2 in errors
    ]  # (k, terms)
    return float(e0[0]), e1[:, 0], e2[..., 0], torch.cat(rows)


def _banzhaf_fit(
    design: Design,
    ridge: float | str,
    among: torch.Tensor,
    split: int | None,
) -> list[Polynomial]:
    """Terms of the values; deviations by groups of masks; simulated bias of the penalty."""
    # The mean is taken off first: a minimum-norm solution would spread it over terms. A constant
    # game's is exact.
    mean = design.E[0] + design.w @ (design.E - design.E[0])
    Y = design.E - mean
    problem = Problem(design, torch.arange(design.n), among, ridge, Y, split)
    e0, e1, e2 = problem.fit(Y)
    found = [(e0 + mean, e1, e2), problem.fit(residuals(problem, Y) * members(design))]
    if ridge == "auto":
        for part, penalty in zip(problem.parts, problem.ridges, strict=True):
            warn_of_chosen(design, part, penalty)
    shrunk = shrinkage(problem, Y)
    return found if shrunk is None else [*found, shrunk]


def _shapley_fit(
    design: Design,
    ridge: float | str,
    among: torch.Tensor,
    split: int | None,
    ends: tuple[float, float],
) -> list[Polynomial]:
    """The same among the polynomials that meet both ends."""
    # Terms that vanish at both ends: z_i - mean(z), and x_i x_j - 1 for x = 2z - 1.
    Z, n = design.sample.masks.double(), design.n
    share = Z.mean(1)  # (m,)
    X = (2 * Z - 1)[:, among]
    empty, full = ends
    Y = design.E - (empty + share * (full - empty))[:, None]
    columns = Columns(X[:, :0], X, shift=1.0, split=split)
    auto = ridge == "auto" and not design.exact
    trust = design.trust if auto else 0.0
    problem = LeastSquares(Z - share[:, None], columns, design.w, trust)
    penalty = prior = 0.0 if ridge == "auto" else float(ridge)
    if auto or penalty:
        prior = problem.choose(Y)[0]
        penalty = prior if auto else penalty
    if (left := problem.undetermined - 1) > 0 and ridge == 0:  # the free terms sum to 0
        warn_of_terms(design, left, problem.n_terms - 1, ridge)
    i, j = (among[some] for some in columns.positions())

    def monomials(free: torch.Tensor, pairs: torch.Tensor) -> Polynomial:
        e2 = free.new_zeros(n, n, free.shape[1])
        e2[i, j] = e2[j, i] = 4 * pairs
        return free.new_zeros(free.shape[1]), free - free.mean(0) - e2.sum(1) / 2, e2

    solution = problem.solve(Y, penalty)
    each = leverage(problem, penalty)
    warn_of_few(design, problem, penalty, float(each.sum()), design.m)
    if auto:
        warn_of_chosen(design, problem, penalty)
    each = each * copies(design)
    residual = corrected_residual(problem, Y, solution, each)
    e0, e1, e2 = monomials(*solution)
    found = [
        (e0 + empty, e1 + (full - empty) / n, e2),
        monomials(*problem.solve(residual * members(design), penalty)),
    ]
    if penalty and len(i):
        free, pairs = prior_errors(problem, Y, penalty, prior)
        found.append(monomials(free / DRAWS**0.5, pairs / DRAWS**0.5))
    return found

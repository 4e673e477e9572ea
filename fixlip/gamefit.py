"""One game's least-squares fit: a polynomial of joint masks to the values that were asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fixlip.leastsquares import Columns, LeastSquares
from fixlip.sampler import MaskSample, Sweep
from fixlip.sidefit import Problem, Side, check_fit

Terms = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # (k,), (n, k), (n, n, k)


def fit_game(
    sample: MaskSample,
    values: torch.Tensor,
    *,
    order: int = 2,
    ridge: float | str = "auto",
    ends: tuple[float, float] | None = None,
) -> tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit one polynomial of the mask to a game's values, with what each group of masks adds to it.

    Parameters
    ----------
    sample : MaskSample
        Masks (m, n) and weights; with ``ends``, neither the empty nor the full mask.
    values : torch.Tensor, (m,), float64
        The game's values.
    order, ridge
        As in `fixlip.solve`.
    ends : (float, float), optional
        Values of the empty and of the full mask, to be met exactly: the limit of infinite weights.
        With the Shapley kernel as weights this is KernelSHAP (order 1) or Faith-Shap (order 2).

    Returns
    -------
    tuple
        e0, e1 (n,), e2 (n, n), and deviations (groups, 1 + n + n (n - 1) / 2) as an `Explanation`
        keeps them.
    """
    check_fit(order, ridge)
    side = Side(Sweep(sample, values[:, None], values[:0, None], (), {"kind": "game"}))
    fit = _banzhaf_fit if ends is None else _shapley_fit
    (e0, e1, e2), solve, residual = fit(side, values, order, ridge, ends)
    d0, d1, d2 = solve(residual * side.members())
    i, j = torch.triu_indices(sample.n, sample.n, 1)
    deviations = torch.cat([d0[None], d1, d2[i, j]]).T  # (groups, 1 + n + pairs)
    return float(e0[0]), e1[:, 0], e2[..., 0], deviations


def _banzhaf_fit(
    side: Side, values: torch.Tensor, order: int, ridge: float | str, _: None
) -> tuple[Terms, Callable[[torch.Tensor], Terms], torch.Tensor]:
    """Terms of the values, the map from any targets (m, k) to terms, and residuals (m, 1)."""
    mean = side.w @ values  # where masks are few, the constant comes first
    Y = values[:, None] - mean
    everyone = torch.arange(side.n)
    problem = Problem(side, everyone, everyone[: side.n * (order == 2)], ridge, Y)
    e0, e1, e2 = problem.terms(Y)
    return (e0 + mean, e1, e2), problem.terms, problem.residual(Y)


def _shapley_fit(
    side: Side, values: torch.Tensor, order: int, ridge: float | str, ends: tuple[float, float]
) -> tuple[Terms, Callable[[torch.Tensor], Terms], torch.Tensor]:
    """The same among the polynomials that meet both ends."""
    # Terms that vanish at both ends: z_i - mean(z), and x_i x_j - 1 for x = 2z - 1.
    Z, n = side.sample.masks.double(), side.n
    share = Z.mean(1)  # (m,)
    X = (2 * Z - 1)[:, : n if order == 2 else 0]
    empty, full = ends
    Y = (values - empty - share * (full - empty))[:, None]
    columns = Columns(X[:, :0], X, shift=1.0)
    problem = LeastSquares(Z - share[:, None], columns, side.w)
    penalty = problem.choose(Y) if ridge == "auto" else float(ridge)
    i, j = torch.triu_indices(X.shape[1], X.shape[1], 1)

    def terms(Y: torch.Tensor) -> Terms:
        free, pairs = problem.solve(Y, penalty)
        e2 = Y.new_zeros(n, n, Y.shape[1])
        e2[i, j] = e2[j, i] = 4 * pairs
        return Y.new_zeros(Y.shape[1]), free - free.mean(0) - e2.sum(1) / 2, e2

    residual = problem.residual(Y, problem.solve(Y, penalty), penalty)
    e0, e1, e2 = terms(Y)
    return (e0 + empty, e1 + (full - empty) / n, e2), terms, residual

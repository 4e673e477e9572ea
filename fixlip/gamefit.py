"""One game's least-squares fit: a polynomial of joint masks to the values that were asked for."""

from __future__ import annotations

import torch

from fixlip.leastsquares import Columns, LeastSquares
from fixlip.sampler import MaskSample, Sweep
from fixlip.sidefit import Problem, Side, check_fit


def fit_game(
    sample: MaskSample,
    values: torch.Tensor,
    *,
    order: int = 2,
    ridge: float | str = "auto",
    ends: tuple[float, float] | None = None,
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Fit one polynomial of the mask to a game's values: e0, e1 (n,) and e2 (n, n).

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
    """
    check_fit(order, ridge)
    Y = values[:, None]
    if ends is None:
        mean = sample.weights @ values  # where masks are few, the constant comes first
        Y = Y - mean
        side = Side(Sweep(sample, Y, Y[:0], (), {"kind": "game"}))
        everyone = torch.arange(sample.n)
        problem = Problem(side, everyone, everyone[: sample.n * (order == 2)], ridge, Y)
        e0, e1, e2 = problem.terms(Y)
        return float(e0 + mean), e1[:, 0], e2[..., 0]

    # Terms that vanish at both ends: z_i - mean(z), and x_i x_j - 1 for x = 2z - 1.
    Z, n = sample.masks.double(), sample.n
    share = Z.mean(1, keepdim=True)  # (m, 1)
    X = (2 * Z - 1)[:, : n if order == 2 else 0]
    empty, full = ends
    Y = Y - empty - share * (full - empty)
    problem = LeastSquares(Z - share, Columns(X[:, :0], X, shift=1.0), sample.weights)
    free, pairs = problem.solve(Y, problem.choose(Y) if ridge == "auto" else float(ridge))
    e2 = torch.zeros(n, n, dtype=torch.float64)
    i, j = torch.triu_indices(X.shape[1], X.shape[1], 1)
    e2[i, j] = e2[j, i] = 4 * pairs[:, 0]
    a = free[:, 0]
    return float(empty), a - a.mean() + (full - empty) / n - e2.sum(1) / 2, e2

"""The reference that nothing is split in: all game values and one design row for each."""

from __future__ import annotations

from dataclasses import replace

import torch

from fixlip.checks import warn
from fixlip.explanation import Explanation
from fixlip.sampler import Sweep
from fixlip.solver.factor import pair
from fixlip.solver.fit import check_fit, fit
from fixlip.solver.solve import check_options, top_players


def solve_dense(
    image_sweep: Sweep,
    text_sweep: Sweep,
    *,
    order: int = 2,
    basis: str = "full",
    k: int = 72,
    scale: float | None = None,
    bias: float | None = None,
) -> Explanation:
    """The same plain least-squares fit as `solve` with ridge=0, with nothing split: the reference.

    Forms all m_I * m_T game values and one design row per value, so time and memory grow with the
    product of the sides; meant for tests and benchmarks. Parameters as in `solve`.
    """
    check_fit(order, 0.0)  # no "product": its terms are as many as the sides' multiplied
    check_options(order, 0.0, basis, k)
    sides = (fit(swept, order=1, ridge=0, errors=False) for swept in (image_sweep, text_sweep))
    found = pair(*sides, order=1, scale=scale, bias=bias)  # for all but the terms
    scale, bias = found.info["fit"]["scale"], found.info["fit"]["bias"]
    n_I, n_T = image_sweep.n, text_sweep.n
    n = n_I + n_T
    Z, Y = image_sweep.masks.double(), text_sweep.masks.double()
    E, F = (swept.embeddings.cpu().double() for swept in (image_sweep, text_sweep))
    values = (E @ F.T).flatten()
    weights = (image_sweep.weights[:, None] * text_sweep.weights).flatten()  # (m_I * m_T,)
    # image-major: (m_I * m_T, n)
    masks = torch.cat([Z.repeat_interleave(len(Y), 0), Y.repeat(len(Z), 1)], 1)

    i, j = torch.triu_indices(n, n, 1)
    if order == 1:
        i = j = i[:0]
    elif basis == "cross":
        cross = (i < n_I) & (j >= n_I)
        i, j = i[cross], j[cross]
    elif basis == "top":
        first = solve_dense(image_sweep, text_sweep, order=1, scale=1.0, bias=0.0)
        image_among, text_among = top_players(first.e1, n_I, k)
        kept = torch.zeros(n, dtype=torch.bool)
        kept[torch.cat([image_among, text_among + n_I])] = True
        i, j = i[kept[i] & kept[j]], j[kept[i] & kept[j]]
    c, e1, pairs = dense_fit(masks, weights, values, i, j)
    e2 = torch.zeros(n, n, dtype=torch.float64)
    e2[i, j] = e2[j, i] = pairs
    found.info["fit"] |= {"order": order, "basis": basis} | ({"k": k} if basis == "top" else {})
    return replace(
        found, e0=float(scale * c + bias), e1=(scale * e1).numpy(), e2=(scale * e2).numpy()
    )


def dense_fit(
    masks: torch.Tensor,
    weights: torch.Tensor,
    values: torch.Tensor,
    i: torch.Tensor,
    j: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted least squares on 1, z_i and the products z_i z_j named by index: three parts."""
    m, n = masks.shape
    root = weights.sqrt()[:, None]
    design = torch.empty(m, 1 + n + len(i), dtype=torch.float64)  # filled in place: it is large
    design[:, :1], design[:, 1 : n + 1] = 1, masks
    for column, (a, b) in enumerate(zip(i.tolist(), j.tolist(), strict=True), start=n + 1):
        torch.mul(masks[:, a], masks[:, b], out=design[:, column])
    fit = torch.linalg.lstsq(design.mul_(root), root * values[:, None], driver="gelsd")
    if (left := design.shape[1] - int(fit.rank)) > 0:
        warn(
            f"the masks leave {left} of {design.shape[1]} terms undetermined; of many solutions "
            "one is taken, which is not that of fixlip.solve. Use more masks."
        )
    solution = fit.solution[:, 0]
    return solution[0], solution[1 : n + 1], solution[n + 1 :]

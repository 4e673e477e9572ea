"""From two sweeps to an explanation: least squares by the splitting theorem, and its oracle.

Letters: n_I, n_T players; m_I, m_T masks; Z (m, n) masks as numbers, w (m,) weights of sum 1;
E (m, D) embeddings. The game's value for image mask a and text mask b is <E_a, F_b>, so the fit
over all m_I * m_T values with weights w (x) v never needs those values: it is the sum of

- an order-2 fit of the row means E Fbar on the image masks,
- an order-2 fit of the column means F Ebar on the text masks, and
- the cross block C = J_I J_T', the inner products of both sides' regression slopes,

because functions of Z alone, functions of Y alone (both centred) and products of centred masks are
orthogonal to each other under w (x) v. `solve` does that, `solve_dense` forms everything and is
the slow reference that `solve` is tested against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from fixlip.explanation import Explanation
from fixlip.sampler import Sweep, pair_scale
from fixlip.solver.fit import DRAWS, Problem, Side, check_fit
from fixlip.solver.product import extend
from fixlip.solver.vectorfit import fit_embeddings


def solve(
    image_sweep: Sweep,
    text_sweep: Sweep,
    *,
    order: int | str = 2,
    ridge: float | str = "auto",
    basis: str = "full",
    k: int = 72,
    scale: float | None = None,
    bias: float | None = None,
    errors: bool = True,
) -> Explanation:
    """Explain a pair from its two sweeps: the weighted least-squares fit over all mask pairs.

    Any two sweeps of one model pair up: image and text, image and image, text and text. Give them
    different seeds, also an image that is paired with itself: both samples count as independent.

    Parameters
    ----------
    image_sweep, text_sweep : Sweep
        n_I players under m_I masks and n_T players under m_T masks, of the same model.
    order : {1, 2, "product"}
        1: a constant and a term per player. 2: also a term per pair of players. "product": order 2
        and, from the same sweeps, the interactions of up to two players of each side with each
        other, as a `fixlip.solver.product.ProductExplanation`.
    ridge : "auto" or float
        Penalty on the squared pair coefficients in the orthonormal basis. "auto" chooses it by
        restricted maximum likelihood, side by side, and takes none for enumerated sides; it also
        chooses whether all pairs are penalised alike, or those of strong players less. 0 is
        plain least squares (minimum norm, with a warning, where the masks leave terms open).
    basis : {"full", "cross", "top"}
        Which pairs exist: all; image-text pairs only; or all among the k players with the largest
        first-order terms (at least 5 of the text), the filter of the FIxLIP experiments. A product
        has pairs of each side in it and so no "cross"; with "top" its within-side pairs are those
        of the kept players.
    k : int
        Players kept by "top".
    scale, bias : float, optional
        The game is scale * <E, F> + bias. By default the model's own logit scale and bias (1 and 0
        for sides that name no model); scale=1, bias=0 explain the cosine.
    errors : bool
        Also estimate the terms' standard errors (`Explanation.stderr`): how they vary with the
        masks that were drawn, and what the ridge penalty may have taken from them.

    Returns
    -------
    Explanation
        Image players first. A `ProductExplanation` for order="product".

    Raises
    ------
    ValueError
        For sweeps of different models or widths, or unknown options.

    References
    ----------
    The estimand and the cross-modal sampling: Baniecki et al., NeurIPS 2025. The splitting is
    proved in notebooks/01_theory.ipynb.

    Examples
    --------
    >>> import torch, fixlip
    >>> class Toy:
    ...     def __init__(self, n): self.n, self.names = n, [str(i) for i in range(n)]
    ...     def embed(self, masks): return masks.double()
    >>> e = fixlip.solve(fixlip.sweep(Toy(3)), fixlip.sweep(Toy(3)))
    >>> (abs(e.cross) > 1e-9).astype(int).tolist()  # <z, y> = sum of z_i y_i
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    _check_options(order, ridge, basis, k)
    scale, bias = _game_scale(image_sweep, text_sweep, scale, bias)
    sides = Side(image_sweep), Side(text_sweep)
    among = [torch.arange(side.n) for side in sides]
    if basis == "top" and order != 1:
        strength = solve(
            image_sweep, text_sweep, order=1, ridge=ridge, scale=1.0, bias=0.0, errors=False
        )
        among = top_players(strength.e1, image_sweep.n, k)
    within = [a if order != 1 and basis != "cross" else a[:0] for a in among]
    crossing = among if order != 1 else [a[:0] for a in among]
    image, text = (
        _fit_side(side, other.mean, pairs, cross, ridge)
        for side, other, pairs, cross in zip(sides, sides[::-1], within, crossing, strict=True)
    )
    e0, e1, e2 = _combine(image, text)
    deviations = None
    if errors:
        own, other = _deviations(image, text), _deviations(text, image)
        n_T = text.side.n
        other = [(d0, d1.roll(-n_T, 0), d2.roll((-n_T, -n_T), (0, 1))) for d0, d1, d2 in other]
        i, j = torch.triu_indices(len(e1), len(e1), 1)
        a, b = (side.members().shape[1] for side in sides)  # groups of masks come first
        moved = [*own[:a], *other[:b], *own[a:], *other[b:]]
        rows = [torch.cat([d0[None], d1, d2[i, j]]) for d0, d1, d2 in moved]
        deviations = torch.stack(rows) if rows else e1.new_zeros(0, 1 + len(e1) + len(i))
    explanation = pack(
        image_sweep,
        text_sweep,
        e0,
        e1,
        e2,
        scale=scale,
        bias=bias,
        order=order,
        ridge=ridge,
        basis=basis,
        deviations=deviations,
    )
    if order != "product":
        return explanation
    problems = (_embedding_problem(fitted, ridge) for fitted in (image, text))
    return extend(explanation, *fit_embeddings(*problems, errors=errors))


@dataclass(frozen=True)
class _FittedSide:
    """Everything that the explanation needs of one side."""

    side: Side
    second: Problem  # order-2 problem of a scalar target
    target: torch.Tensor  # (m, 1): the side's embeddings times the other side's mean
    first: Problem  # order-1 problem of the embedding itself
    origin: torch.Tensor  # (D,): its value at z = 0
    slopes: torch.Tensor  # (n, D): J = Cov(Z)^+ Z~' W E, the Banzhaf vectors of the players


def _fit_side(
    side: Side,
    other_mean: torch.Tensor,
    pairs: torch.Tensor,
    cross: torch.Tensor,
    ridge: float | str,
) -> _FittedSide:
    target = (side.E @ other_mean)[:, None]
    second = Problem(side, torch.arange(side.n), pairs, ridge, target)
    first = Problem(side, cross, cross[:0], ridge, side.E)
    origin, slopes, _ = first.terms(side.E)
    return _FittedSide(side, second, target, first, origin, slopes)


def _embedding_problem(fitted: _FittedSide, ridge: float | str) -> Problem:
    """The order-2 problem of the embedding: the scalar target's, but for a penalty of its own."""
    side, second = fitted.side, fitted.second
    if ridge != "auto" or side.exact:
        return second
    return Problem(side, second.singles, second.among, ridge, side.E)


def _combine(
    image: _FittedSide, text: _FittedSide
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Constant, first-order terms (n,) and pairs (n, n) of the joint fit, read off as monomials."""
    g0, g1, g2 = (term[..., 0] for term in image.second.terms(image.target))
    h0, h1, h2 = (term[..., 0] for term in text.second.terms(text.target))
    # zbar' J_I and ybar' J_T: what the cross block takes from constant and first order
    centre_I, centre_T = image.side.mean - image.origin, text.side.mean - text.origin
    e0 = g0 + h0 - image.side.mean @ text.side.mean + centre_I @ centre_T
    e1 = torch.cat([g1 - image.slopes @ centre_T, h1 - text.slopes @ centre_I])
    return e0, e1, _blocks(g2, image.slopes @ text.slopes.T, h2)


def _blocks(within: torch.Tensor, cross: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Assemble (n, n) from the parts within the sides and between them."""
    return torch.cat([torch.cat([within, cross], 1), torch.cat([cross.T, other], 1)])


def _deviations(
    own: _FittedSide, other: _FittedSide
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """What each group of one side's masks adds to the terms: own players first, then the other's.

    The first-order effect of a group's masks on every term, through the side's own fits and
    through its mean, which is part of the other side's target. Their squares sum to the variance
    that this side's masks cause.

    References
    ----------
    Grouped infinitesimal jackknife: Efron, "The Jackknife, the Bootstrap and Other Resampling
    Plans", 1982. HC2: MacKinnon and White, "Some heteroskedasticity-consistent covariance matrix
    estimators", 1985.
    """
    side, member = own.side, own.side.members()  # (m, groups)
    if not member.shape[1]:
        return []
    seen = torch.cat([other.slopes, (other.side.mean - other.origin)[None]])  # (n_other + 1, D)
    cross = own.first.residual(side.E) @ seen.T  # (m, n_other + 1)
    within = own.second.residual(own.target)  # (m, 1)
    centred = side.E - side.mean
    means = (side.w[:, None] * member).T @ centred  # (groups, D)
    g0, g1, g2 = own.second.terms(within * member)  # (groups,), (n, groups), (n, n, groups)
    h0, h1, h2 = other.second.terms(other.side.E @ means.T)
    result = []
    for g, mean in enumerate(means):
        origin, slopes, _ = own.first.terms(cross * member[:, g : g + 1])
        centre = seen @ mean - origin  # (n_other + 1,)
        e0 = g0[g] + h0[g] - mean @ other.side.mean + centre[-1]
        e1 = torch.cat([g1[:, g] - slopes[:, -1], h1[:, g] - centre[:-1]])
        result.append((e0, e1, _blocks(g2[..., g], slopes[:, :-1], h2[..., g])))
    return result + _shrinkage(own, seen)


def _shrinkage(
    own: _FittedSide, seen: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """What the penalties of one side's fits may have taken from the terms, in DRAWS draws.

    References
    ----------
    That a smoother's intervals cover if they count its expected bias: Nychka, "Bayesian confidence
    intervals for smoothing splines", 1988.
    """
    n, n_other = own.side.n, len(seen) - 1
    within = own.second.shrinkage(own.target)
    cross = own.first.shrinkage(own.side.E @ seen.T)
    if within is None and cross is None:
        return []
    zeros = seen.new_zeros
    g0, g1, g2 = within or (zeros(DRAWS), zeros(n, DRAWS), zeros(n, n, DRAWS))
    # (n_other + 1, DRAWS) and (n, n_other + 1, DRAWS): values at z = 0, and slopes
    origin, slopes = zeros(n_other + 1, DRAWS), zeros(n, n_other + 1, DRAWS)
    if cross is not None:
        origin, slopes = cross[0].unflatten(0, origin.shape), cross[1].unflatten(1, origin.shape)
    e0 = g0 - origin[-1]
    e1 = torch.cat([g1 - slopes[:, -1], origin[:-1]])
    own_pairs, other_pairs = g2, zeros(n_other, n_other)
    return [
        (e0[d], e1[:, d], _blocks(own_pairs[..., d], slopes[:, :-1, d], other_pairs))
        for d in range(DRAWS)
    ]


def top_players(first: np.ndarray, n_image: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k players with the largest |first-order term|, by side: the filter of the paper.

    Text keeps min(n_T, max(5, ceil(k n_T / n))) players and the image the rest of the k.
    """
    n, n_text = len(first), len(first) - n_image
    k_text = min(n_text, max(5, math.ceil(n_text * k / n)), k)
    k_image = min(n_image, k - k_text)
    strength = np.abs(first)
    image = np.sort(np.argsort(-strength[:n_image], kind="stable")[:k_image])
    text = np.sort(np.argsort(-strength[n_image:], kind="stable")[:k_text])
    return torch.from_numpy(image), torch.from_numpy(text)


def pack(
    image_sweep: Sweep,
    text_sweep: Sweep,
    e0: torch.Tensor,
    e1: torch.Tensor,
    e2: torch.Tensor,
    *,
    scale: float,
    bias: float,
    order: int | str,
    ridge: float | str,
    basis: str,
    deviations: torch.Tensor | None = None,
) -> Explanation:
    """Put coefficients of <E, F> on the game's scale, with everything that determined them."""
    ends = scale * (image_sweep.ends.double() * text_sweep.ends.double()).sum(1) + bias
    sides = {
        name: {
            **s.info,
            "masks": s.sample.m,
            "sampling": s.sample.sampling,
            "seed": s.sample.seed,
        }
        for name, s in (("image", image_sweep), ("text", text_sweep))
    }
    return Explanation(
        e0=float(scale * e0 + bias),
        e1=(scale * e1).cpu().numpy(),
        e2=(scale * e2).cpu().numpy(),
        players=image_sweep.names + text_sweep.names,
        n_image=image_sweep.n,
        p=(image_sweep.sample.p, text_sweep.sample.p),
        empty_value=float(ends[0]),
        grand_value=float(ends[1]),
        info={
            **sides,
            "fit": {"order": order, "ridge": ridge, "basis": basis, "scale": scale, "bias": bias},
        },
        picture=image_sweep.picture,
        deviations=None if deviations is None else (scale * deviations).float().cpu().numpy(),
    )


def _game_scale(
    image_sweep: Sweep, text_sweep: Sweep, scale: float | None, bias: float | None
) -> tuple[float, float]:
    widths = [s.embeddings.shape[1] for s in (image_sweep, text_sweep)]
    result = pair_scale(image_sweep.info, text_sweep.info, scale=scale, bias=bias)
    if widths[0] != widths[1]:
        raise ValueError(
            f"the sides have embeddings of width {widths[0]} and {widths[1]}: "
            "sweep both sides with the same model"
        )
    return result


def _check_options(order: int | str, ridge: float | str, basis: str, k: int) -> None:
    if order not in (1, 2, "product"):
        raise ValueError(f'order must be 1 or 2, or "product", got {order!r}')
    check_fit(2 if order == "product" else order, ridge)
    if basis not in ("full", "cross", "top"):
        raise ValueError(f'basis must be "full", "cross" or "top", got {basis!r}')
    if order == "product" and basis == "cross":
        raise ValueError(
            'order="product" multiplies pairs within the image by pairs within the text, and '
            'basis="cross" has neither: use basis="full" or "top", or order=2'
        )
    if k < 2:
        raise ValueError(f"the filter must keep 2 players or more, got k={k!r}")


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
    _check_options(order, 0.0, basis, k)
    scale, bias = _game_scale(image_sweep, text_sweep, scale, bias)
    n_I, n_T = image_sweep.n, text_sweep.n
    n = n_I + n_T
    Z, Y = image_sweep.masks.double(), text_sweep.masks.double()
    values = (image_sweep.embeddings.double() @ text_sweep.embeddings.double().T).flatten()
    weights = (image_sweep.weights[:, None] * text_sweep.weights).flatten()  # (m_I * m_T,)
    masks = torch.cat(
        [Z.repeat_interleave(len(Y), 0), Y.repeat(len(Z), 1)], 1
    )  # image-major: (m_I * m_T, n)

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
    return pack(
        image_sweep,
        text_sweep,
        c,
        e1,
        e2,
        scale=scale,
        bias=bias,
        order=order,
        ridge=0.0,
        basis=basis,
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
    solution = fit.solution[:, 0]
    return solution[0], solution[1 : n + 1], solution[n + 1 :]

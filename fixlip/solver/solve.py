"""From two sweeps to an explanation: one fit per side, and their pairing.

Letters: m_I, m_T masks Z (m_I, n_I) and Y (m_T, n_T) with weights w and v of sum 1; embeddings
E (m_I, D) and F (m_T, D). The game's value for image mask a and text mask b is <E_a, F_b>, so the
fit over all m_I * m_T values with weights w (x) v never needs those values: it is the sum of

- an order-2 fit of the row means E Fbar on the image masks,
- an order-2 fit of the column means F Ebar on the text masks, minus <Ebar, Fbar>, and
- the centred cross block of C = J_I J_T', inner products of both sides' regression slopes,

because functions of Z alone, functions of Y alone (both centred) and products of centred masks are
orthogonal to each other under w (x) v. The reference that forms all values: `solve_dense`.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from fixlip.checks import instance, integer, one_of
from fixlip.explanation import Explanation
from fixlip.sampler import Sweep
from fixlip.solver.factor import Factor, pair, pair_scale
from fixlip.solver.fit import check_fit, design_of, fit_design
from fixlip.solver.product import with_products


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

    By default, ``pair(fit(image_sweep), fit(text_sweep))``; image and image, or text and text, pair
    up as well. Give the sweeps different seeds: both samples count as independent.

    Parameters
    ----------
    image_sweep, text_sweep : Sweep
        n_I players under m_I masks and n_T players under m_T masks, of the same model.
    order : {1, 2, "product"}
        1: a constant and a term per player. 2: also a term per pair of players. "product": order 2
        and, from the same sweeps, the interactions of up to two players of each side with each
        other, as a `fixlip.solver.product.ProductExplanation`.
    ridge : "auto" or float
        Penalty on each side's own pairs; see `fixlip.fit`.
    basis : {"full", "cross", "top"}
        Which pairs exist: all; image-text pairs only; or all among the k players with the largest
        first-order terms (at least 5 of the text), the filter of the FIxLIP experiments. A product
        has pairs of each side in it and so no "cross"; with "top" its within-side pairs are those
        of the kept players. With order=1 there are no pairs, and all are the same.
    k : int
        Players kept by "top".
    scale, bias, errors
        See `fixlip.pair`.

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
    check_options(order, ridge, basis, k)
    hint = "fixlip.sweep(side) makes one"
    sweeps = [instance(swept, Sweep, hint) for swept in (image_sweep, text_sweep)]
    pair_scale(image_sweep.info, text_sweep.info, scale=scale, bias=bias)  # raises before the work
    within = 1 if order == 1 or basis == "cross" else 2
    designs = [design_of(swept) for swept in sweeps]

    def fits(order: int, among: tuple, errors: bool) -> list[Factor]:
        options = {"order": order, "ridge": ridge, "errors": errors}
        each = zip(sweeps, designs, among, strict=True)
        return [fit_design(*swept, among=some, **options) for *swept, some in each]

    among: tuple = (None, None)
    if basis == "top" and order != 1:
        first = pair(*fits(1, among, False), order=1, scale=1.0, bias=0.0, errors=False)
        among = top_players(first.e1, image_sweep.n, k)
    image, text = fits(within, among, errors)
    found = pair(image, text, order=1 if order == 1 else 2, scale=scale, bias=bias)
    found.info["fit"] |= {"order": order, "basis": basis} | ({"k": k} if basis == "top" else {})
    return with_products(found, image, text) if order == "product" else found


def top_players(first: np.ndarray, n_image: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k players with the largest |first-order term|, by side: the filter of the paper.

    Text keeps min(n_T, k, max(5, ceil(k n_T / n))) players and the image the rest of the k.
    """
    n, n_text = len(first), len(first) - n_image
    k_text = min(n_text, max(5, math.ceil(n_text * k / n)), k)
    k_image = min(n_image, k - k_text)
    if k_image < 1:
        raise ValueError(f"k={k} keeps text players alone: give k of {k_text + 1} or more")
    strength = np.abs(first)
    image = np.sort(np.argsort(-strength[:n_image], kind="stable")[:k_image])
    text = np.sort(np.argsort(-strength[n_image:], kind="stable")[:k_text])
    return torch.from_numpy(image), torch.from_numpy(text)


def check_options(order: int | str, ridge: float | str, basis: str, k: int) -> None:
    """Raise where an option of `solve` is unknown, or rules another one out."""
    one_of("order", order, (1, 2, "product"))
    check_fit(2 if order == "product" else order, ridge)
    one_of("basis", basis, ("full", "cross", "top"))
    if order == "product" and basis == "cross":
        raise ValueError(
            'order="product" multiplies pairs within the image by pairs within the text, and '
            'basis="cross" has neither: use basis="full" or "top", or order=2'
        )
    integer("k", k, at_least=2)

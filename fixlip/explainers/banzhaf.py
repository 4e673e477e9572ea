"""FIxLIP's cross terms as a pair of factors: the weighted Banzhaf vectors of each side.

The slopes J of a side's embedding in its own masks estimate what each player adds, on average, to
the embedding. By the splitting theorem the FIxLIP interaction of a patch and a word is the inner
product of their vectors, so one image's factor pairs with the factors of many captions.
"""

from __future__ import annotations

import torch

from fixlip.explainers.maps import Factor, FactorPair
from fixlip.sampler import Sweep, pair_scale
from fixlip.solver.fit import Problem, Side, check_fit


def factor(swept: Sweep, *, ridge: float | str = "auto") -> Factor:
    """Fit the weighted Banzhaf vectors of one side's players.

    Parameters
    ----------
    swept : Sweep
        From `fixlip.sweep`; p is its own.
    ridge : "auto" or float
        As in `fixlip.solve`.

    Returns
    -------
    Factor
        Vectors (n, D), and as "nothing kept" the fitted embedding with every player removed: the
        sum of ``FactorPair.full`` is the fitted value with everything kept.

    References
    ----------
    Weighted Banzhaf values: Marichal and Mathonet, 2011. FIxLIP: Baniecki et al., NeurIPS 2025.
    The factors follow from the splitting proved in notebooks/01_theory.ipynb.
    """
    check_fit(1, ridge)
    side = Side(swept)
    everyone = torch.arange(side.n)
    origin, slopes, _ = Problem(side, everyone, everyone[:0], ridge, side.E).terms(side.E)
    options = {
        "p": swept.sample.p,
        "masks": swept.sample.m,
        "sampling": swept.sample.sampling,
        "seed": swept.sample.seed,
        "ridge": ridge,
    }
    return Factor(
        slopes.cpu().numpy(),
        swept.names,
        swept.info.get("kind", "text" if swept.picture is None else "image"),
        origin[None].cpu().numpy(),
        ("nothing kept",),
        {**swept.info, "method": "banzhaf", "options": options},
        swept.picture,
    )


def explain(
    image_sweep: Sweep,
    text_sweep: Sweep,
    *,
    ridge: float | str = "auto",
    scale: float | None = None,
) -> FactorPair:
    """Pair the factors of two sweeps: exactly the cross terms of `fixlip.solve`.

    Parameters
    ----------
    image_sweep, text_sweep : Sweep
        Any two sweeps of one model, with different seeds.
    ridge, scale
        As in `fixlip.solve`: the scale is the model's own by default.

    Examples
    --------
    >>> import fixlip, torch
    >>> class Toy:
    ...     def __init__(self, n): self.n, self.names = n, [str(i) for i in range(n)]
    ...     def embed(self, masks): return masks.double()
    >>> pair = explain(fixlip.sweep(Toy(2)), fixlip.sweep(Toy(2)))
    >>> (abs(pair.cross) > 1e-9).astype(int).tolist()  # <z, y> = sum of z_i y_i
    [[1, 0], [0, 1]]
    """
    scale, bias = pair_scale(image_sweep.info, text_sweep.info, scale=scale)
    image, text = factor(image_sweep, ridge=ridge), factor(text_sweep, ridge=ridge)
    pair = FactorPair(image, text, scale)
    ends = (image_sweep.ends.double() * text_sweep.ends.double()).sum(1)
    empty_value, grand_value = (scale * ends + bias).tolist()
    return FactorPair(pair.image, pair.text, scale, empty_value, grand_value)

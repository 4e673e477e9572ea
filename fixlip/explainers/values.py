"""First-order game values of the players of both sides: Shapley and weighted Banzhaf values."""

from __future__ import annotations

from fixlip.checks import per_side
from fixlip.explainers.maps import FirstOrderMap
from fixlip.explanation import Explanation
from fixlip.games.estimate import estimate
from fixlip.games.game import Game
from fixlip.sampler import Side, side_seeds, sweep
from fixlip.solver import solve

SOURCES = {"order 1": 1, "order 2": 2}


def shapley_values(
    image_side: Side,
    text_side: Side,
    *,
    masks: int = 2**17,
    seed: int = 0,
    source: str = "order 1",
    ridge: float | str = "auto",
    scale: float | None = None,
    bias: float | None = None,
) -> FirstOrderMap:
    """Shapley values of all players of a pair, from joint masks.

    Parameters
    ----------
    image_side, text_side : Side
        Both of the same model, of any kind.
    masks : int
        Most joint masks that the game is asked for; where 2**n are fewer, the result is exact.
        Each side embeds each of its own distinct masks once.
    seed : int
        The same seed gives the same masks.
    source : {"order 1", "order 2"}
        A first-order fit (KernelSHAP), or the Faith-Shap interactions of order 2, each shared in
        halves by its two players. The FIxLIP experiments use the first for insertion, deletion and
        faithfulness, and the second for the pointing game. Both estimate the same values, as the
        order-1 fit of a fit of order 2 is that of the game; only sampling tells them apart.
    ridge : "auto" or float
        Penalty on the pair terms of "order 2", as in `fixlip.estimate`.
    scale, bias : float, optional
        As in `fixlip.Game`: the model's own by default.

    Returns
    -------
    FirstOrderMap
        With standard errors. The values of "order 1" sum to the grand minus the empty value, and
        so do those of "order 2".

    References
    ----------
    Lundberg and Lee, NeurIPS 2017; Tsai, Yeh and Ravikumar, JMLR 24, 2023; as used by Baniecki et
    al., NeurIPS 2025.

    Examples
    --------
    >>> import torch
    >>> class Toy:
    ...     n, names = 2, ("a", "b")
    ...     def embed(self, masks): return masks.double()
    >>> shapley_values(Toy(), Toy(), masks=16).values.round(9).tolist()  # z_1 y_1 + z_2 y_2
    [0.5, 0.5, 0.5, 0.5]
    """
    order = _order(source)
    game = Game(image_side, text_side, scale=scale, bias=bias)
    explanation = estimate(game, index="shapley", masks=masks, order=order, seed=seed, ridge=ridge)
    return _first_order(explanation, "shapley values", source)


def banzhaf_values(
    image_side: Side,
    text_side: Side,
    *,
    p: float | tuple[float, float] = 0.5,
    masks: int | tuple[int, int] = (2048, 1024),
    seed: int = 0,
    sampling: str = "antithetic",
    source: str = "order 1",
    ridge: float | str = "auto",
    scale: float | None = None,
    bias: float | None = None,
) -> FirstOrderMap:
    """Weighted Banzhaf values of all players of a pair, from a sweep of each side.

    Parameters
    ----------
    image_side, text_side : Side
        Both of the same model, of any kind.
    p, masks : one number or two
        Of both sides, or of the image and of the text, as in `fixlip.explain`.
    seed : int
        The same seed gives the same masks; the sides draw from independent streams of it.
    sampling : str
        See `fixlip.sampler.draw`.
    source : {"order 1", "order 2"}
        A first-order fit, or the order-2 fit with each pair term shared out by its partner's p
        (`fixlip.Explanation.attributions`). Both estimate the same values.
    ridge, scale, bias
        As in `fixlip.solve`.

    Returns
    -------
    FirstOrderMap
        With standard errors.

    References
    ----------
    Marichal and Mathonet, 2011; as used by Baniecki et al., NeurIPS 2025.

    Examples
    --------
    >>> import torch
    >>> class Toy:
    ...     n, names = 2, ("a", "b")
    ...     def embed(self, masks): return masks.double()
    >>> banzhaf_values(Toy(), Toy(), p=0.7).values.round(9).tolist()  # z_1 y_1 + z_2 y_2
    [0.7, 0.7, 0.7, 0.7]
    """
    order = _order(source)
    each = (image_side, text_side), per_side("masks", masks), per_side("p", p), side_seeds(seed)
    swept = [
        sweep(s, masks=m, p=q, seed=r, sampling=sampling) for s, m, q, r in zip(*each, strict=True)
    ]
    explanation = solve(*swept, order=order, ridge=ridge, scale=scale, bias=bias)
    return _first_order(explanation, "banzhaf values", source)


def _order(source: str) -> int:
    if source not in SOURCES:
        raise ValueError(f'source must be "order 1" or "order 2", got {source!r}')
    return SOURCES[source]


def _first_order(explanation: Explanation, sampling: str, source: str) -> FirstOrderMap:
    values, n_I = explanation.attributions(), explanation.n_image
    fit = {**explanation.info["fit"], "method": sampling, "source": source}
    return FirstOrderMap(
        values[:n_I],
        values[n_I:],
        explanation.players,
        n_I,
        {**explanation.info, "fit": fit},
        explanation.picture,
        stderr=explanation.stderr_of(Explanation.attributions),
        empty_value=explanation.empty_value,
        grand_value=explanation.grand_value,
    )

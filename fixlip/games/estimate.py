"""Model-agnostic estimation: explain any game that is a function of joint masks, on a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fixlip import checks, renamed
from fixlip.checks import MAX_ENUMERATED, boolean_masks, one_of, probability
from fixlip.explanation import Explanation
from fixlip.games import exact
from fixlip.games.game import ask, count_players
from fixlip.games.gamefit import fit_game
from fixlip.sampler import SAMPLINGS, MaskSample, draw, enumerate_masks, shapley_masks
from fixlip.sampler.masks import check_counts, distinct_rows, empty_and_full
from fixlip.solver.errors import known, warn_of_nearly_all
from fixlip.solver.fit import warn_of_players
from fixlip.solver.polynomial import Design, rank
from fixlip.solver.solve import check_options, top_players


@renamed.keywords(method="sampling")
def estimate(
    game: Callable[[torch.Tensor], Any],
    *,
    n: int | None = None,
    index: str = "banzhaf",
    p: float = 0.5,
    masks: int | MaskSample,
    order: int = 2,
    seed: int = 0,
    sampling: str | None = None,
    ridge: float | str = "auto",
    basis: str = "full",
    k: int = 72,
) -> Explanation:
    """Explain any function of joint masks by a polynomial of order 1 or 2.

    (A dual encoder is cheaper to explain from two sweeps, by `fixlip.solve`.)

    Returns an Explanation. Its standard errors are zero for an enumeration, and conservative where
    "distinct" or Shapley samples cover much of it, as draws are treated as independent. Raises
    TypeError or ValueError for unknown options, a budget that is too small, or a game
    that returns anything but one finite number per mask.

    Parameters
    ----------
    game : callable
        From masks (m, n), torch.bool, True = kept, to values (m,), torch or numpy. It is called
        once, with distinct masks only. `fixlip.Game` is one; where a game has ``n``, ``n_image``
        (how many of the players, the first ones, are of the image) and ``names``, they are used.
    n : int, optional
        Number of players, where the game does not say it.
    index : {"banzhaf", "shapley"}
        Best least-squares approximation under the product measure (weighted Banzhaf; p = .5 is
        Faith-Banzhaf), or under the Shapley kernel, exact for the empty and the full mask
        (order 1: KernelSHAP; order 2: Faith-Shap, FSII).
    p : float
        Probability of keeping a player, for "banzhaf".
    masks : int or MaskSample
        Most masks that the game is asked for; two of them are the empty and the full one. 2**n
        lists all masks: the result is exact, whatever ``sampling`` and ``ridge``. A sample of one's
        own is taken as it is, with its own p (for "shapley": the kernel as weights, as
        `fixlip.sampler.shapley_masks` makes it), and the two ends are asked besides.
    order, seed : {1, 2}, int
        Order of the polynomial; the same seed gives the same masks.
    sampling, ridge
        See `fixlip.sampler.draw`, by default "antithetic", for "shapley" "distinct" (the default)
        or "distinct-reference"; and `fixlip.solve`.
    basis, k : {"full", "cross", "top"}, int
        Which pairs exist, as in `fixlip.solve`: all; image-text pairs only; or all among the k
        players with the largest first-order terms. (Without an ``n_image``: the k strongest of
        all.) Under the product measure a pair's term is the same in every basis; with the Shapley
        kernel each basis has other interactions.

    References
    ----------
    Baniecki et al., NeurIPS 2025; Tsai, Yeh and Ravikumar, JMLR 24, 2023. The reference code fits
    the two ends of "shapley" with weight 1e7, which here is infinite.

    Examples
    --------
    >>> both = estimate(lambda masks: masks.all(1), n=2, masks=4)
    >>> both.e0, both.e1.tolist(), both.e2[0, 1]  # z_0 z_1
    (0.0, [0.0, 0.0], np.float64(1.0))
    """
    n, n_image = count_players(game, n), getattr(game, "n_image", 0)
    one_of("index", index, ("banzhaf", "shapley"))
    one_of("order", order, (1, 2))
    if probability(p) != 0.5 and index == "shapley":
        raise ValueError(f"Shapley values and interactions have no p, got p={p!r}: leave it out")
    check_options(order, ridge, basis, k)
    if basis == "cross" and not 0 < n_image < n:
        raise ValueError(
            'basis="cross" has pairs of an image and a text player only: give a game with n_image, '
            "how many of its players are of the image, such as fixlip.Game"
        )
    sample = _sample(n, masks, index, p, seed, sampling)
    p = sample.p if index == "banzhaf" else 0.5

    wanted = torch.cat([sample.masks, empty_and_full(n)])  # (m + 2, n)
    first, group = distinct_rows(wanted.numpy())
    answers = ask(game, wanted[torch.from_numpy(first)])[torch.from_numpy(group)]  # (m + 2,)
    values, (empty, full) = answers[:-2], answers[-2:].tolist()

    fitted = basis if order == 2 else "full"
    if sample.sampling == "enumerated" and sample.m == 2**n and fitted == "full":
        options = {"p": p, "order": order} if index == "banzhaf" else {"order": order}
        every = exact.weighted_banzhaf if index == "banzhaf" else exact.faith_shapley
        found = every(values.numpy(), **options)
        e0, e1, e2, deviations = found.e0, found.e1, found.e2, found.deviations
    else:
        ends = (empty, full) if index == "shapley" else None
        if sample.sampling == "enumerated" and index == "shapley":
            sample, values = _between(sample, values)
        design = Design(sample, values[:, None], "game")
        _warn_of_open_players(design, index, ridge)
        among = split = None
        if fitted == "cross":
            split = n_image
        elif fitted == "top":
            _, first, *_ = fit_game(design, order=1, ridge=ridge, ends=ends)
            among = _strongest(first.numpy(), n_image, k)
        warn_of_nearly_all(sample)
        bars = known(design)
        pairs = {"among": among, "split": split}
        found = fit_game(design, order=order, ridge=ridge, ends=ends, **pairs)
        e0, e1, e2, deviations = found
        e1, e2 = e1.numpy(), e2.numpy()
        deviations = deviations.numpy() if bars else None

    sides = {name: getattr(game, f"{name}_side", None) for name in ("image", "text")}
    return Explanation(
        e0,
        e1,
        e2,
        players=tuple(map(str, getattr(game, "names", range(n)))),
        n_image=n_image,
        p=(p, p),
        empty_value=empty,
        grand_value=full,
        info={
            **{name: getattr(side, "info", {}) for name, side in sides.items() if side},
            "fit": {
                "index": index,
                "order": order,
                "ridge": ridge,
                "basis": basis,
                **({"k": k} if basis == "top" else {}),
                "masks": len(first),
                "sampling": sample.sampling,
                "seed": sample.seed,
                "scale": getattr(game, "scale", 1.0),
                "bias": getattr(game, "bias", 0.0),
            },
        },
        picture=getattr(sides["image"], "picture", None),
        deviations=deviations,
    )


def _between(sample: MaskSample, values: torch.Tensor) -> tuple[MaskSample, torch.Tensor]:
    """All masks but the empty and the full one, with the Shapley kernel, and their values."""
    inner = shapley_masks(sample.n, 2**sample.n - 2)
    place = inner.masks.long() @ 2 ** torch.arange(sample.n)  # as `enumerate_masks` lists them
    return inner, values[place]


def _strongest(first: np.ndarray, n_image: int, k: int) -> torch.Tensor:
    """The players that "top" keeps."""
    if n_image:
        image, text = top_players(first, n_image, k)
        return torch.cat([image, n_image + text])
    return torch.from_numpy(np.sort(np.argsort(-np.abs(first), kind="stable")[:k]))


def _sample(
    n: int, masks: int | MaskSample, index: str, p: float, seed: int, sampling: str | None
) -> MaskSample:
    """The masks that the fit uses, besides the empty and the full one."""
    allowed = SAMPLINGS if index == "banzhaf" else ("distinct", "distinct-reference")
    sampling = one_of("sampling", allowed[0] if sampling is None else sampling, allowed)
    checks.seed(seed)
    if isinstance(masks, MaskSample):
        boolean_masks(masks.masks, n)
        size = masks.masks.sum(1)
        if index == "shapley" and masks.m < 2**n and bool(((size == 0) | (size == n)).any()):
            raise ValueError(
                "a sample for the Shapley index must leave out the empty and the full mask: their "
                "weight is infinite, and they are asked for besides"
            )
        return masks
    check_counts(n, masks)
    if n <= MAX_ENUMERATED and masks >= 2**n:
        return enumerate_masks(n, p=p)
    if masks < 3:
        raise ValueError(
            f"a budget of {masks} masks is too small: two go to the empty and the full mask, so "
            f"give 3 or more ({2**n if n <= MAX_ENUMERATED else f'2**{n}'} are all)"
        )
    if index == "banzhaf":
        return draw(n, masks - 2, p=p, seed=seed, sampling=sampling)
    weighting = "mass" if sampling == "distinct" else "reference"
    return shapley_masks(n, masks - 2, seed=seed, weighting=weighting)


def _warn_of_open_players(design: Design, index: str, ridge: float | str) -> None:
    """Warn where the masks cannot tell players apart; of plain least squares the fit warns."""
    if ridge == 0:
        return
    Z, n = design.sample.masks.double(), design.n
    centre = Z.mean(0) if index == "banzhaf" else Z.mean(1, keepdim=True)  # ends fix the sum
    needed = n if index == "banzhaf" else n - 1
    if (lost := needed - rank(Z - centre)) > 0:
        warn_of_players(design, lost, needed)

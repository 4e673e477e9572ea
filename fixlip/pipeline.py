"""One pair in one call: sweep the image, sweep the caption, solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fixlip import renamed
from fixlip.budget import MAX_MASKS, sweep_to_tolerance
from fixlip.checks import integer, per_side, probability
from fixlip.explanation import Explanation
from fixlip.sampler import side_seeds, sweep
from fixlip.solver import pair_scale, solve
from fixlip.solver.solve import check_options

if TYPE_CHECKING:
    from fixlip.encoders import Encoder
    from fixlip.images import Picture


@renamed.keywords(method="sampling")
def explain(
    encoder: Encoder,
    image: Picture,
    caption: str,
    *,
    p: float | tuple[float, float] = 0.5,
    masks: int | tuple[int, int] | str = (2048, 1024),
    tolerance: float | None = None,
    max_masks: int | None = None,
    order: int | str = 2,
    seed: int = 0,
    image_players: str | Mapping[str, np.ndarray] | Sequence[np.ndarray] = "patches",
    text_players: str = "tokens",
    sampling: str = "antithetic",
    ridge: float | str = "auto",
    basis: str = "full",
    k: int = 72,
    scale: float | None = None,
    bias: float | None = None,
    errors: bool = True,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Explanation:
    """Explain why an encoder finds an image and a caption similar.

    Parameters
    ----------
    encoder : Encoder
        From `fixlip.load`.
    image : PIL image, array or path
    caption : str
    p : float or (float, float)
        Probability of keeping a player; one for both sides, or image and text.
    masks : int, (int, int) or "auto"
        Masks of the image and of the caption; a side with fewer masks than that lists them all.
        The encoder runs at most once per mask, and twice more per side. "auto" draws until
        ``tolerance`` is met and splits the time between the sides as `fixlip.advise` does.
    tolerance : float, optional
        With masks="auto": the root-mean-square standard error of the image-text interactions,
        divided by their root-mean-square size (corrected for that error), in (0, 1); 0.05, or 5 %,
        by default. What was reached, and how, is in ``info["budget"]``. The numbers of masks
        depend on the measured speed of the encoder; given as ``masks``, they make the same
        explanation up to rounding.
    max_masks : int, optional
        With masks="auto": most masks of either side, by default 65,536. Where they do not bring
        the error down to the tolerance, a warning says so.
    seed : int
        The same seed gives the same masks; both sides draw from independent streams of it.
    image_players, text_players
        See `Encoder.image` and `Encoder.text`.
    order, ridge, basis, k, scale, bias, errors
        See `fixlip.solve`.
    sampling, batch_size, progress
        See `fixlip.sampler.draw` and `fixlip.sweep`.
    """
    check_options(order, ridge, basis, k)
    _check_masks(masks, p, tolerance, max_masks, order, basis)
    sides = encoder.image(image, players=image_players), encoder.text(caption, players=text_players)
    pair_scale(*(side.info for side in sides), scale=scale, bias=bias)  # raises before the work
    options = {"sampling": sampling, "batch_size": batch_size, "progress": progress}
    budget = {}
    if masks == "auto":
        tolerance = 0.05 if tolerance is None else tolerance
        most = MAX_MASKS if max_masks is None else max_masks
        *swept, report = sweep_to_tolerance(
            *sides, tolerance=tolerance, max_masks=most, p=p, seed=seed, **options
        )
        budget = {"budget": report}
    else:
        each = zip(sides, per_side("masks", masks), per_side("p", p), side_seeds(seed), strict=True)
        swept = [sweep(side, masks=m, p=q, seed=s, **options) for side, m, q, s in each]
    game = {"scale": scale, "bias": bias, "errors": errors}
    found = solve(*swept, order=order, ridge=ridge, basis=basis, k=k, **game)
    return replace(found, info=found.info | budget)


def _check_masks(
    masks: object, p: object, tolerance: object, max_masks: object, order: object, basis: object
) -> None:
    """Raise before the sweeps where an option is wrong, or rules another one out."""
    for each in per_side("p", p):
        probability(each)
    if masks != "auto":
        if isinstance(masks, str):
            raise ValueError(f'masks must be one or two numbers, or "auto", got {masks!r}')
        if tolerance is not None or max_masks is not None:
            raise ValueError('tolerance and max_masks go with masks="auto" only')
        for count in per_side("masks", masks):
            integer("the number of masks", count)
    elif order == 1 or basis == "top":
        raise ValueError(
            'masks="auto" measures the error of all image-text interactions, which '
            f"order={order!r}, basis={basis!r} does not have: use order=2 and another basis, or "
            "give numbers of masks"
        )

"""An explanation from one number per patch or token, as methods of first order give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fixlip.encoders.sides import ImageSide, TextSide
from fixlip.explanation import Explanation


def from_units(
    sides: Sequence[ImageSide | TextSide],
    units: Sequence[np.ndarray],
    *,
    fit: dict[str, Any],
    text_normalised: bool,
    grand_value: float,
) -> Explanation:
    """Make an explanation without pair terms.

    Raises ValueError where a number is not finite.

    Parameters
    ----------
    sides : two of ImageSide or TextSide
    units : two of numpy.ndarray, (units,)
        One number per patch or token; a player's term is the sum over those that it owns.
    fit : dict
        The method and its options, for ``info``.
    text_normalised : bool
        Divide each caption's terms by their sum, unless that is 0.
    grand_value : float
        The game with everything kept.
    """
    terms = []
    for side, values in zip(sides, units, strict=True):
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(
                f"{bad} values of the {side.info['kind']} are NaN or infinite: check the input and "
                "the model's weights"
            )
        if text_normalised and isinstance(side, TextSide) and values.sum() != 0:
            values = values / values.sum()
        terms.append(np.bincount(side.players.owner, values, side.n))  # (units,) -> (n,)
    first, second = sides
    n = first.n + second.n
    return Explanation(
        e0=0.0,
        e1=np.concatenate(terms),
        e2=np.zeros((n, n)),
        players=(*first.names, *second.names),
        n_image=first.n,
        grand_value=grand_value,
        info={
            "image": first.info,
            "text": second.info,
            "fit": {"order": 1, **fit, "text_normalised": text_normalised},
        },
        picture=getattr(first, "picture", None),
    )

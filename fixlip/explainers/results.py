"""What explainers give: a factor of vectors per token, an explanation of numbers per unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fixlip.encoders.opened import OpenTower
from fixlip.encoders.sides import EncoderSide, TextSide
from fixlip.explanation import Explanation
from fixlip.sampler.masks import empty_and_full
from fixlip.solver import Factor


def from_rows(
    tower: OpenTower, vectors: torch.Tensor, method: str, options: dict[str, Any]
) -> Factor:
    """The factor of an open tower's side from the vectors of the tower's rows, (k + n, D)."""
    side, k = tower.side, len(tower.special_names)
    return Factor(
        first=vectors[k:],
        names=side.names,
        kind=side.info["kind"],
        method=method,
        options=options,
        info=side.info,
        picture=getattr(side, "picture", None),
        special=vectors[:k],
        special_names=tower.special_names,
        ends=side.embed(empty_and_full(side.n)),
    )


def from_units(
    sides: Sequence[EncoderSide],
    units: Sequence[np.ndarray],
    *,
    fit: dict[str, Any],
    text_normalised: bool,
    grand_value: float,
) -> Explanation:
    """An explanation without pair terms from one number per patch or token, (units,) of each side.

    A player's term is the sum over its units; each caption's terms are divided by their sum where
    ``text_normalised``, unless it is 0. ``fit`` is the method with its options, for ``info``.
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
    n, fit = first.n + second.n, {"order": 1, **fit, "text_normalised": text_normalised}
    return Explanation(
        e0=0.0,
        e1=np.concatenate(terms),
        e2=np.zeros((n, n)),
        players=(*first.names, *second.names),
        n_image=first.n,
        grand_value=grand_value,
        info={"image": first.info, "text": second.info, "fit": fit},
        picture=getattr(first, "picture", None),
    )

"""One pair in one call: sweep the image, sweep the caption, solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from fixlip.explanation import Explanation
from fixlip.sampler import sweep
from fixlip.solver import solve

if TYPE_CHECKING:
    from PIL.Image import Image

    from fixlip.encoders import Encoder


def explain(
    encoder: Encoder,
    image: Image | np.ndarray | str | PathLike,
    caption: str,
    *,
    p: float | tuple[float, float] = 0.5,
    masks: int | tuple[int, int] = (2048, 1024),
    order: int = 2,
    seed: int = 0,
    image_players: str | Mapping[str, np.ndarray] | Sequence[np.ndarray] = "patches",
    text_players: str = "tokens",
    method: str = "antithetic",
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
    masks : int or (int, int)
        Masks of the image and of the caption; a side with fewer masks than that lists them all.
        The encoder runs at most once per mask, and twice more per side.
    order, ridge, basis, k, scale, bias, errors
        See `fixlip.solve`.
    seed : int
        The same seed gives the same masks; both sides draw from independent streams of it.
    image_players, text_players
        See `Encoder.image` and `Encoder.text`.
    method : str
        See `fixlip.sampler.draw`.
    batch_size, progress
        See `fixlip.sweep`.

    Returns
    -------
    Explanation
    """
    p_image, p_text = _per_side("p", p)
    m_image, m_text = _per_side("masks", masks)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(2)]
    sides = (
        encoder.image(image, players=image_players),
        encoder.text(caption, players=text_players),
    )
    swept = [
        sweep(side, masks=m, p=q, seed=s, method=method, batch_size=batch_size, progress=progress)
        for side, m, q, s in zip(sides, (m_image, m_text), (p_image, p_text), seeds, strict=True)
    ]
    return solve(
        *swept,
        order=order,
        ridge=ridge,
        basis=basis,
        k=k,
        scale=scale,
        bias=bias,
        errors=errors,
    )


def _per_side(name: str, value: object) -> tuple:
    """One value for both sides, or a value for the image and one for the text."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2:
        raise ValueError(f"{name} takes one value or two (image, text), got {value!r}")
    return both

"""Boxes on the original image, as the image players inside them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fixlip import images

if TYPE_CHECKING:
    from fixlip.encoders.sides import ImageSide


def patches_in(side: ImageSide, box: Sequence[float], *, rule: str = "centre") -> np.ndarray:
    """How far each image player lies in a box on the original image.

    Parameters
    ----------
    side : ImageSide
        From `Encoder.image`, with any players.
    box : sequence of four numbers
        x and y of the top left corner, width and height, in pixels of the original, upright image.
        It goes through the model's own preprocessing; what that crops away does not count.
    rule : {"centre", "overlap"}
        A patch counts whole where its centre lies in the box, or by the share of it that does.

    Returns
    -------
    numpy.ndarray, (n,), float64
        In [0, 1]; of a group of patches, their mean. ``np.flatnonzero`` of it gives the players,
        ``weights @ explanation.cross`` the words' scores.

    Warns
    -----
    UserWarning
        Where no patch counts.

    Examples
    --------
    >>> import fixlip
    >>> encoder = fixlip.load("demo-clip", device="cpu")
    >>> side = encoder.image(np.zeros((48, 48, 3)), players="3x3")  # blocks of 24 pixels
    >>> patches_in(side, [0, 0, 24, 32]).tolist()
    [1.0, 0.0, 0.3333333333333333, 0.0]

    References
    ----------
    The point game of the exCLIP paper (TMLR 2025), which leaves the rule open.
    """
    if rule not in ("centre", "overlap"):
        raise ValueError(f'rule must be "centre" or "overlap", got {rule!r}')
    if not hasattr(side, "grid"):
        raise ValueError("a box needs the side of an image: make it with encoder.image(...)")
    inside = _box_mask(box, side.info["size"])
    encoder, (rows, columns) = side.encoder, side.grid
    seen = images.coverage(
        inside, encoder._geometry, size=side.info["size"], crops=encoder._crops
    )  # (h, w), in [0, 1]
    high, wide = side._patch
    # pixels beyond the last whole patch are in none
    tiles = seen[: rows * high, : columns * wide].reshape(rows, high, columns, wide)
    if rule == "centre":  # the middle pixel, or the two or four around the middle
        tiles = tiles[:, (high - 1) // 2 : high // 2 + 1, :, (wide - 1) // 2 : wide // 2 + 1]
    share = tiles.astype(np.float64).mean((1, 3)).ravel()  # (rows * columns,)
    if rule == "centre":
        share = (share >= 0.5).astype(np.float64)
    if not share.any():
        warnings.warn(f"no patch counts as inside the box {list(box)}", stacklevel=2)
    owner = side.players.owner
    return np.bincount(owner, share) / np.bincount(owner)  # (units,) -> (n,)


def _box_mask(box: Sequence[float], size: Sequence[int]) -> np.ndarray:
    """Pixels (height, width) whose centres lie in a box, for an image of this width and height."""
    try:
        numbers = np.asarray(box, np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    width, height = size
    if numbers.shape != (4,) or not np.isfinite(numbers).all() or (numbers[2:] <= 0).any():
        raise ValueError(f"a box is [x, y, width, height] in pixels, got {box!r}")
    x, y, w, h = numbers
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5
    across, down = (across >= x) & (across < x + w), (down >= y) & (down < y + h)
    if not across.any() or not down.any():
        raise ValueError(
            f"the box {list(box)} holds no pixel of the image, which is {width} wide and {height} "
            "high: give [x, y, width, height] in pixels of the original image"
        )
    return down[:, None] & across  # (height, width)

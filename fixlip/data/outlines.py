"""Outlines in COCO's formats as pixels, checked before anything is drawn or unpacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

LONGEST = 100  # of the way around a polygon, in units of the picture's width plus height


def outline_pixels(
    outline: Mapping[str, Any] | Sequence[Sequence[float]] | None, size: tuple[int, int]
) -> np.ndarray | None:
    """The pixels inside an outline, (height, width), bool; None where it has no area.

    Raises ValueError where it is none of COCO's formats, or does not fit the picture.

    Parameters
    ----------
    outline : list of polygons, or mapping
        A polygon is x, y, x, y, ... in pixels, of three corners or more (those of fewer have no
        area); a mapping is a run-length code, with ``size`` (height, width) and ``counts``, as
        numbers or packed into a text.
    size : (width, height)
        Of the picture.

    Examples
    --------
    >>> outline_pixels([[0, 0, 2, 0, 2, 1, 0, 1]], (3, 2)).astype(int).tolist()
    [[1, 1, 0], [0, 0, 0]]
    """
    if not outline:
        return None
    width, height = size
    if isinstance(outline, Mapping):
        return _unrolled(outline, width, height)
    if not isinstance(outline, list | tuple):
        raise ValueError(f"an outline is polygons or a run-length code, got {outline!r:.80}")
    polygons = [_polygon(polygon, width, height) for polygon in outline]
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        return None
    code = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return coco_mask.decode(code).astype(bool)


def _polygon(polygon: Sequence[float], width: int, height: int) -> list[float]:
    try:
        corners = np.asarray(polygon, np.float64)
    except (TypeError, ValueError, OverflowError):
        corners = np.empty(1)  # an odd number is refused
    if corners.ndim != 1 or len(corners) % 2:
        raise ValueError(f"a polygon is an even number of numbers x, y, ..., got {polygon!r:.80}")
    if not len(corners):
        return []
    # pycocotools keeps points for every pixel of the way around, so that corners which are very
    # far away, or very many, would take all memory; written so that NaN fails too
    points = corners.reshape(-1, 2)
    with np.errstate(all="ignore"):
        way = np.abs(points).max() + np.abs(points - np.roll(points, 1, axis=0)).sum()
    if not way <= LONGEST * (width + height):
        raise ValueError(
            f"a polygon with x and y from {corners.min():g} to {corners.max():g} does not fit a "
            f"picture of {width} x {height} pixels"
        )
    return corners.tolist()


def _unrolled(code: Mapping, width: int, height: int) -> np.ndarray:
    """The pixels of a run-length code: runs outside and inside in turn, column by column."""
    if code.get("size") not in ([height, width], (height, width)):
        raise ValueError(
            f"the size of its run-length code must be {[height, width]}, the height and width of "
            f"the picture, got {code.get('size')!r:.80}"
        )
    counts = code.get("counts")
    if isinstance(counts, str | bytes):
        counts = _unpacked(counts)
    try:
        whole = all(isinstance(c, int | np.integer) and c >= 0 for c in counts)
        total = sum(map(int, counts)) if whole else -1
    except TypeError:  # no sequence
        total = -1
    if total != width * height:
        raise ValueError(
            "the counts of its run-length code must be whole numbers that add up to the "
            f"{width * height} pixels of the picture, got {code.get('counts')!r:.80}"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T  # (width, height) -> (height, width)


def _unpacked(text: str | bytes) -> list[int]:
    """The counts of a packed run-length code; nonsense gives nonsense, not an error.

    A letter holds five bits of a number, the lowest first, and whether more follow; the highest bit
    is the sign. From the fourth number on, the one two places before is to be added.

    >>> code = coco_mask.encode(np.asfortranarray([[0, 1], [1, 1], [0, 1]], np.uint8))
    >>> _unpacked(code["counts"])
    [1, 1, 1, 3]
    """
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    counts, number, bits = [], 0, 0
    for letter in data:
        number |= ((letter - 48) & 31) << bits
        bits += 5
        if bits > 60:  # no picture is that large
            return []
        if (letter - 48) & 32:
            continue
        if number >> (bits - 1):
            number -= 1 << bits
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = bits = 0
    return counts

"""The numbers that a figure shows, read from what was drawn: to be compared from run to run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle

DIGITS = 5  # significant ones that are kept


def numbers(figure: Figure) -> dict[str, np.ndarray]:
    """Return the arrays that a figure shows, by a name that says where they were drawn.

    Lines give x and y, bars two opposite corners, other patches their outlines, images and meshes
    their values, scattered points their places, edges of a graph their widths. Photographs and
    text (titles, labels, words) give none, and colour bars are left out. Arrays are float64, in the
    order of drawing, such as ``"0 line 2 y"`` of panel 0's third line. Masked entries are NaN.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> _ = figure.subplots().plot([1, 2], [0.5, 0.25])
    >>> numbers(figure)
    {'0 line 0 x': array([1., 2.]), '0 line 0 y': array([0.5 , 0.25])}
    """
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    return {
        f"{k} {name}": np.ma.filled(np.ma.asarray(array, dtype=np.float64), np.nan)
        for k, ax in enumerate(panels)
        for name, array in _drawn(ax)
    }


def as_json(arrays: dict[str, np.ndarray]) -> str:
    """Write the arrays of `numbers` as JSON text, one array on a line, to 5 significant digits."""
    lines = [f'  "{name}": {_text(array)}' for name, array in arrays.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _text(array: np.ndarray) -> str:
    if array.ndim:
        return f"[{','.join(map(_text, array))}]"
    return f"{array + 0.0:.{DIGITS}g}" if np.isfinite(array) else "null"  # + 0.0: no minus zero


def _drawn(ax: Axes) -> Iterator[tuple[str, np.ndarray]]:
    for k, line in enumerate(ax.lines):
        yield f"line {k} x", line.get_xdata(orig=False)
        yield f"line {k} y", line.get_ydata(orig=False)
    for k, patch in enumerate(ax.patches):
        yield f"patch {k}", _outline(patch)
    for k, image in enumerate(ax.images):
        if image.get_array().ndim == 2:  # three dimensions are the colours of a photograph
            yield f"image {k}", image.get_array()
    for k, collection in enumerate(ax.collections):
        yield f"collection {k}", _points(collection)


def _outline(patch: Patch) -> np.ndarray:
    """Two corners of a bar (4,), all of another patch (corners, 2), the width of an edge (1,)."""
    if isinstance(patch, FancyArrowPatch):
        return np.array([patch.get_linewidth()])
    if isinstance(patch, Rectangle):
        return patch.get_bbox().extents
    return patch.get_patch_transform().transform(patch.get_path().vertices)


def _points(collection: Collection) -> np.ndarray:
    """Values of a mesh, ends of error bars, edges of a band, or centres of points."""
    if isinstance(collection, QuadMesh):
        return collection.get_array()
    if isinstance(collection, LineCollection):
        segments = [np.reshape(ends, (-1, 2)) for ends in collection.get_segments()]  # NaN: none
        return np.concatenate([*segments, np.empty((0, 2))])
    offsets = collection.get_offsets()
    if len(offsets) > 1 or np.any(offsets):
        return offsets
    return np.concatenate([*(path.vertices for path in collection.get_paths()), np.empty((0, 2))])

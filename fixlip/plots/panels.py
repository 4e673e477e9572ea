"""Pictures of an explanation: one panel per function, which takes an ``ax`` and gives it back.

One colour scale everywhere: red raises the similarity, blue lowers it, white is nothing, and
`limit` is the size at which a colour is full. Give several panels the same limit to compare them.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.patches import FancyArrowPatch

from fixlip.checks import instance, integer, number
from fixlip.explanation import Explanation, Player
from fixlip.plots.names import name_style, shown

COLOURS = "RdBu_r"


def picture(explanation: Explanation, *, ax: Axes | None = None, grey: bool = False) -> Axes:
    """Draw the image as the model saw it, in units of patches; pale and grey as a background."""
    ax = _axes(ax)
    rows, columns = _grid(explanation)
    if explanation.picture is not None:
        shown = explanation.picture
        if grey:  # red and blue are kept for interactions
            shown = np.repeat(90 + 0.65 * shown.mean(2, keepdims=True), 3, axis=2).astype(np.uint8)
        ax.imshow(shown, extent=(0, columns, rows, 0))
    ax.set_xlim(0, columns)
    ax.set_ylim(rows, 0)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def heatmap(
    explanation: Explanation,
    player: Player | Sequence[Player],
    *,
    ax: Axes | None = None,
    limit: float | None = None,
) -> Axes:
    """Draw the interactions of one word (or a span of words) with every patch over the picture.

    Parameters
    ----------
    explanation : Explanation
        With a patch grid on its image side.
    player : int, str or a sequence of them
        Text player(s), as in `Explanation.given`.
    limit : float, optional
        Interaction at which the colour is full; by default the largest of this map.
    """
    _grid(explanation)
    if any(i < explanation.n_image for i in explanation.indices(player)):
        raise ValueError(
            f"{player!r} is of the first side, whose patches are drawn on: name players of the "
            "other side, or draw a patch's interactions with plots.bars"
        )
    ax = patches(explanation, explanation.given(player), ax=ax, limit=limit)
    names = [shown(explanation.players[i]) for i in explanation.indices(player)]
    ax.set_title(" ".join(names), **name_style(*names))
    return ax


def patches(
    explanation: Explanation,
    values: np.ndarray,
    *,
    ax: Axes | None = None,
    limit: float | None = None,
) -> Axes:
    """Draw one number per image player (n_I,) over the picture, as those of a first-order method.

    The other parameters as in `heatmap`.
    """
    ax = _axes(ax)
    _grid(explanation)
    values = explanation.on_grid(values)  # (n_I,) -> (rows, columns)
    if not np.isfinite(values).all():
        raise ValueError("some values are NaN or infinite, which have no colour: check the method")
    limit = _limit(limit, values)
    picture(explanation, ax=ax, grey=True)
    # strength is opacity as well, so that the picture shows wherever there is nothing
    opacity = 0.15 + 0.75 * np.clip(np.abs(values) / limit, 0, 1)
    ax.imshow(
        values,
        cmap=COLOURS,
        vmin=-limit,
        vmax=limit,
        alpha=opacity,
        extent=(*ax.get_xlim(), *ax.get_ylim()),
        interpolation="nearest",
    )
    return ax


def graph(
    explanation: Explanation, *, count: int = 24, ax: Axes | None = None, limit: float | None = None
) -> Axes:
    """Draw the strongest interactions as edges between patches on the picture and words beside it.

    Width is strength and colour is sign; edges within the image are thin arcs on the picture, edges
    within the caption arcs beside the words. Words are written on their first-order term's colour.
    Players of a first side without a patch grid, such as another caption, are words as well, on the
    left.

    Parameters
    ----------
    count : int
        How many edges, the strongest of all pairs.
    limit : float, optional
        Interaction at which colour and width are full; by default the largest one drawn.
    """
    ax = _axes(ax)
    edges = explanation.strongest(count)
    limit = _limit(limit, [value for *_, value in edges])
    n, drawn = explanation.n_image, "grid" in explanation.info.get("image", {})
    if drawn:
        picture(explanation, ax=ax, grey=True)
    else:
        ax.set(xlim=(0, 1), ylim=(1, 0))
        ax.set_axis_off()
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()  # in patches, top < bottom
    x_words = right + (0.18 if drawn else 0.0) * (right - left)
    columns = [_column(explanation.n_text, x_words, bottom, top)]
    columns = [_patch_centres(explanation) if drawn else _column(n, left, bottom, top), *columns]
    where = np.concatenate(columns)  # (n, 2)
    norm, colours = Normalize(-limit, limit), plt.get_cmap(COLOURS)
    for i, j, value in reversed(edges):  # strongest last, on top
        size = min(abs(value) / limit, 1)
        inside = 0.25 if drawn else 0.5
        bend = {(True, True): inside, (False, False): -0.5}.get((i < n, j < n), 0.0)
        ax.add_patch(
            FancyArrowPatch(
                where[i],
                where[j],
                arrowstyle="-",
                connectionstyle=f"arc3,rad={bend}",
                color=colours(norm(value)),
                linewidth=0.6 + 4.4 * size,
                alpha=0.35 + 0.6 * size,
                shrinkA=0,
                shrinkB=0,
                capstyle="round",
                clip_on=False,
            )
        )
    named = {i for i, j, _ in edges} | {j for i, j, _ in edges}
    patches = [i for i in sorted(named) if i < n and drawn]
    ax.scatter(*where[patches].T, s=14, color="white", edgecolor="black", linewidth=0.8, zorder=3)
    first = Normalize(*(np.array([-1, 1]) * _largest(explanation.e1)))
    words = range(n if drawn else 0, explanation.n)
    options = name_style(*(shown(explanation.players[i]) for i in words))
    for i in words:
        shade = colours(first(explanation.e1[i]))
        ax.text(
            *where[i],
            shown(explanation.players[i]),
            ha="right" if i < n else "left",
            va="center",
            clip_on=False,
            zorder=4,
            color="white" if np.dot(shade[:3], [0.3, 0.6, 0.1]) < 0.5 else "black",
            bbox={"boxstyle": "round,pad=0.3", "facecolor": shade, "edgecolor": "0.6"},
            **options,
        )
    margin = 0.6 * (right - left)
    ax.set_xlim(left if drawn or not n else left - margin, right + margin)
    room = (bottom - top) * 0.045
    heights = where[words, 1] if len(words) else np.array([top + room, bottom - room])
    ax.set_ylim(max(bottom, heights.max() + room), min(top, heights.min() - room))
    ax.set_title(f"the {len(edges)} strongest interactions")
    return ax


def bars(explanation: Explanation, *, count: int = 12, ax: Axes | None = None) -> Axes:
    """Draw the largest first-order terms as horizontal bars, with 95 % intervals where known."""
    integer("count", count, at_least=0)
    ax = _axes(ax)
    order = np.argsort(-np.abs(explanation.e1), kind="stable")[:count]
    terms = explanation.e1[order]
    limit = _largest(terms)
    ax.barh(
        np.arange(len(order)),
        terms,
        edgecolor="0.4",
        linewidth=0.6,
        color=plt.get_cmap(COLOURS)(Normalize(-limit, limit)(terms)),
        xerr=None if explanation.stderr is None else 1.96 * explanation.stderr.e1[order],
        error_kw={"linewidth": 1, "capsize": 2, "ecolor": plt.rcParams["text.color"]},
    )
    names = [shown(explanation.players[i]) for i in order]
    ax.set_yticks(np.arange(len(order)), names, **name_style(*names))
    ax.invert_yaxis()
    ax.axvline(0, color=plt.rcParams["text.color"], linewidth=0.8)
    ax.set_xlabel("first-order term")
    ax.set_title(f"the {len(order)} largest first-order terms")
    for edge in ("top", "right"):
        ax.spines[edge].set_visible(False)
    return ax


def colourbar(limit: float, ax: Axes | Sequence[Axes], *, label: str = "interaction") -> Colorbar:
    """Add the colour scale of panels drawn with this limit beside them."""
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel().tolist()
    scale = ScalarMappable(Normalize(-limit, limit), COLOURS)
    return axes[0].figure.colorbar(scale, ax=axes, label=label, shrink=0.75)


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        return plt.subplots(layout="constrained")[1]
    return instance(ax, Axes, "matplotlib.pyplot.subplots() makes one, and many in an array")


def _limit(limit: float | None, values: np.ndarray | Sequence[float]) -> float:
    """Where colours are full: as given, or at the largest value where that is None or 0."""
    return number("limit", limit or 0, at_least=0) or _largest(values)


def _largest(values: np.ndarray | Sequence[float]) -> float:
    """The largest magnitude, or 1 where all is zero (an all-white panel needs some scale)."""
    return float(np.max(np.abs(values), initial=0)) or 1.0


def _grid(explanation: Explanation) -> tuple[int, int]:
    """Rows and columns of the image's patches; an error where there is no such image."""
    side = explanation.info.get("image", {})
    if "grid" not in side:
        kind = side.get("kind", "no image")
        raise ValueError(
            f"the first side of this explanation is {kind}, without a grid of patches to draw: "
            "use plots.bars or plots.graph"
        )
    return tuple(side["grid"])


def _column(count: int, x: float, bottom: float, top: float) -> np.ndarray:
    """Places of words below one another, (count, 2); many of them reach beyond the picture."""
    step = (bottom - top) * max(1 / max(count, 1), 0.09)
    heights = (bottom + top) / 2 + (np.arange(count) - (count - 1) / 2) * step
    return np.column_stack([np.full(count, x), heights])


def _patch_centres(explanation: Explanation) -> np.ndarray:
    """Centre of every image player in units of patches, (n_I, 2) as x, y."""
    owner = np.array(explanation.info["image"]["owner"]).reshape(explanation.info["image"]["grid"])
    centres = [np.argwhere(owner == i)[:, ::-1].mean(0) + 0.5 for i in range(explanation.n_image)]
    return np.reshape(centres, (-1, 2))

"""Figures as files: a picture to look at, one to print, and the numbers that it shows."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fixlip.files import atomic
from fixlip.paths import output
from fixlip.plots.drawn import as_json, numbers


def save(figure: Figure, name: str, *, compare: bool = True) -> None:
    """Write a figure as ``name``.png and ``name``.pdf where `fixlip.paths.output` says.

    Beside them goes ``name``.json with the numbers that the figure shows
    (`fixlip.plots.drawn`), which `make figures` compares with those of the last commit. Every
    file appears whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    name : str
        Without an ending.
    compare : bool
        False for figures that measure the machine, such as times: they get no ``name``.json.
    """
    titles = describe(figure)
    for ending, key in (("png", "Description"), ("pdf", "Subject")):
        with atomic(output(f"{name}.{ending}")) as file:
            figure.savefig(file, format=ending, dpi=144, metadata={key: titles})
    if compare:
        with atomic(output(f"{name}.json")) as file:
            file.write(as_json(numbers(figure)).encode())


def describe(figure: Figure) -> str:
    """Return a text in place of the figure: its panels' titles and what their axes show.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> _ = figure.subplots().set(title="error", xlabel="masks", ylabel="share")
    >>> describe(figure)
    'error (horizontal: masks; vertical: share)'
    """
    named = (figure.get_suptitle(), figure.get_supxlabel(), figure.get_supylabel())
    panels = [_panel(ax) for ax in figure.axes if ax.get_label() != "<colorbar>"]
    texts = dict.fromkeys(text for text in (*named, *panels) if text)
    return " | ".join(" ".join(text.split()) for text in texts)


def _panel(ax: Axes) -> str:
    labels = {"horizontal": ax.get_xlabel(), "vertical": ax.get_ylabel()}
    axes = "; ".join(f"{name}: {label}" for name, label in labels.items() if label)
    return f"{ax.get_title()} ({axes})".strip() if axes else ax.get_title()

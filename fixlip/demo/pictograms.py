"""Pictures of the concepts by several hands, from the sheets of `fixlip/demo/pictograms`."""

import functools
from pathlib import Path

from PIL import Image

from fixlip.demo.concepts import CONCEPTS, Concept
from fixlip.files import user_path

FOLDER = Path(__file__).parent / "pictograms"
STYLES = ("noto", "twemoji", "fluent-3d", "fluent-flat", "noto-v1", "firefox")
HELD_OUT_STYLE = "emojitwo"  # the demo models were not trained on it
CELL, COLUMNS = 64, 16  # pixels of a picture; pictures in a row of a sheet


def pictures(concept: Concept, style: str | Path) -> list[Image.Image]:
    """The pictures that a set has of a concept; it may have none.

    Parameters
    ----------
    concept : Concept
    style : str or Path
        One of `STYLES`, `HELD_OUT_STYLE`, or a folder that holds such a sheet (`data/openmoji`).

    Returns
    -------
    list of PIL.Image.Image
        Of mode RGBA, 64 x 64 pixels; the longer side of the drawing fills them.

    Raises
    ------
    ValueError
        If there is no such style.
    """
    cells = _sheet(style)
    rows = range(concept.first, concept.first + len(concept.drawings))
    return [cells[k] for k in rows if cells[k] is not None]


@functools.cache
def _sheet(style: str | Path) -> list[Image.Image | None]:
    """Every drawing's picture, in the order of the concepts; None where the set has none."""
    folder = FOLDER / style if style in (*STYLES, HELD_OUT_STYLE) else user_path(style)
    try:
        sheet = Image.open(folder / "sheet.webp")
    except FileNotFoundError:
        raise ValueError(
            f"no style is called {str(style)!r}: choose from {', '.join(STYLES)}, "
            f"{HELD_OUT_STYLE}, or give a folder with a sheet.webp, such as data/openmoji"
        ) from None
    cells: list[Image.Image | None] = []
    for concept in CONCEPTS.values():
        for k in range(concept.first, concept.first + len(concept.drawings)):
            left, top = k % COLUMNS * CELL, k // COLUMNS * CELL
            cell = sheet.crop((left, top, left + CELL, top + CELL))
            cells.append(cell if cell.getchannel("A").getbbox() else None)
    return cells

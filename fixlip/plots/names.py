"""Names of players as text in a picture: drawn as they are, in fonts that have their characters."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from fixlip.checks import warn

LONGEST = 30  # letters of a name


def shown(name: str) -> str:
    """A name on one line, not too long, and never nothing.

    Examples
    --------
    >>> shown("$5 & more"), shown("two\\nlines"), shown(""), shown("half of \\ud83d")
    ('$5 & more', 'two lines', "''", 'half of ?')
    """
    whole = name.encode("utf-8", "replace").decode("utf-8")  # no half of a character
    line = " ".join(whole.split()) or "''"
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def name_style(*names: str) -> dict[str, Any]:
    """Options of matplotlib's text for names: no formulas, and fonts for characters of any script.

    Warns where no installed font has some of the characters, which are drawn as boxes.
    """
    families = list(mpl.rcParams["font.family"])
    letters = {
        letter for name in names for letter in name if letter.isprintable() and letter != " "
    }
    missing = letters - _letters(font_manager.findfont(font_manager.FontProperties()))
    for family, path in _others() if missing else ():
        if found := missing & _letters(path):
            families.append(family)
            missing -= found
    if missing:
        some = " ".join(sorted(missing)[:8])
        warn(
            f"no font of matplotlib's has {some} of a name: boxes are drawn in their place; "
            "install one, such as a Noto font of that script"
        )
    # a dollar sign is no formula here, whatever the user's settings
    return {"parse_math": False, "usetex": False, "fontfamily": families}


@cache
def _others() -> tuple[tuple[str, str], ...]:
    """Family and file of each installed font in its upright form, Noto's first."""
    fonts = {f.name: f.fname for f in font_manager.fontManager.ttflist if f.style == "normal"}
    # matplotlib's own are for formulas, or of boxes, but for its default
    own = [f for f in fonts if fonts[f].startswith(mpl.get_data_path()) and f != "DejaVu Sans"]
    fonts = {f: path for f, path in fonts.items() if f not in own}
    return tuple(sorted(fonts.items(), key=lambda font: (not font[0].startswith("Noto"), font)))


@cache
def _letters(path: str) -> frozenset[str]:
    """The characters that a font has, none if it cannot draw them (as fonts of coloured emoji)."""
    try:
        font = FT2Font(path)
        font.set_size(12, 72)
        return frozenset(map(chr, font.get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()

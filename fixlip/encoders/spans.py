"""Boxes on an image and stretches of a caption, as weights of the players inside them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from fixlip.checks import one_of, warn
from fixlip.encoders.players import patch_tiles
from fixlip.encoders.sides import ImageSide, TextSide
from fixlip.images import box_pixels

NAMELESS = re.compile(r"<[^<>]+>")  # tokens of unknown words, of broken characters, of spaces


def patches_in(side: ImageSide, box: Sequence[float], *, rule: str = "centre") -> np.ndarray:
    """How far each image player lies in a box on the original image.

    Returns weights (n,), float64, in [0, 1]; of a group of patches, their mean. ``weights @
    explanation.cross`` are the words' scores. Raises ValueError for an unknown rule, the side of a
    caption, or a box that is malformed or outside the image. Warns where no patch counts.

    Parameters
    ----------
    side : ImageSide
    box : sequence of four numbers
        x and y of the top left corner, width and height, in pixels of the original, upright image.
        It goes through the model's own preprocessing; what that crops away does not count.
    rule : {"centre", "overlap"}
        With "centre", a patch counts 1 if its centre lies in the box, else 0. With "overlap", it
        counts as the share of its area that lies in the box.

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
    one_of("rule", rule, ("centre", "overlap"))
    if not hasattr(side, "grid"):
        raise ValueError("a box needs the side of an image: make it with encoder.image(...)")
    size = side.info["size"]
    coverage = side.view.coverage(_pixels_in(box, size), size)  # (h, w), in [0, 1]
    tiles = patch_tiles(coverage, side.grid, side.patch)  # (rows, high, columns, wide)
    if rule == "centre":  # the middle pixel, or the two or four around the middle
        high, wide = side.patch
        tiles = tiles[:, (high - 1) // 2 : high // 2 + 1, :, (wide - 1) // 2 : wide // 2 + 1]
    share = tiles.astype(np.float64).mean((1, 3)).ravel()  # (rows * columns,)
    if rule == "centre":
        share = (share >= 0.5).astype(np.float64)
    if not share.any():
        warn(f"no patch counts as inside the box {list(box)}")
    owner = side.players.owner
    return np.bincount(owner, share) / np.bincount(owner)  # (patches,) -> (n,)


def players_at(side: TextSide, start: int, stop: int) -> np.ndarray:
    """How far each text player lies in a stretch of the caption.

    Returns weights (n,), float64: 1 for a token with a letter or digit in the stretch; of a word,
    the mean of its tokens that have any. ``explanation.cross @ weights`` is the mention's map.
    Raises ValueError if the stretch is not in the caption, or the tokens do not spell
    the caption. Warns where no player counts, for instance because the model does not see the end
    of the caption.

    Parameters
    ----------
    side : TextSide
    start, stop : int
        The characters ``caption[start:stop]``, as in a `fixlip.data.examples.Mention`.

    Examples
    --------
    >>> import fixlip
    >>> side = fixlip.load("demo-clip", device="cpu").text("a red star and a blue ring")
    >>> players_at(side, 2, 10).tolist()
    [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    caption, owner = side.info["caption"], side.players.owner
    if not 0 <= start < stop <= len(caption):
        raise ValueError(f"characters {start} to {stop} are not in the caption {caption!r}")
    # tokenizers change case, spaces and signs, but neither letters nor digits
    letters = [(_letters(char), start <= i < stop) for i, char in enumerate(caption)]
    inside = [named for text, named in letters for _ in text]  # a character may become several
    text = "".join(text for text, _ in letters)
    # a token without a name stands for whatever lies between its neighbours
    pieces = [None if NAMELESS.fullmatch(t) else _letters(t) for t in side.info["tokens"]]
    wanted = "".join("(.*?)" if piece is None else f"({re.escape(piece)})" for piece in pieces)
    match = (re.match if side.info["cut"] else re.fullmatch)(wanted, text)
    if match is None:
        raise ValueError(
            f"the tokens {side.info['tokens']} do not spell the caption {caption!r}, so that no "
            "token can be matched with its characters; give the players by hand"
        )
    spans = [match.span(k) for k in range(1, len(pieces) + 1)]
    spoken = np.array([float(b > a) for a, b in spans])  # (tokens,): not a sign, not a space
    share = np.array([float(any(inside[a:b])) for a, b in spans])  # (tokens,)
    if not share.any():
        warn(f"no player stands for {caption[start:stop]!r}")
    return np.bincount(owner, share) / np.bincount(owner, spoken).clip(min=1)  # (n,)


def _pixels_in(box: Sequence[float], size: Sequence[int]) -> np.ndarray:
    """The box as pixels (height, width) of an image of this width and height, not all False."""
    pixels = box_pixels(box, size)
    if not pixels.any():
        raise ValueError(
            f"the box {list(box)} holds no pixel of the image, which is {size[0]} wide and "
            f"{size[1]} high: give [x, y, width, height] in pixels of the original image"
        )
    return pixels


def _letters(text: str) -> str:
    """The letters and digits of a text, in one case and form."""
    flat = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in flat if char.isalnum())

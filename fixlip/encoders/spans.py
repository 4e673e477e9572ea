"""Boxes on an image and stretches of a caption, as weights of the players inside them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from operator import eq

import numpy as np

from fixlip.checks import integer, one_of, warn
from fixlip.encoders.players import patch_tiles
from fixlip.encoders.sides import ImageSide, TextSide
from fixlip.images import box_pixels

NAMELESS = re.compile(r"<[^<>]+>|\[UNK\]|.*\ufffd.*")  # tokens of unknown words and characters
UNKNOWN = "\0"  # in their place; no caption has it
SIGNS = {"Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So"}  # not spaces, not marks


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

    Returns weights (n,), float64: 1 for a token with a letter or digit in the stretch, or with a
    sign where the stretch has only signs ("$"); of a word, the mean of its tokens that have any.
    ``explanation.cross @ weights`` is the mention's map. What the tokenizer makes of the caption
    first counts: "&amp;" is one sign, "&". Raises ValueError if the stretch is not in the caption,
    or the tokens do not spell the caption. Warns where no player counts, for instance because the
    model does not see the end of the caption, or sees no signs.

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
    start, stop = integer("start", start, at_least=0), integer("stop", stop)
    if not start < stop <= len(caption):
        raise ValueError(f"characters {start} to {stop} are not in the caption {caption!r}")
    stretch = caption[start:stop]
    clean = getattr(side.encoder.tokenizer, "clean_fn", str)
    for signs in (False, True):  # which count where the stretch has nothing else
        text, first, last = _place(caption, start, stop, clean, signs)
        if first < last:
            break
    characters = _characters(side.pieces)
    spelled = [UNKNOWN if char == UNKNOWN else _flat(char, signs) for char, _ in characters]
    places = _places(spelled, text, cut=bool(side.info["cut"]))
    if places is None:
        raise ValueError(
            f"{stretch!r} cannot be placed, because the tokens {side.info['tokens']} do not spell "
            f"the caption {caption!r}; give the weights of the players by hand"
        )
    spoken, share = np.zeros((2, len(owner)))  # (tokens,) each
    for (_, own), (begin, end) in zip(characters, places, strict=True):
        if end > begin:  # neither left out nor a space
            spoken[own] = 1
            share[own] = np.maximum(share[own], begin < last and end > first)
    if not share.any():
        warn(f"no player stands for {stretch!r}")
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


def _flat(text: str, signs: bool) -> str:
    """The letters and digits of a text, or its signs too, in one case and form, and single spaces.

    Without accents, because those of letters may be characters of their own or not.
    """
    return " ".join("".join(_plain(char, signs) for char in text).split())


@lru_cache(maxsize=10_000)
def _plain(char: str, signs: bool) -> str:
    if char.isspace():
        return " "
    parts = unicodedata.normalize("NFKD", char).casefold()
    kept = (p for p in parts if p.isalnum() or (signs and unicodedata.category(p) in SIGNS))
    return "".join(kept)


def _place(
    caption: str, start: int, stop: int, clean: Callable[[str], str], signs: bool
) -> tuple[str, int, int]:
    """The caption as the tokenizer cleans it, flat, and where a stretch of it stands there.

    Several characters may become one or none when a caption is cleaned ("&amp;"), so that its first
    part may have letters that the whole has not. They are not counted: what the parts that end
    here or later have in common with the whole tells.
    """
    parts = [_flat(clean(caption[:end]), signs) for end in range(start, len(caption) + 1)]
    text = parts[-1]
    common = [sum(takewhile(bool, map(eq, part, text))) for part in parts]
    return text, min(common), min(common[stop - start :])


def _characters(pieces: Sequence[str]) -> list[tuple[str, slice]]:
    """What the tokens spell, character by character, each with the tokens that its bytes are in.

    A mark, such as an accent or the sign of a vowel, goes with the character before it.
    """
    data = ["".join(piece.split()) for piece in pieces]
    data = [UNKNOWN if NAMELESS.fullmatch(piece) else piece for piece in data]
    data = [piece.encode("utf-8", "surrogateescape") for piece in data]
    owner = [token for token, part in enumerate(data) for _ in part]
    found, end = [], 0
    for char in b"".join(data).decode("utf-8", "surrogateescape"):
        begin, end = end, end + len(char.encode("utf-8", "surrogateescape"))
        own = slice(owner[begin], owner[end - 1] + 1)
        if found and found[-1][0] != UNKNOWN and unicodedata.category(char).startswith("M"):
            before, tokens = found.pop()
            char, own = before + char, slice(tokens.start, own.stop)
        found.append((char, own))
    return found


def _places(characters: Sequence[str], text: str, *, cut: bool) -> list[tuple[int, int]] | None:
    """Where each character stands in a text that has more spaces, or None if they do not spell it.

    An unknown one stands for any part of a word. With `cut`, the text may go on after them.
    """

    def ends(char: str, start: int) -> range:
        start += text.startswith(" ", start)
        if char == UNKNOWN:
            word = text.find(" ", start)
            return range(start, (word if word >= 0 else len(text)) + 1)
        return range(start + len(char), start + len(char) + text.startswith(char, start))

    starts = [{0}]  # where each character may start, and at the end where the last one may end
    for char in characters:
        starts.append({end for start in starts[-1] for end in ends(char, start)})
    end = max(starts[-1], default=-1) if cut else len(text)
    if end not in starts[-1]:
        return None
    places = []
    for char, possible in zip(reversed(characters), reversed(starts[:-1]), strict=True):
        start = min(start for start in possible if end in ends(char, start))
        places.append((start + text.startswith(" ", start), end))
        end = start
    return places[::-1]

"""The players of a side: groups of image patches, or groups of caption tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

REST = "rest"  # the player that owns every patch outside the given regions


@dataclass(frozen=True, eq=False)
class Players:
    """The players of one side, and the units (patches or tokens) that each of them owns."""

    kind: str  # what a player is: "patches", "2x2", "regions", "tokens", "words", ...
    names: tuple[str, ...]  # in playing order; two may be alike ("a dog and a dog")
    owner: np.ndarray  # (units,): the player of each unit, patches row by row, tokens in order

    def __post_init__(self) -> None:
        owner = np.asarray(self.owner, dtype=np.int64)
        if owner.ndim != 1 or set(owner.tolist()) != set(range(len(self.names))):
            raise ValueError(
                f"owner must be one-dimensional and name each of the {len(self.names)} players at "
                f"least once, as 0 to {len(self.names) - 1}; given {owner.tolist()}"
            )
        owner.flags.writeable = False
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "owner", owner)

    @property
    def n(self) -> int:
        """The number of players."""
        return len(self.names)

    def units(self, masks: torch.Tensor) -> torch.Tensor:
        """Turn masks over players (m, n), bool, into masks over the units they own (m, units)."""
        # a copy, because torch cannot wrap a read-only array
        owner = torch.tensor(self.owner.tolist(), device=masks.device)
        return masks[:, owner]  # (m, n) -> (m, units)


def patches(rows: int, cols: int) -> Players:
    """Let every patch of a grid play by itself, named "(row,column)".

    Examples
    --------
    >>> patches(1, 2).names
    ('(0,0)', '(0,1)')
    """
    names = tuple(f"({row},{col})" for row in range(rows) for col in range(cols))
    return Players("patches", names, np.arange(rows * cols))


def blocks(rows: int, cols: int, size: int) -> Players:
    """Let square blocks of size x size patches play, named "(block row,block column)".

    Where the size does not divide the grid, the last blocks are smaller.

    Examples
    --------
    >>> blocks(2, 3, 2).owner.tolist()
    [0, 0, 1, 0, 0, 1]
    """
    if not 1 <= size <= max(rows, cols):
        raise ValueError(
            f"blocks of {size}x{size} patches do not fit the grid of {rows}x{cols} patches; "
            f"choose a size from 1 to {max(rows, cols)}"
        )
    down, across = -(-rows // size), -(-cols // size)
    row, col = np.divmod(np.arange(rows * cols), cols)
    names = patches(down, across).names
    return Players(f"{size}x{size}", names, row // size * across + col // size)


def regions(coverages: Mapping[str, np.ndarray], rows: int, cols: int) -> Players:
    """Let regions of the picture play: "the dog", "the hydrant", and the rest.

    A patch belongs to the region that covers the largest part of it, if that is at least half of
    the patch; the patches left over are one more player, "rest".

    Raises ValueError if a coverage has the wrong shape, or a region covers no patch by at least
    half.

    Parameters
    ----------
    coverages : mapping of str to array (H, W)
        The part of each pixel that a region covers, in [0, 1] or as booleans, on the picture that
        the model sees.
    rows, cols : int
        The grid of patches on that picture.
    """
    if not coverages:
        raise ValueError("no regions were given; give at least one, or players='patches'")
    if REST in coverages:
        raise ValueError(f"the region name {REST!r} is kept for the patches outside all regions")
    if len(set(map(str, coverages))) < len(coverages):
        raise ValueError(f"two regions have one name: {', '.join(map(str, coverages))}")
    share = np.stack([_share(name, pixels, rows, cols) for name, pixels in coverages.items()])
    best = share.argmax(axis=0)  # (regions, patches) -> (patches,)
    owner = np.where(share.max(axis=0) >= 0.5, best, len(coverages))
    names = tuple(map(str, coverages))
    for i, name in enumerate(names):
        if (owner == i).any():
            continue
        others = [other for k, other in enumerate(names) if (owner[share[i] >= 0.5] == k).any()]
        if others:
            raise ValueError(
                f"the region {name!r} owns no patch: {' and '.join(map(repr, others))} cover the "
                "same patches as much or more, and of regions that are alike the first owns a "
                "patch; leave one out, or cut what they share out of the larger"
            )
        raise ValueError(
            f"the region {name!r} owns no patch: it covers at most {share[i].max():.0%} of one, "
            "and a patch goes to the region that covers at least half of it and the most; "
            "enlarge or merge regions, or use a model with smaller patches"
        )
    left_over = (owner == len(coverages)).any()
    return Players("regions", (*names, REST) if left_over else names, owner)


def patch_tiles(pixels: np.ndarray, grid: tuple[int, int], patch: tuple[int, int]) -> np.ndarray:
    """Cut an array over pixels (H, W) into patches, (rows, height, columns, width).

    Pixels beyond the last whole patch are dropped, because the model never sees them.
    """
    (rows, columns), (high, wide) = grid, patch
    return pixels[: rows * high, : columns * wide].reshape(rows, high, columns, wide)


def _share(name: str, coverage: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Return the part of each patch, in [0, 1], that a region covers; shape (rows * cols,)."""
    coverage = np.asarray(coverage, dtype=np.float64)
    if coverage.ndim != 2 or coverage.shape[0] < rows or coverage.shape[1] < cols:
        raise ValueError(
            f"the coverage of region {name!r} has shape {coverage.shape}; expected (height, width) "
            f"of the picture, at least {rows} by {cols}"
        )
    patch = coverage.shape[0] // rows, coverage.shape[1] // cols
    # (rows, height, cols, width) -> (rows * cols,)
    return patch_tiles(coverage, (rows, cols), patch).mean(axis=(1, 3)).ravel()


def tokens(pieces: Sequence[str]) -> Players:
    """Let every token of a caption play by itself.

    In a token's text, a piece, a leading space marks the start of a word, so that joining the
    pieces gives the caption back; undecodable bytes are kept as surrogate escapes.

    Examples
    --------
    >>> tokens([" a", " star", "fish"]).names
    ('a', 'star', 'fish')
    """
    return Players("tokens", tuple(map(readable, pieces)), np.arange(len(pieces)))


def words(pieces: Sequence[str]) -> Players:
    """Let whole words play: a word owns all its tokens; punctuation marks stand by themselves.

    Examples
    --------
    >>> words([" a", " star", "fish", "!"]).names
    ('a', 'starfish', '!')
    """
    texts: list[str] = []
    owner = []
    for piece in pieces:
        if not texts or _opens_word(texts[-1], piece):
            texts.append(piece)
        else:
            texts[-1] += piece
        owner.append(len(texts) - 1)
    return Players("words", tuple(map(readable, texts)), np.array(owner))


def _opens_word(before: str, piece: str) -> bool:
    """Whether a piece starts a new word after the word read so far."""
    if not before.strip():  # a lone space belongs to the word that follows it
        return False
    return piece.startswith(" ") or _is_punctuation(piece) or _is_punctuation(before)


def _is_punctuation(piece: str) -> bool:
    text = piece.strip()
    return bool(text) and all(unicodedata.category(char).startswith("P") for char in text)


def readable(piece: str) -> str:
    """Return the text of a piece, or its bytes in hexadecimal where they are no whole character.

    Examples
    --------
    >>> readable(" star"), readable("\\udcf0\\udc9f")
    ('star', '<F0 9F>')
    """
    data = piece.encode("utf-8", "surrogateescape")
    try:
        return data.decode("utf-8").strip() or "<space>"
    except UnicodeDecodeError:
        return f"<{data.strip().hex(' ').upper()}>"

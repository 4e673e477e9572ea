"""Scenes drawn by seed: things at free places, sizes and angles, before varied backgrounds."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fixlip.demo.concepts import CONCEPTS
from fixlip.demo.phrases import COLOURS, INVERSE, SIZES, Caption, Phrase
from fixlip.demo.pictograms import STYLES, pictures
from fixlip.demo.world import Scene, Thing, is_true

MOST = 4  # things in a scene
VISIBLE = 0.7  # of a thing's pixels, at least
REPEATED = 0.15  # of the scenes of several things: one concept is there more than once
Region = tuple[float, float, float, float]  # left, top, right, bottom; the canvas is 0 to 1


def sample_scene(
    seed: int | Sequence[int],
    *,
    things: int | Sequence[str] | None = None,
    styles: Sequence[str | Path] = STYLES,
    canvas: int = 112,
) -> Scene:
    """Draw a scene; a seed gives one scene.

    Things may hide each other a little: at least .7 of each is visible.

    Parameters
    ----------
    seed : int or sequence of int
        As `numpy.random.default_rng` takes it.
    things : int or sequence of str, optional
        How many, 1 to 4, or the names of their concepts, of which each may be there several times;
        by default a number at random.
    styles : sequence of str or Path
        The sets from which the pictures are taken, one for each thing; folders with a sheet, such
        as `data/openmoji`, are styles too.
    canvas : int
        Pixels per side of the image, 64 or more.

    Returns
    -------
    Scene

    Raises
    ------
    ValueError
        For names of no concept, another number of things, or no picture in these styles.

    Examples
    --------
    >>> scene = sample_scene(0, things=["dog", "pizza"])
    >>> scene.image.size, [thing.name for thing in scene.things]
    ((112, 112), ['dog', 'pizza'])
    >>> scene.is_true("a dog and a pizza"), scene.is_true("a cat")
    (True, False)
    """
    named = isinstance(things, Sequence) and not isinstance(things, str)
    count = len(things) if named else things
    if count is not None and (type(count) is not int or not 1 <= count <= MOST):
        raise ValueError(f"things must be 1 to {MOST}, or so many names, got {things!r}")
    if named and (unknown := [name for name in things if name not in CONCEPTS]):
        raise ValueError(f"no concept is called {unknown[0]!r}: fixlip.demo.CONCEPTS lists them")
    if canvas < 64:
        raise ValueError(f"canvas must be 64 pixels or more, got {canvas!r}")
    rng = np.random.default_rng(seed)
    names = list(things) if named else _names(rng, count, styles)
    while True:  # until enough of each is visible
        colour, pixels = _background(rng, canvas)
        regions = _regions(rng, len(names))
        placed = [_place(rng, n, r, styles, canvas) for n, r in zip(names, regions, strict=True)]
        covered = [p.cover(canvas) for p in placed]
        masks = [m & ~_union(covered[k + 1 :], m) for k, m in enumerate(covered)]
        if all(m.sum() >= VISIBLE * c.sum() for m, c in zip(masks, covered, strict=True)):
            break
    for p in placed:
        p.paint(pixels)
    pixels += rng.normal(0, 4, size=pixels.shape).astype(np.float32)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    found = tuple(
        Thing(name, p.style, _box(mask), mask, p.size / canvas)
        for name, p, mask in zip(names, placed, masks, strict=True)
    )
    return Scene(image, found, colour, str(sample_caption(rng, found, colour)))


def sample_caption(
    rng: np.random.Generator,
    things: Sequence[Thing],
    background: str | None,
    *,
    relations: float = 0.2,
) -> Caption:
    """A true caption at random: of a part of the things, in any form and order.

    `relations` is the share of captions that say where one of two things is.
    """
    names = list(dict.fromkeys(things[k].name for k in rng.permutation(len(things))))
    if len(names) > 1 and rng.random() < relations:
        caption = _relation(rng, things, names)
        if caption is not None:
            return caption
    chosen = names[: rng.integers(1, len(names) + 1)] if rng.random() < 0.4 else names
    form = ("bare", "plain", "photo")[rng.choice(3, p=(0.3, 0.45, 0.25))]
    if form == "bare":
        return Caption(tuple(map(Phrase, chosen)), form=form)
    phrases = []
    for name in chosen:
        number = sum(thing.name == name for thing in things)
        counted = number > 1 and CONCEPTS[name].plural is not None and rng.random() < 0.8
        phrases.append(Phrase(name, number if counted else 1))
    if len(chosen) == 1 and phrases[0].count == 1:
        if background is not None and rng.random() < 0.4:
            return Caption((phrases[0],), background=background, form=form)
        sizes = [s for s in SIZES if is_true(Caption((Phrase(chosen[0], size=s),)), things)]
        if sizes and rng.random() < 0.4:
            phrases = [Phrase(chosen[0], size=sizes[rng.integers(len(sizes))])]
    return Caption(tuple(phrases), form=form)


def _relation(
    rng: np.random.Generator, things: Sequence[Thing], names: Sequence[str]
) -> Caption | None:
    """A true relation of two names at random, None where there is none."""
    pair = (Phrase(names[0]), Phrase(names[1]))
    found = [c for relation in INVERSE if is_true(c := Caption(pair, relation), things)]
    return found[rng.integers(len(found))] if found else None


def _names(rng: np.random.Generator, count: int | None, styles: Sequence[str | Path]) -> list[str]:
    """Concepts at random, of those that the styles show; different but for some repetitions."""
    count = count or int(rng.integers(1, MOST + 1))
    known = _known(tuple(styles))
    names = [known[k] for k in rng.choice(len(known), count, replace=False)]
    if count > 1 and rng.random() < REPEATED:
        repeated = int(rng.integers(2, count + 1))
        names[:repeated] = [names[0]] * repeated
    return names


@functools.cache
def _known(styles: tuple[str | Path, ...]) -> list[str]:
    """The concepts that some of the styles show."""
    return [name for name, c in CONCEPTS.items() if any(pictures(c, style) for style in styles)]


def _regions(rng: np.random.Generator, count: int) -> list[Region]:
    """Parts of the canvas, one for each thing: it is cut once, then one half or both again."""
    parts: list[Region] = [(0.0, 0.0, 1.0, 1.0)]
    upright = rng.random() < 0.5
    while len(parts) < count:
        cut = rng.uniform(0.42, 0.58)
        left, top, right, bottom = parts.pop(0)  # a half before a quarter
        if right - left == 1 and (upright or bottom - top < 1):
            parts += [(left, top, cut, bottom), (cut, top, right, bottom)]
        else:
            parts += [(left, top, right, cut), (left, cut, right, bottom)]
    return [parts[k] for k in rng.permutation(count)]


@dataclass(frozen=True)
class _Placed:
    """A picture at its place; `left` and `top` in pixels, `size` of its longer side."""

    style: str | Path
    picture: np.ndarray  # (h, w, 4), float32, 0 to 255; colours are multiplied with opacity
    left: int
    top: int

    @property
    def size(self) -> int:
        return max(self.picture.shape[:2])

    @property
    def where(self) -> tuple[slice, slice]:
        height, width = self.picture.shape[:2]
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def cover(self, canvas: int) -> np.ndarray:
        """(canvas, canvas) bool: the pixels that it covers by at least half."""
        mask = np.zeros((canvas, canvas), dtype=bool)
        mask[self.where] = self.picture[..., 3] >= 127.5
        return mask

    def paint(self, pixels: np.ndarray) -> None:
        """Draw it over (canvas, canvas, 3) pixels."""
        pixels[self.where] *= 1 - self.picture[..., 3:] / 255
        pixels[self.where] += self.picture[..., :3]


def _place(
    rng: np.random.Generator, name: str, region: Region, styles: Sequence[str | Path], canvas: int
) -> _Placed:
    """A picture of a concept in a part of the canvas, of which it may leave a little."""
    shown = [(style, p) for style in styles if (p := pictures(CONCEPTS[name], style))]
    if not shown:
        raise ValueError(f"none of the styles {', '.join(map(str, styles))} shows {name!r}")
    style, several = shown[rng.integers(len(shown))]
    picture = several[rng.integers(len(several))].convert("RGBa")
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, expand=True)
    picture = picture.crop(picture.getchannel("a").point(lambda a: 255 * (a > 8)).getbbox())
    left, top, right, bottom = region
    alone = region == (0, 0, 1, 1)
    share = rng.uniform(0.36, 0.86) if alone else rng.uniform(0.32, 0.52)
    share = min(share, 1.12 * (right - left), 1.12 * (bottom - top))
    scale = share * canvas / max(picture.size)
    size = [max(1, round(scale * side)) for side in picture.size]
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    corner = [
        int(np.clip(rng.uniform(low, max(low, high - share)) * canvas, 0, canvas - side))
        for low, high, side in ((left, right, size[0]), (top, bottom, size[1]))
    ]
    pixels = np.asarray(picture, dtype=np.float32).copy()
    pixels[..., :3] = np.minimum(pixels[..., :3] * rng.uniform(0.8, 1.15), pixels[..., 3:])
    return _Placed(style, pixels, *corner)


def _background(rng: np.random.Generator, canvas: int) -> tuple[str | None, np.ndarray]:
    """A colour's name, or None where it has several, and (canvas, canvas, 3) float32 pixels."""
    kind = rng.choice(3, p=(0.4, 0.3, 0.3))
    if kind == 0:
        names = list(COLOURS)
        name = names[rng.integers(len(names))]
        corners = np.array(COLOURS[name]) + rng.uniform(-14, 14, size=(2, 2, 1))
    else:
        name, cells = None, 2 if kind == 1 else 5
        corners = rng.uniform(40, 240, size=3) + rng.uniform(-45, 45, size=(cells, cells, 3))
    # an image of floats for each channel: Pillow enlarges it smoothly
    enlarged = [
        Image.fromarray(channel.astype(np.float32)).resize(
            (canvas, canvas), Image.Resampling.BICUBIC
        )
        for channel in np.moveaxis(corners, 2, 0)
    ]
    return name, np.stack([np.asarray(channel) for channel in enlarged], axis=2).clip(0, 255)


def _union(masks: Sequence[np.ndarray], like: np.ndarray) -> np.ndarray:
    return np.logical_or.reduce(masks) if masks else np.zeros_like(like)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of a mask; right and bottom excluded."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

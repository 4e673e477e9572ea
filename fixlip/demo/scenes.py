"""Synthetic scenes of coloured shapes whose captions are exactly true or false; as COCO files.

A scene is a 48 x 48 image on a 6 x 6 grid of 8-pixel patches. Its one to four objects fill whole
patches (2x2, 3x3 or 4x4) and never overlap, so an attribution can be compared with the truth patch
by patch. `is_true` decides every caption of the grammar in `fixlip.demo.grammar`.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fixlip.demo.drawing import COLOURS, IMAGE_SIZE, SHAPES, alpha_mask, background
from fixlip.demo.grammar import INVERSE, Caption, parse_caption
from fixlip.files import user_path

PATCH_SIZE = 8  # pixels
GRID = IMAGE_SIZE // PATCH_SIZE  # patches per side

COMBINATIONS: tuple[tuple[str, str], ...] = tuple(itertools.product(COLOURS, SHAPES))
# One combination per colour that no training image and no training caption ever shows.
HELD_OUT: tuple[tuple[str, str], ...] = (
    *(("red", "moon"), ("green", "star"), ("blue", "arrow"), ("yellow", "heart")),
    *(("purple", "square"), ("orange", "triangle"), ("cyan", "cross"), ("white", "ring")),
)
SEEN: tuple[tuple[str, str], ...] = tuple(c for c in COMBINATIONS if c not in HELD_OUT)


@dataclass(frozen=True)
class Thing:
    """One object of a scene: a coloured shape that fills `size` x `size` patches of the grid."""

    colour: str
    shape: str
    row: int
    column: int
    size: int

    @property
    def name(self) -> str:
        """The object's full name, for instance ``red star``."""
        return f"{self.colour} {self.shape}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Pixel box of its patches: left, top, right, bottom (right and bottom excluded)."""
        left, top = self.column * PATCH_SIZE, self.row * PATCH_SIZE
        side = self.size * PATCH_SIZE
        return left, top, left + side, top + side

    @property
    def patches(self) -> np.ndarray:
        """(6, 6) bool: the patches it fills."""
        patches = np.zeros((GRID, GRID), dtype=bool)
        patches[self.row : self.row + self.size, self.column : self.column + self.size] = True
        return patches

    @property
    def mask(self) -> np.ndarray:
        """(48, 48) bool: the pixels that the shape covers by at least half."""
        left, top, right, bottom = self.box
        mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
        mask[top:bottom, left:right] = alpha_mask(self.shape, right - left) >= 0.5
        return mask

    def is_a(self, colour: str | None, shape: str) -> bool:
        """Whether the phrase `colour shape` (colour None: any) names this object."""
        return shape == self.shape and colour in (None, self.colour)


@dataclass(frozen=True)
class Scene:
    """Objects on a noisy grey background; `seed` fixes the background and the tints."""

    things: tuple[Thing, ...]
    seed: int

    def image(self) -> np.ndarray:
        """Render the scene: (48, 48, 3), uint8, RGB."""
        rng = np.random.default_rng(self.seed)
        image = background(rng)  # (48, 48, 3)
        for thing in self.things:
            left, top, right, bottom = thing.box
            alpha = alpha_mask(thing.shape, right - left)[..., None]  # (side, side, 1)
            tint = np.array(COLOURS[thing.colour]) + rng.uniform(-12, 12, size=3)
            image[top:bottom, left:right] += alpha * (tint - image[top:bottom, left:right])
        image += rng.normal(0, 5, size=image.shape).astype(np.float32)
        return image.clip(0, 255).astype(np.uint8)


def holds(relation: str, first: Thing, second: Thing) -> bool:
    """Whether `first` is `relation` of `second`: their boxes are separated on that axis."""
    if relation in ("right of", "below"):
        return holds(INVERSE[relation], second, first)
    if relation == "left of":
        return first.column + first.size <= second.column
    if relation == "above":
        return first.row + first.size <= second.row
    raise ValueError(f"unknown relation {relation!r}: expected one of {list(INVERSE)}")


def is_true(caption: str | Caption, scene: Scene) -> bool:
    """Decide whether a caption is true of a scene.

    A conjunction is true when every phrase names some object of the scene; a relation is true when
    it holds between some two objects that the two phrases name. Raises ValueError if the text is
    not a caption of the grammar.

    Examples
    --------
    >>> scene = Scene((Thing("red", "star", 0, 0, 3), Thing("blue", "ring", 0, 3, 3)), seed=0)
    >>> is_true("a red star left of a blue ring", scene), is_true("a blue star", scene)
    (True, False)
    """
    caption = parse_caption(caption) if isinstance(caption, str) else caption
    if caption.relation is None:
        return all(any(t.is_a(*phrase) for t in scene.things) for phrase in caption.phrases)
    first, second = caption.phrases
    return any(
        a.is_a(*first) and b.is_a(*second) and holds(caption.relation, a, b)
        for a, b in itertools.permutations(scene.things, 2)
    )


def read_scenes(folder: str | Path) -> list[Scene]:
    """The scenes of a data set by data/demo_models/generate.py, in the order of their images."""
    path = user_path(folder) / "annotations" / "instances_val.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: give a folder that data/demo_models/generate.py wrote"
        )
    entries = [image["scene"] for image in json.loads(path.read_text())["images"]]
    return [Scene(tuple(Thing(**t) for t in e["things"]), e["seed"]) for e in entries]

"""Scenes of everyday things, and which captions of the grammar are true of them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fixlip.demo.concepts import CONCEPTS
from fixlip.demo.phrases import INVERSE, SIZES, Caption, Phrase, parse_caption

SMALL, LARGE = 0.42, 0.6  # of the canvas: sizes from which "small" and "large" are true


@dataclass(frozen=True, eq=False)
class Thing:
    """A thing in a scene.

    Attributes
    ----------
    name : str
        Of its concept.
    style : str or Path
        The set that its picture is from.
    box : tuple of int
        Left, top, right, bottom of its visible pixels; right and bottom excluded.
    mask : (H, W) bool
        Its visible pixels: those that it covers by at least half, and nothing before it hides.
    size : float
        The longer side of its picture, as a share of the canvas.
    """

    name: str
    style: str | Path
    box: tuple[int, int, int, int]
    mask: np.ndarray
    size: float

    def is_a(self, phrase: Phrase) -> bool:
        """Whether a phrase's name and size are true of it."""
        fits = {None: True, "small": self.size <= SMALL, "large": self.size >= LARGE}
        return self.name == phrase.name and fits[phrase.size]


@dataclass(frozen=True, eq=False)
class Scene:
    """Things before a background; `caption` is one of its true captions.

    Attributes
    ----------
    image : PIL.Image.Image
        RGB, square.
    things : tuple of Thing
        From the back to the front.
    background : str or None
        The name of its colour, where it has one colour that has a name.
    caption : str
    """

    image: Image.Image
    things: tuple[Thing, ...]
    background: str | None
    caption: str

    def is_true(self, caption: str | Caption) -> bool:
        """Whether a caption is true of the scene: see `is_true`."""
        return is_true(caption, self.things, self.background)

    def true_captions(self) -> list[str]:
        """All captions that are true of the scene, without those that only change the order.

        Names stand from left to right; "a photo of" is left out.
        """
        return [str(c) for c in true_captions(self.things, self.background)]


def is_true(caption: str | Caption, things: Sequence[Thing], background: str | None = None) -> bool:
    """Decide whether a caption is true of things before a background.

    "a dog" and "dog" are true where at least one dog is; "two dogs" where exactly two are; "a small
    dog" where a dog's picture is at most .42 of the canvas, "a large dog" where it is at least .6;
    a colour where it is the whole background's. A relation is true where it holds between some two
    things that its names name. Raises ValueError for a text that is no caption of the grammar.
    """
    caption = parse_caption(caption) if isinstance(caption, str) else caption
    if caption.background not in (None, background):
        return False
    if caption.relation is not None:
        first, second = caption.phrases
        return any(
            a.is_a(first) and b.is_a(second) and holds(caption.relation, a, b)
            for a, b in itertools.permutations(things, 2)
        )
    for phrase in caption.phrases:
        number = sum(thing.is_a(phrase) for thing in things)
        if number == 0 or phrase.count not in (1, number):
            return False
    return True


def holds(relation: str, first: Thing, second: Thing) -> bool:
    """Whether `first` is `relation` of `second`: neither reaches the other's middle on that axis.

    Raises KeyError for a relation that is not in `INVERSE`.
    """
    if relation in ("right of", "below"):
        return holds(INVERSE[relation], second, first)
    axis = {"left of": 0, "above": 1}[relation]
    (low, high), (other_low, other_high) = (t.box[axis::2] for t in (first, second))
    return low + high <= 2 * other_low and 2 * high <= other_low + other_high


def true_captions(things: Sequence[Thing], background: str | None = None) -> Iterator[Caption]:
    """The captions that are true, names from left to right, without "a photo of"."""
    things = sorted(things, key=lambda thing: thing.box)
    names = list(dict.fromkeys(thing.name for thing in things))
    numbers = {name: sum(thing.name == name for thing in things) for name in names}
    for k in range(1, len(names) + 1):
        for chosen in itertools.combinations(names, k):
            yield Caption(tuple(map(Phrase, chosen)), form="bare")
            options = [
                [Phrase(n), *([Phrase(n, numbers[n])] if _counted(n, numbers) else [])]
                for n in chosen
            ]
            yield from map(Caption, itertools.product(*options))
    for name in names:
        sizes = [s for s in SIZES if any(t.is_a(Phrase(name, size=s)) for t in things)]
        yield from (Caption((Phrase(name, size=size),)) for size in sizes)
        if background is not None:
            yield Caption((Phrase(name),), background=background)
    for a, b in itertools.permutations(names, 2):
        for relation in INVERSE:
            caption = Caption((Phrase(a), Phrase(b)), relation)
            if is_true(caption, things):
                yield caption


def _counted(name: str, numbers: dict[str, int]) -> bool:
    return numbers[name] > 1 and CONCEPTS[name].plural is not None

"""Outlines as pixels: against slow drawings, and everything that is no outline."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from run_lengths import rle

from fixlip.data.examples import Object
from fixlip.data.outlines import outline_pixels


def drawn(polygon, size):
    """The pixels whose centres lie inside a polygon, by counting the edges to their left."""
    corners = np.reshape(polygon, (-1, 2))
    inside = np.zeros((size[1], size[0]), bool)
    for row, column in np.ndindex(inside.shape):
        x, y = column + 0.5, row + 0.5
        for (a, b), (c, d) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if (b > y) != (d > y) and x > a + (y - b) * (c - a) / (d - b):
                inside[row, column] ^= True
    return inside


@pytest.mark.parametrize("shift", [(0, 0), (-9, -4), (11, 6), (-30, 0)])
def test_polygons_that_stick_out_keep_what_is_on_the_picture(shift):
    star = np.add([[12, 1], [16, 10], [23, 14], [14, 16], [10, 19], [8, 11], [1, 5]], shift)
    found = outline_pixels([star.ravel().tolist()], (24, 20))
    different = found != drawn(star, (24, 20))
    assert different.sum() <= 12 and found.any() == (shift[0] > -30)  # along its edge


def test_run_length_codes_of_every_kind_give_their_pixels_back():
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(1, 40, 2).tolist()
        pixels = rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1])
        packed = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
        text = packed | {"counts": packed["counts"].decode()}
        for code in (rle(pixels.astype(int)), packed, text):
            assert (outline_pixels(code, (width, height)) == pixels).all()


def test_nothing_is_no_outline():
    for outline in (None, [], {}, "", [[]], [[1, 2, 3, 4]], [[], [1, 2]]):
        assert outline_pixels(outline, (8, 6)) is None


SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]
CODE = {"size": [6, 8], "counts": [40, 8]}


@pytest.mark.parametrize(
    "outline, message",
    [
        ([[*SQUARE, float("nan"), 2]], "from nan to nan does not fit a picture of 8 x 6"),
        ([[*SQUARE, float("inf"), 2]], "to inf does not fit"),
        ([[*SQUARE, 1e300, -1e300]], "does not fit"),
        ([[*SQUARE, 2e9, 2]], "does not fit"),
        ([[value + 1e12 for value in SQUARE]], "does not fit"),
        ([[0, 0, 8, 6, 0, 6, 8, 0] * 1000], "does not fit"),  # a million times around is no outline
        ([SQUARE[:-1]], r"an even number of numbers x, y, ..., got \[1, 1, 4"),
        ([[1, 2, 3]], "an even number"),
        (SQUARE, "an even number of numbers"),  # a list around it is missing
        ([[[1, 1], [4, 1], [4, 4]]], "an even number"),
        ([["a", "b"] * 3], "an even number"),
        ([None], "an even number"),
        ([{"x": 1}], "an even number"),
        (7, "polygons or a run-length code, got 7"),
        ("drawn.png", "polygons or a run-length code, got 'drawn.png'"),
        ({"size": [8, 6], "counts": [40, 8]}, r"must be \[6, 8\], .* got \[8, 6\]"),
        ({"counts": [40, 8]}, "got None"),
        ({"size": 6, "counts": [40, 8]}, "got 6"),
        ({"size": [6, 8]}, "add up to the 48 pixels of the picture, got None"),
        (CODE | {"counts": [40, 7]}, r"add up to the 48 pixels of the picture, got \[40, 7\]"),
        (CODE | {"counts": [40, 2**64 + 8]}, "add up to"),
        (CODE | {"counts": [50, -2]}, "add up to"),
        (CODE | {"counts": [40.0, 8.0]}, "add up to"),
        (CODE | {"counts": [40, None]}, "add up to"),
        (CODE | {"counts": 48}, "add up to"),
        (CODE | {"counts": "11"}, "add up to"),  # pycocotools shows what lies in memory after it
        (CODE | {"counts": "oooooo0oooo0"}, "add up to"),
        (CODE | {"counts": "o" * 100_000}, "add up to"),
        (CODE | {"counts": "\ud800\x00é"}, "add up to"),
    ],
)
def test_whatever_else_a_file_holds_is_one_error(outline, message):
    with pytest.raises(ValueError, match=message):
        outline_pixels(outline, (8, 6))
    thing = Object("dog", (0, 0, 1, 1), id="42", size=(8, 6), outline=outline, file="a/in.json")
    with pytest.raises(ValueError, match=rf"^a/in.json dog 42: .*{message}"):
        thing.mask()

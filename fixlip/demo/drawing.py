"""How scenes look: ten shapes as masks, eight colours, and a noisy grey background."""

import functools
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

IMAGE_SIZE = 48  # pixels
SUPERSAMPLING = 8
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "green": (45, 165, 60),
    "blue": (45, 75, 220),
    "yellow": (240, 220, 45),
    "purple": (145, 50, 185),
    "orange": (245, 135, 25),
    "cyan": (45, 210, 220),
    "white": (245, 245, 245),
}
SHAPES: tuple[str, ...] = (
    *("circle", "square", "triangle", "star", "cross"),
    *("heart", "ring", "diamond", "moon", "arrow"),
)


def background(rng: np.random.Generator) -> np.ndarray:
    """(48, 48, 3) float32: grey, slightly tinted, uneven."""
    base = rng.uniform(85, 165) + rng.uniform(-8, 8, size=3)
    coarse = rng.normal(0, 10, size=(4, 4)).astype(np.float32)
    uneven = _UPSAMPLE @ coarse @ _UPSAMPLE.T  # (48, 48): bilinear
    return (uneven[..., None] + base).astype(np.float32)


def _bilinear(size: int, knots: int) -> np.ndarray:
    position = np.linspace(0, knots - 1, size)[:, None]
    return np.clip(1 - abs(position - np.arange(knots)), 0, 1).astype(np.float32)


_UPSAMPLE = _bilinear(IMAGE_SIZE, 4)  # (48, 4)


@functools.cache
def alpha_mask(shape: str, side: int) -> np.ndarray:
    """(side, side) float32 in [0, 1]: how much of each pixel the shape covers (read-only)."""
    canvas = Image.new("L", (side * SUPERSAMPLING,) * 2, 0)
    _draw(shape, ImageDraw.Draw(canvas), side * SUPERSAMPLING)
    alpha = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), dtype=np.float32) / 255
    alpha.setflags(write=False)
    return alpha


def _draw(shape: str, draw: ImageDraw.ImageDraw, side: int) -> None:
    """Fill a shape that almost fills the square canvas; coordinates are fractions of its side."""

    def polygon(points: Iterable[tuple[float, float]]) -> None:
        draw.polygon([(x * side, y * side) for x, y in points], fill=255)

    def disc(x: float, y: float, radius: float, fill: int = 255) -> None:
        box = ((x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side)
        draw.ellipse(box, fill=fill)

    if shape == "circle":
        disc(0.5, 0.5, 0.46)
    elif shape == "ring":
        disc(0.5, 0.5, 0.46)
        disc(0.5, 0.5, 0.24, fill=0)
    elif shape == "moon":
        disc(0.5, 0.5, 0.46)
        disc(0.68, 0.42, 0.36, fill=0)
    elif shape == "square":
        polygon([(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])
    elif shape == "diamond":
        polygon([(0.5, 0.02), (0.84, 0.5), (0.5, 0.98), (0.16, 0.5)])
    elif shape == "triangle":
        polygon([(0.5, 0.06), (0.96, 0.92), (0.04, 0.92)])
    elif shape == "cross":
        polygon([(0.36, 0.05), (0.64, 0.05), (0.64, 0.95), (0.36, 0.95)])
        polygon([(0.05, 0.36), (0.95, 0.36), (0.95, 0.64), (0.05, 0.64)])
    elif shape == "star":
        angles = np.pi * (np.arange(10) / 5 - 0.5)
        radii = np.where(np.arange(10) % 2 == 0, 0.5, 0.2)
        polygon(zip(0.5 + radii * np.cos(angles), 0.53 + radii * np.sin(angles), strict=True))
    elif shape == "heart":
        disc(0.285, 0.32, 0.235)
        disc(0.715, 0.32, 0.235)
        polygon([(0.09, 0.44), (0.5, 0.32), (0.91, 0.44), (0.5, 0.96)])
    elif shape == "arrow":
        polygon([(0.04, 0.37), (0.52, 0.37), (0.52, 0.63), (0.04, 0.63)])
        polygon([(0.5, 0.1), (0.97, 0.5), (0.5, 0.9)])
    else:
        raise ValueError(f"unknown shape {shape!r}: expected one of {list(SHAPES)}")

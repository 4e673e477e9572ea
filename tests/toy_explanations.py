"""Explanations to be drawn: random terms on a small grid of patches."""

import numpy as np

from fixlip.explanation import Explanation


def make(*, words=("a", "red", "star"), grid=(2, 3), picture=True):
    """Terms drawn at random for a grid of patches and some words."""
    rng = np.random.default_rng(1)
    n_image, n = grid[0] * grid[1], grid[0] * grid[1] + len(words)
    e2 = np.triu(rng.normal(size=(n, n)), 1)
    return Explanation(
        e0=1.0,
        e1=rng.normal(size=n),
        e2=e2 + e2.T,
        players=(*(f"({r},{c})" for r in range(grid[0]) for c in range(grid[1])), *words),
        n_image=n_image,
        info={"image": {"kind": "image", "grid": list(grid), "owner": list(range(n_image))}},
        picture=rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) if picture else None,
    )

"""How right an explanation is where the truth is known: the pointing game on 2 x 2 mosaics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUADRANTS = ("top left", "top right", "bottom left", "bottom right")


def quadrants(rows: int, columns: int) -> np.ndarray:
    """Which quadrant of a 2 x 2 mosaic each patch lies in.

    Parameters
    ----------
    rows, columns : int
        Patch grid. A middle row or column of an odd grid lies in no quadrant.

    Returns
    -------
    numpy.ndarray, (rows * columns,), int
        0 to 3 as in QUADRANTS, or -1.

    References
    ----------
    The cells of the pointing game of Baniecki et al., NeurIPS 2025: 3 x 3 corners of 7 x 7 patches,
    4 x 4 of 8 x 8, 7 x 7 of 14 x 14.

    Examples
    --------
    >>> quadrants(3, 4).reshape(3, 4).tolist()
    [[0, 0, 1, 1], [-1, -1, -1, -1], [2, 2, 3, 3]]
    """
    half = np.full((rows, columns), -1)
    r, c = rows // 2, columns // 2
    half[:r, :c], half[:r, columns - c :] = 0, 1
    half[rows - r :, :c], half[rows - r :, columns - c :] = 2, 3
    return half.ravel()


def pointing_ratio(cross: np.ndarray, where: np.ndarray, own: Sequence[int]) -> float:
    """Share of the interaction mass that has the right sign in the right place.

    A word should attract the quadrant that shows its object, and no other: positive interactions
    in its own quadrant and negative ones in the other three are right, the rest is wrong.

    Parameters
    ----------
    cross : numpy.ndarray, (n_I, n_T)
        Interactions of image players with words.
    where : numpy.ndarray, (n_I,), int
        Quadrant of each image player; those with -1 do not count.
    own : sequence of int, (n_T,)
        Quadrant of each word's object; words with -1 do not count.

    Returns
    -------
    float
        right / (right + wrong), summed over words; NaN where there is no mass. Symmetric noise
        gives one half on average.

    References
    ----------
    Pointing game recognition of Baniecki et al., NeurIPS 2025.

    Examples
    --------
    >>> float(pointing_ratio(np.array([[3.0], [1.0], [-2.0], [0.0]]), np.arange(4), [0]))
    0.8333333333333334
    """
    right = wrong = 0.0
    for word, quadrant in enumerate(own):
        if quadrant < 0:
            continue
        inside, outside = (
            cross[where == quadrant, word],
            cross[(where >= 0) & (where != quadrant), word],
        )
        right += inside.clip(min=0).sum() - outside.clip(max=0).sum()
        wrong += outside.clip(min=0).sum() - inside.clip(max=0).sum()
    return right / (right + wrong) if right + wrong > 0 else float("nan")

"""How right an explanation is where the truth is known: the pointing game on 2 x 2 mosaics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fixlip.checks import one_of
from fixlip.explanation import Explanation

QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
NOWHERE = -1
ZEROS = ("skip", "wrong")


def quadrants(rows: int, columns: int, *, owner: Sequence[int] | None = None) -> np.ndarray:
    """Which quadrant of a 2 x 2 mosaic each patch or player lies in: 0 to 3 as in QUADRANTS, or -1.

    Parameters
    ----------
    rows, columns : int
        Patch grid. A middle row or column of an odd grid lies in no quadrant.
    owner : sequence of int, (rows * columns,), optional
        The player of each patch, as ``info["image"]["owner"]`` of an explanation: by default every
        patch plays by itself. A block or a region lies in the quadrant that holds more than half
        of its patches, and in none where no quadrant does.

    References
    ----------
    The cells of the pointing game of Baniecki et al., NeurIPS 2025: 3 x 3 corners of 7 x 7 patches,
    4 x 4 of 8 x 8, 7 x 7 of 14 x 14, 8 x 8 of 16 x 16.

    Examples
    --------
    >>> quadrants(3, 4).reshape(3, 4).tolist()
    [[0, 0, 1, 1], [-1, -1, -1, -1], [2, 2, 3, 3]]
    >>> quadrants(2, 2, owner=[0, 0, 1, 2]).tolist()  # player 0 lies in two quadrants
    [-1, 2, 3]
    """
    cells = np.full((rows, columns), NOWHERE)
    r, c = rows // 2, columns // 2
    cells[:r, :c], cells[:r, columns - c :] = 0, 1
    cells[rows - r :, :c], cells[rows - r :, columns - c :] = 2, 3
    cells = cells.ravel()
    if owner is None:
        return cells
    owner = np.asarray(owner)
    if owner.shape != cells.shape or owner.dtype.kind not in "iu" or owner.min(initial=0) < 0:
        raise ValueError(
            f"owner must be a player's number, 0 or more, for each of {rows} x {columns} patches, "
            f"({cells.size},), got {owner.dtype} of shape {owner.shape}"
        )
    held = np.stack([np.bincount(owner[cells == q], minlength=owner.max() + 1) for q in range(4)])
    return np.where(2 * held.max(0) > np.bincount(owner), held.argmax(0), NOWHERE)  # (n_I,)


def pointing_ratio(cross: np.ndarray, where: Sequence[int], own: Sequence[int]) -> float:
    """Share of the interaction mass that has the right sign in the right place.

    A word should attract the quadrant that shows its object, and no other: positive interactions
    in its own quadrant and negative ones in the other three are right, the rest is wrong.

    The ratio is right / (right + wrong), summed over words; NaN where there is no mass. Symmetric
    noise gives one half on average, a map that is the same everywhere one quarter.

    Parameters
    ----------
    cross : numpy.ndarray, (n_I, n_T)
        Interactions of image players with words.
    where : sequence of int, (n_I,)
        Quadrant of each image player; those with -1 do not count.
    own : sequence of int, (n_T,)
        Quadrant of each word's object; words with -1 do not count.

    References
    ----------
    Pointing game recognition of Baniecki et al., NeurIPS 2025, table 1.

    Examples
    --------
    >>> float(pointing_ratio(np.array([[3.0], [1.0], [-2.0], [0.0]]), np.arange(4), [0]))
    0.8333333333333334
    """
    signed = _signed(cross, where, own)
    return _share(signed.clip(min=0).sum(), -signed.clip(max=0).sum())


def sign_ratio(
    cross: np.ndarray, where: Sequence[int], own: Sequence[int], *, zeros: str = "skip"
) -> float:
    """Share of the interactions that have the right sign in the right place, whatever their size.

    The share of each word that counts, averaged over words; NaN where nothing is left.

    Parameters
    ----------
    cross, where, own
        As in `pointing_ratio`.
    zeros : {"skip", "wrong"}
        An interaction of exactly zero has no sign: it does not count, nor does a word without any
        other; or, as in the published code, it counts as wrong.

    References
    ----------
    The second measure of the pointing game in the code of Baniecki et al., NeurIPS 2025.

    Examples
    --------
    >>> round(sign_ratio(np.array([[3.0], [1.0], [-2.0], [0.0]]), np.arange(4), [0]), 3)
    0.667
    """
    right, wrong = _signs(_signed(cross, where, own), where, own, zeros)
    return _mean_share(right, wrong)


def pointing(
    explanation: Explanation,
    where: Sequence[int],
    own: Sequence[int],
    *,
    text_token: bool = False,
    zeros: str = "skip",
) -> dict[str, float]:
    """Play the pointing game with an explanation: "ratio", `pointing_ratio`; "signs", `sign_ratio`.

    Parameters
    ----------
    explanation : Explanation
        Of second order: its image-text interactions count, and nothing else. Of first order (no
        pair terms): its image terms are the map of every word alike.
    where, own
        As in `pointing_ratio`.
    text_token : bool
        For first order only: count each word's own term once inside and once outside its quadrant,
        as the published numbers do (Baniecki et al., NeurIPS 2025, table 1, and its code). This
        adds the same to right and to wrong, and so draws both measures towards one half.
    zeros : {"skip", "wrong"}
        As in `sign_ratio`.

    Examples
    --------
    >>> terms, none = np.array([3.0, 1.0, -2.0, 0.0, 6.0]), np.zeros((5, 5))
    >>> e = Explanation(0.0, terms, none, ("a", "b", "c", "d", "word"), 4)
    >>> [round(pointing(e, range(4), [0], text_token=t)["ratio"], 3) for t in (False, True)]
    [0.833, 0.611]
    """
    if explanation.e2.any():
        cross, words = explanation.cross, np.zeros(explanation.n_text)
    else:
        image, words = np.split(explanation.e1, [explanation.n_image])
        cross = np.repeat(image[:, None], len(words), axis=1)  # (n_I,) -> (n_I, n_T)
    signed = _signed(cross, where, own)
    counted = np.where(text_token & (np.asarray(own) != NOWHERE), np.abs(words), 0.0)  # (n_T,)
    right, wrong, both = signed.clip(min=0).sum(), -signed.clip(max=0).sum(), counted.sum()
    signs = [count + (counted > 0) for count in _signs(signed, where, own, zeros)]  # (n_T,) each
    return {"ratio": _share(right + both, wrong + both), "signs": _mean_share(*signs)}


def _signed(cross: np.ndarray, where: Sequence[int], own: Sequence[int]) -> np.ndarray:
    """Interactions (n_I, n_T), positive where they are right and zero where they do not count."""
    cross, where, own = np.asarray(cross, float), np.asarray(where), np.asarray(own)
    if cross.ndim != 2 or where.shape != cross.shape[:1] or own.shape != cross.shape[1:]:
        raise ValueError(
            "interactions (n_I, n_T) need a quadrant for each image player and for each word; got "
            f"{cross.shape}, {where.shape} quadrants of players and {own.shape} of words"
        )
    places = np.concatenate([where, own])
    if bool in (where.dtype, own.dtype) or not np.isin(places, np.arange(NOWHERE, 4)).all():
        raise ValueError(f"quadrants are 0 to 3, or -1 for none; got {np.unique(places).tolist()}")
    if not np.isfinite(cross).all():
        raise ValueError("some interactions are NaN or infinite: they point nowhere")
    counts = (where[:, None] != NOWHERE) & (own != NOWHERE)  # (n_I, n_T)
    return np.where(where[:, None] == own, cross, -cross) * counts


def _signs(
    signed: np.ndarray, where: Sequence[int], own: Sequence[int], zeros: str
) -> tuple[np.ndarray, np.ndarray]:
    """How many interactions of each word are right, and how many wrong, (n_T,) each."""
    one_of("zeros", zeros, ZEROS)
    right, wrong = (signed > 0).sum(0), (signed < 0).sum(0)
    if zeros == "wrong":
        in_play = (np.asarray(where) != NOWHERE).sum() * (np.asarray(own) != NOWHERE)  # (n_T,)
        wrong = in_play - right
    return right, wrong


def _share(right: float, wrong: float) -> float:
    return float(right / (right + wrong)) if right + wrong > 0 else float("nan")


def _mean_share(right: np.ndarray, wrong: np.ndarray) -> float:
    """Share of right ones, averaged over the words (n_T,) that have any."""
    total = right + wrong
    return float(np.mean(right[total > 0] / total[total > 0])) if total.any() else float("nan")

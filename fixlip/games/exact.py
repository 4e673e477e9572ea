"""Exact quantities of a small game from all of its 2**n values: nothing is sampled or fitted.

Values (2**n,) stand as `game_values` lists them: row r is the mask, or the set, of the players i
whose bit i is set in r. One pass over the players, as in a fast Fourier transform, gives the
interaction index of *every* set at once, in n * 2**n steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fixlip.checks import one_of, per_side
from fixlip.explanation import Explanation, count_terms
from fixlip.games.game import ask, count_players
from fixlip.sampler import enumerate_masks

if TYPE_CHECKING:
    import torch

Probability = float | Sequence[float] | np.ndarray


def game_values(game: Callable[[torch.Tensor], Any], *, n: int | None = None) -> np.ndarray:
    """Ask a game for all its values (2**n,), float64, in one call.

    Parameters
    ----------
    game : callable
        From masks (m, n), torch.bool, True = kept, to values (m,), torch or numpy.
    n : int, optional
        Number of players; by default the game's own ``n``.

    Examples
    --------
    >>> game_values(lambda masks: masks.all(1), n=2).tolist()
    [0.0, 0.0, 0.0, 1.0]
    """
    return ask(game, enumerate_masks(count_players(game, n)).masks).numpy()


def interactions(values: np.ndarray, *, p: Probability = 0.5) -> np.ndarray:
    """Weighted Banzhaf interaction index of every set of players, of every order.

    The index of a set is the expected value of its discrete derivative (for two players: both,
    minus each alone, plus neither) where every other player is kept with probability p, in [0, 1]:
    one for all, or one per player (n,). Of the rows (2**n,), row 0 is the game's mean, row 2**i the
    weighted Banzhaf value of player i, row 2**i + 2**j the interaction of i and j.

    References
    ----------
    Marichal and Mathonet, "Weighted Banzhaf power and interaction indexes through weighted
    approximations of games", European Journal of Operational Research 211, 2011.

    Examples
    --------
    >>> interactions(np.array([0.0, 0.0, 0.0, 1.0]), p=0.5).tolist()  # both players are needed
    [0.25, 0.5, 0.5, 1.0]
    """
    table = _table(values)
    keep = _probabilities(p, table.ndim)
    for i, chance in enumerate(keep):
        without, with_ = np.moveaxis(table, i, 0)
        table = np.stack([(1 - chance) * without + chance * with_, with_ - without], axis=i)
    return table.T.ravel()


def moebius(values: np.ndarray) -> np.ndarray:
    """Moebius transform (2**n,): the coefficients of the polynomial in z that equals the game.

    Examples
    --------
    >>> moebius(np.array([1.0, 3.0, 4.0, 11.0])).tolist()  # 1 + 2 z_0 + 3 z_1 + 5 z_0 z_1
    [1.0, 2.0, 3.0, 5.0]
    """
    return interactions(values, p=0.0)


def banzhaf_values(values: np.ndarray, *, p: Probability = 0.5) -> np.ndarray:
    """Weighted Banzhaf values (n,): how much the game gains on average when a player joins."""
    index = interactions(values, p=p)
    return index[2 ** np.arange(_players(values))]


def shapley_values(values: np.ndarray) -> np.ndarray:
    """Shapley values (n,): every Moebius coefficient is shared equally among its players.

    Examples
    --------
    >>> shapley_values(np.array([0.0, 1.0, 2.0, 9.0])).tolist()
    [4.0, 5.0]
    """
    Z, size = _members(values)
    return Z.T @ (moebius(values) / np.maximum(size, 1))


def polynomial(
    values: np.ndarray, *, p: Probability = 0.5, order: int = 2
) -> tuple[float, np.ndarray, np.ndarray]:
    """The polynomial of order 1 or 2 that is nearest to the game under p: e0, e1 (n,), e2 (n, n).

    e2 are the interactions of pairs, and lower terms follow (Marichal and Mathonet, 2011): e1 = I -
    e2 p with the weighted Banzhaf values I, and e0 such that the polynomial's mean is the game's. p
    as in `interactions`.
    """
    one_of("order", order, (1, 2))
    index, n = interactions(values, p=p), _players(values)
    keep, bit = _probabilities(p, n), 2 ** np.arange(n)
    e2 = np.zeros((n, n))
    if order == 2:
        e2 = index[bit[:, None] | bit]
        np.fill_diagonal(e2, 0)
    e1 = index[bit] - e2 @ keep
    return float(index[0] - keep @ e1 - keep @ e2 @ keep / 2), e1, e2


def weighted_banzhaf(
    values: np.ndarray,
    *,
    p: float | tuple[float, float] = 0.5,
    order: int = 2,
    n_image: int = 0,
    players: Sequence[str] | None = None,
) -> Explanation:
    """What FIxLIP estimates: the order-2 weighted Banzhaf explanation; p = .5 is Faith-Banzhaf.

    Parameters
    ----------
    values : array, (2**n,)
    p : float or (float, float)
        Probability of keeping a player; one for all, or one for image and one for text players.
        (`polynomial` takes one per player.)
    order : {1, 2}
    n_image, players : int, sequence of str
        How many of the players, the first ones, belong to the image; names, by default "0", ...

    References
    ----------
    Baniecki et al., NeurIPS 2025; Tsai, Yeh and Ravikumar, "Faith-Shap", JMLR 24, 2023.
    """
    n = _players(values)
    both = tuple(map(float, per_side("p, unlike that of exact.polynomial,", p)))
    terms = polynomial(values, p=np.repeat(both, [n_image, n - n_image]), order=order)
    return _explanation(values, terms, both, n_image, players, "banzhaf", order)


def faith_shapley(
    values: np.ndarray, *, order: int = 2, n_image: int = 0, players: Sequence[str] | None = None
) -> Explanation:
    """Faithful Shapley interactions (FSII): nearest under the Shapley kernel, exact at both ends.

    Parameters as in `weighted_banzhaf`. The explanation's p is .5, for which its attributions are
    the Shapley values; its values at the empty and at the full mask are the game's.

    References
    ----------
    Tsai, Yeh and Ravikumar, "Faith-Shap: The Faithful Shapley Interaction Index", JMLR 24, 2023,
    theorem 19, whose sums over larger sets become the two fractions in the code.
    """
    one_of("order", order, (1, 2))
    Z, size = _members(values)
    coefficients, t = moebius(values), np.maximum(size, 1)
    e2 = np.zeros((Z.shape[1],) * 2)
    if order == 1:
        e1 = shapley_values(values)
    else:
        e1 = Z.T @ (coefficients * -2 * (t - 2) / (t * (t + 1)))
        e2 = (Z.T * (coefficients * 6 / (t * (t + 1)))) @ Z
        np.fill_diagonal(e2, 0)
    terms = float(coefficients[0]), e1, e2
    return _explanation(values, terms, (0.5, 0.5), n_image, players, "shapley", order)


def _explanation(
    values: np.ndarray,
    terms: tuple[float, np.ndarray, np.ndarray],
    p: tuple[float, float],
    n_image: int,
    players: Sequence[str] | None,
    index: str,
    order: int,
) -> Explanation:
    n = _players(values)
    return Explanation(
        *terms,
        players=tuple(map(str, range(n)) if players is None else players),
        n_image=n_image,
        p=p,
        empty_value=float(values[0]),
        grand_value=float(values[-1]),
        info={"fit": {"index": index, "order": order}},
        deviations=np.zeros((0, count_terms(n) if order == 2 else 1 + n), np.float32),  # no error
    )


def _players(values: np.ndarray) -> int:
    """Number of players, after checking that there is a value for each of their masks."""
    shape = np.shape(values)
    if len(shape) != 1 or shape[0] < 2 or shape[0] & (shape[0] - 1):
        raise ValueError(
            f"values must list all 2**n masks of n players in one row, got the shape {shape}: "
            "exact.game_values(game) makes them"
        )
    return shape[0].bit_length() - 1


def _table(values: np.ndarray) -> np.ndarray:
    """Values with one axis of length 2 (removed, kept) per player."""
    return np.asarray(values, dtype=np.float64).reshape((2,) * _players(values)).T


def _members(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which player is in which set, (2**n, n), and the sizes of the sets, (2**n,)."""
    Z = enumerate_masks(_players(values)).masks.numpy().astype(float)
    return Z, Z.sum(1)


def _probabilities(p: Probability, n: int) -> np.ndarray:
    keep = np.asarray(p, dtype=float)
    if keep.shape not in ((), (n,)) or not ((keep >= 0) & (keep <= 1)).all():
        raise ValueError(
            f"p must be one number from 0 to 1, or one for each of {n} players, got {p!r}"
        )
    return np.broadcast_to(keep, n)

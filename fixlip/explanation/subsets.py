"""Best and worst subset of players of every size, by an explanation alone: no model is asked.

The score of a subset is what its players and their pairs add: the explanation's value without e0.
`greedy` searches, as published; `exact` lists all subsets of a few players; `optimum` proves how
good the best subset of one size can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array, hstack, vstack

from fixlip.checks import MAX_ENUMERATED, integer, one_of
from fixlip.explanation import Explanation, Player

ALL_STARTS = 100  # up to so many players, greedy starts from every one
BLOCK = 2**16  # subsets whose scores `exact` holds at once
TOLERANCE = 1e-5  # of the largest term: how far the solver's bound is trusted


@dataclass(frozen=True, eq=False)
class Subsets:
    """The subset of every size with the highest, and with the lowest, score that was found."""

    sizes: np.ndarray  # (n,): 1 to n, how many players each row keeps
    most: np.ndarray  # (n, n), bool, True = kept; rows need not be nested
    least: np.ndarray  # (n, n)
    most_scores: np.ndarray  # (n,): what `score` gives for them
    least_scores: np.ndarray  # (n,)


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best subset of one size that was found, and how good any other one can be."""

    mask: np.ndarray  # (n,), bool
    score: float  # what `score` gives for it
    bound: float  # no subset of this size scores higher (sense="most") or lower ("least")
    proven: bool  # whether the bound meets the score, up to 2e-5 of the largest term in size


def score(explanation: Explanation, masks: torch.Tensor | np.ndarray) -> np.ndarray:
    """Sum of the first-order and pair terms inside each mask: the value without e0.

    Parameters
    ----------
    explanation : Explanation
        Of a product explanation, the terms up to second order.
    masks : array, (m, n), bool
        True = kept.

    Examples
    --------
    >>> e = Explanation(9.0, np.array([2.0, 3.0]), np.array([[0, 5.0], [5.0, 0]]), ("a", "b"), 1)
    >>> score(e, np.array([[True, False], [True, True]])).tolist()
    [2.0, 10.0]
    """
    _check(explanation)
    return _scores(explanation.e1, explanation.e2, explanation.checked(masks))


def starting_players(explanation: Explanation, k: int = 19) -> list[int]:
    """The players that the published search starts from where there are more than 100.

    Those with the k highest, the k lowest and the k smallest absolute values, of the first-order
    attributions and of the first-order terms: at most 6 k, by index.

    References
    ----------
    The code of Baniecki et al., NeurIPS 2025, where k = 19.
    """
    integer("k", k)
    _check(explanation)
    lists = [
        np.argsort(key, kind="stable")[:k]
        for values in (explanation.attributions(), explanation.e1)
        for key in (-values, values, np.abs(values))
    ]
    return np.unique(lists).tolist()


def greedy(explanation: Explanation, *, starts: str | Sequence[Player] | None = None) -> Subsets:
    """Search the best and the worst subset of every size by adding one player at a time.

    From every starting player two chains grow: one always adds the player that gains most, the
    other the one that gains least, where player v gains e_v plus its pairs with those already in.
    All subsets that any chain visits are compared; ties go to the lower index.

    Parameters
    ----------
    explanation : Explanation
    starts : {"all", "published"}, sequence of players or None
        Where chains start: every player, `starting_players`, or those given. None is the published
        rule: all, or `starting_players` where there are more than 100.

    References
    ----------
    Baniecki et al., NeurIPS 2025, subset selection for insertion/deletion curves (figure 3).

    Examples
    --------
    >>> pairs = np.array([[0, 0, 4.0], [0, 0, 0], [4.0, 0, 0]])
    >>> e = Explanation(0.0, np.array([-1.0, 1.0, -2.0]), pairs, ("a", "b", "c"), 2)
    >>> found = greedy(e)
    >>> found.most.astype(int).tolist(), found.most_scores.tolist()
    ([[0, 1, 0], [1, 0, 1], [1, 1, 1]], [1.0, 1.0, 2.0])
    """
    _check(explanation)
    e1, e2, n = explanation.e1, explanation.e2, explanation.n
    first = np.array(_starts(explanation, starts))
    rows = np.arange(2 * len(first))  # chains: of each start the rising, then the falling ones
    sign = np.repeat([1.0, -1.0], len(first))[:, None]
    added = np.tile(first, 2)
    masks, gains = np.zeros((len(rows), n), bool), np.tile(e1, (len(rows), 1))  # (chains, n)
    totals, pool = np.zeros(len(rows)), _Pool(n)
    for size in range(1, n + 1):
        totals = totals + gains[rows, added]
        masks[rows, added] = True
        pool.add(size, masks, totals)
        gains += e2[added]
        added = np.where(masks, -np.inf, sign * gains).argmax(1)
    return pool.subsets(explanation)


def exact(explanation: Explanation) -> Subsets:
    """Find the best and the worst subset of every size among all 2**n, of at most 24 players.

    20 players take about a second, 24 about half a minute. Of equal scores comes the subset that is
    first in binary counting, player 0 the lowest bit.
    """
    _check(explanation)
    n = explanation.n
    if n > MAX_ENUMERATED:
        raise ValueError(
            f"{n} players have 2**{n} subsets, and at most 2**{MAX_ENUMERATED} can be listed: use "
            "greedy, or optimum for a proof of one size"
        )
    pool = _Pool(n)
    for start in range(1, 2**n, BLOCK):
        numbers = np.arange(start, min(start + BLOCK, 2**n))
        masks = (numbers[:, None] >> np.arange(n) & 1).astype(bool)  # (block, n)
        totals, sizes = _scores(explanation.e1, explanation.e2, masks.astype(float)), masks.sum(1)
        for size in range(1, n + 1):
            if (of_size := sizes == size).any():
                pool.add(size, masks[of_size], totals[of_size])
    return pool.subsets(explanation)


def optimum(
    explanation: Explanation, size: int, *, sense: str = "most", seconds: float = 30.0
) -> Optimum:
    """Find the best or the worst subset of one size, with a proof or a bound.

    Starts from `greedy` and hands a mixed-integer linear program to HiGHS. For forty players it
    takes seconds as a rule, near n / 2 the longest; beyond a hundred it often gives a bound only.

    Parameters
    ----------
    explanation : Explanation
    size : int
        How many players to keep, 1 to n.
    sense : {"most", "least"}
        Highest or lowest score.
    seconds : float
        Time for HiGHS. A search that it cuts off has no proof, and its result depends on the speed
        of the machine, but is never worse than greedy's.

    References
    ----------
    Adams and Sherali, "A tight linearization and an algorithm for zero-one quadratic programming
    problems", Management Science 32, 1986: a product y_ij for each pair, and the equation of the
    size multiplied by each player.

    Examples
    --------
    >>> pairs = np.array([[0, 0, 4.0], [0, 0, 0], [4.0, 0, 0]])
    >>> e = Explanation(0.0, np.array([-1.0, 1.0, -2.0]), pairs, ("a", "b", "c"), 2)
    >>> best = optimum(e, 2)
    >>> best.mask.tolist(), best.score, best.proven
    ([True, False, True], 1.0, True)
    """
    _check(explanation)
    n = explanation.n
    if integer("size", size) > n:
        raise ValueError(f"size must be at most {n}, the number of players, got {size!r}")
    one_of("sense", sense, ("most", "least"))
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, got {seconds!r}")
    sign = 1.0 if sense == "most" else -1.0
    largest = max(np.abs(explanation.e1).max(), np.abs(explanation.e2).max()) or 1.0
    # HiGHS stops at absolute gaps: terms of size 1 make them relative to the largest one
    e1, e2 = sign * explanation.e1 / largest, sign * explanation.e2 / largest
    found = greedy(explanation)
    masks = [(found.most if sense == "most" else found.least)[size - 1]]
    solution, bound = _solve(e1, e2, size, seconds)
    masks += [] if solution is None else [solution]
    scores = _scores(e1, e2, np.array(masks, float))
    best = int(scores.argmax())
    bound = max(min(bound, _simple_bound(e1, e2, size)), scores[best])
    return Optimum(
        mask=masks[best],
        score=float(score(explanation, masks[best][None])[0]),
        bound=float(sign * largest * bound),
        proven=bool(bound - scores[best] <= 2 * TOLERANCE),
    )


class _Pool:
    """The highest and the lowest score of every size among the subsets added."""

    def __init__(self, n: int) -> None:
        self.masks = np.zeros((2, n, n), bool)  # most, least
        self.totals = np.full((2, n), -np.inf)

    def add(self, size: int, masks: np.ndarray, totals: np.ndarray) -> None:
        """Add subsets of one size, masks (m, n), with their scores (m,)."""
        for which, signed in enumerate((totals, -totals)):
            row = signed.argmax()
            if signed[row] > self.totals[which, size - 1]:
                self.totals[which, size - 1] = signed[row]
                self.masks[which, size - 1] = masks[row]

    def subsets(self, explanation: Explanation) -> Subsets:
        most, least = self.masks
        scores = score(explanation, most), score(explanation, least)
        return Subsets(np.arange(1, len(most) + 1), most, least, *scores)


def _scores(e1: np.ndarray, e2: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Scores (m,) of masks (m, n) of 0 and 1."""
    return z @ e1 + ((z @ e2) * z).sum(1) / 2


def _starts(explanation: Explanation, starts: str | Sequence[Player] | None) -> list[int]:
    """Indices of the players that greedy chains start from."""
    n = explanation.n
    if starts is None:
        starts = "all" if n <= ALL_STARTS else "published"
    if isinstance(starts, str):
        one_of("starts, unless they are players,", starts, ("all", "published"))
        return list(range(n)) if starts == "all" else starting_players(explanation)
    indices = explanation.indices(list(starts))
    if not indices:
        raise ValueError("starts is empty: give at least one player to start from")
    return indices


def _solve(
    e1: np.ndarray, e2: np.ndarray, size: int, seconds: float
) -> tuple[np.ndarray | None, float]:
    """The highest score of a size by HiGHS: a mask (n,) or None, and an upper bound."""
    n, constant, swap = len(e1), 0.0, size > len(e1) / 2
    if swap:  # the players left out are fewer, so x = 1 - z says who is left out
        constant = e1.sum() + e2.sum() / 2
        e1, size = -(e1 + e2.sum(1)), n - size
    i, j = np.triu_indices(n, 1)
    result = milp(
        -np.concatenate([e1, e2[i, j]]),
        constraints=_linearised(e2, size),
        integrality=np.repeat([1, 0], [n, len(i)]),
        bounds=Bounds(0, 1),
        options={"time_limit": seconds, "mip_rel_gap": 0},
    )
    mask = None
    if result.x is not None:
        mask = result.x[:n] > 0.5
        mask = ~mask if swap else mask
    bound = result.mip_dual_bound
    if bound is None or not np.isfinite(bound):
        return mask, float("inf")
    return mask, constant - bound + TOLERANCE


def _linearised(e2: np.ndarray, size: int) -> LinearConstraint:
    """Constraints of x (n,) and of one y per pair i < j, for which y = x_i x_j is best.

    y needs an upper bound where the pair raises the score, a lower one where it lowers it. That y
    summed over a player's pairs is (size - 1) x follows for 0 and 1, and tightens the bound.
    """
    n = len(e2)
    i, j = np.triu_indices(n, 1)
    player, pair = eye_array(n, format="csr"), eye_array(len(i), format="csr")
    first, second = player[i], player[j]  # (pairs, n): one 1 in each row
    raises, lowers = e2[i, j] > 0, e2[i, j] < 0
    blocks = [  # (coefficients of x, of y, lowest, highest)
        (csr_array(np.ones((1, n))), csr_array((1, len(i))), size, size),
        ((1 - size) * player, (first + second).T, 0, 0),
        (-first[raises], pair[raises], -np.inf, 0),  # y <= x_i
        (-second[raises], pair[raises], -np.inf, 0),  # y <= x_j
        (-(first + second)[lowers], pair[lowers], -1, np.inf),  # y >= x_i + x_j - 1
    ]
    x, y, lowest, highest = zip(*blocks, strict=True)
    rows = [block.shape[0] for block in x]
    return LinearConstraint(
        hstack([vstack(x), vstack(y)], format="csr"),
        np.repeat(np.array(lowest, float), rows),
        np.repeat(np.array(highest, float), rows),
    )


def _simple_bound(e1: np.ndarray, e2: np.ndarray, size: int) -> float:
    """Every player with the best partners it could have, half of each pair to each player."""
    others = np.sort(e2 - np.diag(np.full(len(e1), np.inf)), axis=1)[:, ::-1]  # (n, n), falling
    return float(np.sort(e1 + others[:, : size - 1].sum(1) / 2)[::-1][:size].sum())


def _check(explanation: Explanation) -> None:
    """Raise unless there are players."""
    if not explanation.n:
        raise ValueError("the explanation has no players, so there are no subsets of them")

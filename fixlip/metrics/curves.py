"""Insertion and deletion curves: the score as players are removed in the order of importance.

MIF removes what matters most first: the score should fall early. LIF removes what matters least
first: it should stay up. The area between the two curves is the AID; higher is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fixlip.checks import integer, number, one_of, warn
from fixlip.explanation import Explanation
from fixlip.explanation.subsets import Subsets, greedy
from fixlip.games.game import ask
from fixlip.metrics.faithfulness import common_players
from fixlip.sampler.masks import distinct_rows

POINTS = 51  # of the published curves
TIES, RULES, RANKINGS = ("block", "order"), ("trapezoid", "mean"), ("terms", "attributions")
GUARD = 1e-3


def masks_by_ranking(values: np.ndarray, *, ties: str = "block") -> tuple[np.ndarray, np.ndarray]:
    """Masks from full to empty that remove players in the order of one value per player.

    Returns MIF and LIF, (n + 1, n), bool, True = kept: row 0 is full, row n is empty.

    Parameters
    ----------
    values : numpy.ndarray, (n,)
        Importance, with its sign; players of both sides are ranked together.
    ties : {"block", "order"}
        "block" is the published rule: players of equal value go together, after as many steps as
        there are of them, so that one mask is repeated until then. "order" removes them one by
        one, the first player first.

    References
    ----------
    Baniecki et al., NeurIPS 2025, figure 3, and its code: step k of MIF keeps the players whose
    value is at most the k-th largest, step k of LIF those with at least the k-th smallest.

    Examples
    --------
    >>> mif, lif = masks_by_ranking(np.array([5.0, 0.0, 0.0]))
    >>> mif.astype(int).tolist()
    [[1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 0, 0]]
    >>> lif.astype(int).tolist()
    [[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"a ranking needs one finite value per player, (n,); got the shape {values.shape}"
            + (" with NaN or infinite values" if values.ndim == 1 and len(values) else "")
        )
    if one_of("ties", ties, TIES) == "block":
        rising = np.sort(values)
        mif, lif = values <= rising[::-1, None], values >= rising[:, None]  # (n, n)
    else:
        steps = np.arange(len(values))[:, None]
        places = (np.argsort(np.argsort(order, kind="stable")) for order in (-values, values))
        mif, lif = (place >= steps for place in places)  # (n, n): removed at a later step
    empty = np.zeros((1, len(values)), bool)
    return np.concatenate([mif, empty]), np.concatenate([lif, empty])


def masks_by_subsets(subsets: Subsets) -> tuple[np.ndarray, np.ndarray]:
    """Masks from full to empty made of the least and the most valued subset of every size.

    As `masks_by_ranking`; MIF keeps the subsets of the lowest score, LIF those of the highest. They
    need not be nested: a player that is gone may come back.

    References
    ----------
    Baniecki et al., NeurIPS 2025, figure 3: second-order methods.
    """
    empty = np.zeros((1, subsets.least.shape[1]), bool)
    mif, lif = (np.concatenate([kept[::-1], empty]) for kept in (subsets.least, subsets.most))
    return mif, lif


@dataclass(frozen=True, eq=False)
class Curves:
    """Two curves of a game from everything kept to nothing kept, at evenly spaced steps.

    Values of the game where the most (MIF), and the least (LIF), important players go first. Both
    begin with the value of the full mask and end with that of the empty one.

    Examples
    --------
    >>> curves = Curves(np.array([9.0, 3.0, 1.0]), np.array([9.0, 7.0, 1.0]))
    >>> curves.normalised().mif.tolist(), round(curves.aid(), 3), round(curves.aid("mean"), 3)
    ([1.0, 0.25, 0.0], 0.25, 0.167)
    """

    mif: np.ndarray  # (steps + 1,)
    lif: np.ndarray

    def __post_init__(self) -> None:
        mif, lif = np.asarray(self.mif, float), np.asarray(self.lif, float)
        if mif.ndim != 1 or mif.shape != lif.shape or len(mif) < 2:
            raise ValueError(
                "curves need two rows of values of the same length, at least the full and the "
                f"empty mask; got {mif.shape} and {lif.shape}"
            )
        ends = [[0], [-1]]
        if not np.allclose(mif[ends], lif[ends], rtol=1e-6, atol=1e-9, equal_nan=True):
            raise ValueError(
                "both curves begin with the full mask's value and end with the empty one's; MIF "
                f"goes from {mif[0]:g} to {mif[-1]:g} and LIF from {lif[0]:g} to {lif[-1]:g}"
            )
        object.__setattr__(self, "mif", mif)
        object.__setattr__(self, "lif", lif)

    @property
    def x(self) -> np.ndarray:
        """Share of the players that is removed, (steps + 1,): 0 to 1."""
        return np.arange(len(self.mif)) / (len(self.mif) - 1)

    def normalised(self, *, guard: float = GUARD) -> Curves:
        """The curves on the scale where the empty mask has 0 and the full one 1.

        Values may leave [0, 1]. Where the full mask has the *lower* value, the scale is upside down
        and the AID changes its sign, with a warning.

        Parameters
        ----------
        guard : float
            Smallest difference of the full and the empty mask's values to divide by, as a share of
            the range of the curves: below it there is no such scale, and the result is NaN, with a
            warning. The published code has none: 0.
        """
        number("guard", guard, at_least=0)
        full, empty = self.mif[0], self.mif[-1]
        reach = max(np.abs(curve - empty).max() for curve in (self.mif, self.lif))
        if not abs(full - empty) > guard * reach:
            warn(
                f"the full mask has the value {full:.6g} and the empty one {empty:.6g}, too close "
                "to divide by their difference: normalised curves and the AID are NaN"
            )
            nothing = np.full(len(self.mif), np.nan)
            return Curves(nothing, nothing)
        if full < empty:
            warn(
                f"the full mask has the value {full:.6g}, less than the empty one's {empty:.6g}: "
                "normalised curves and the AID change their signs"
            )
        return Curves(*((curve - empty) / (full - empty) for curve in (self.mif, self.lif)))

    def on_grid(self, points: int = POINTS) -> Curves:
        """The curves at evenly spaced steps, where those of pairs with other n can be averaged."""
        grid = np.linspace(0, 1, integer("points", points, at_least=2))
        return Curves(*(np.interp(grid, self.x, curve) for curve in (self.mif, self.lif)))

    def aid(self, rule: str = "trapezoid", *, guard: float = GUARD) -> float:
        """Area between insertion and deletion: normalised LIF minus MIF; higher is better.

        "trapezoid" is the published number, the area on a grid of 51 points; "mean" is what the
        published code stores beside it, the mean over the n + 1 masks. ``guard`` as in
        `normalised`.
        """
        one_of("rule", rule, RULES)
        curves = self.normalised(guard=guard)
        if rule == "mean":
            return float(np.mean(curves.lif - curves.mif))
        curves = curves.on_grid()
        return float(np.trapezoid(curves.lif - curves.mif, curves.x))


def insertion_deletion(
    game: Callable[[torch.Tensor], Any],
    explanations: Mapping[str, Explanation],
    *,
    ranking: str = "terms",
    ties: str = "block",
    starts: str | Sequence[int] | None = None,
) -> dict[str, Curves]:
    """Curves of several explanations of one game, which is evaluated once.

    Parameters
    ----------
    game : callable
        From masks (m, n), torch.bool, to values (m,), as `fixlip.Game`. It sees every distinct
        mask of all explanations once, in one call.
    explanations : mapping of str to Explanation
        All of the game's players.
    ranking : {"terms", "attributions"}
        "terms": an explanation without pair terms ranks the players by its first-order terms, any
        other one looks for the best and the worst subset of every size
        (`fixlip.explanation.subsets.greedy`).
        "attributions": all rank the players, those with pairs by `Explanation.attributions`: the
        baseline in the published code, which shows what the subsets add.
    ties : {"block", "order"}
        See `masks_by_ranking`.
    starts : "all", "published", sequence of int or None
        See `fixlip.explanation.subsets.greedy`.

    References
    ----------
    Baniecki et al., NeurIPS 2025, figure 3.

    Examples
    --------
    >>> e = Explanation(0.0, np.array([1.0, 3.0]), np.zeros((2, 2)), ("a", "b"), 1)
    >>> curves = insertion_deletion(e.value, {"itself": e})["itself"]
    >>> curves.mif.tolist(), curves.lif.tolist(), round(curves.aid(), 3)
    ([4.0, 1.0, 0.0], [4.0, 3.0, 0.0], 0.25)
    """
    one_of("ranking", ranking, RANKINGS)
    one_of("ties", ties, TIES)
    common_players(explanations, game)
    masks = []
    for explanation in explanations.values():
        if ranking == "terms" and explanation.e2.any():
            masks += masks_by_subsets(greedy(explanation, starts=starts))
        else:
            masks += masks_by_ranking(explanation.attributions(), ties=ties)
    rows = np.concatenate(masks)  # (2 * methods * (n + 1), n): MIF and LIF of each method
    first, group = distinct_rows(rows)
    values = ask(game, torch.from_numpy(rows[first])).numpy()[group]
    values = values.reshape(len(explanations), 2, -1)  # (methods, 2, n + 1)
    return {name: Curves(*pair) for name, pair in zip(explanations, values, strict=True)}

"""The result: a constant, a term per player and a term per pair, with views, files and exchange.

nu_hat(M) = e0 + sum over kept players of e1 + sum over kept pairs of e2. Image players come first,
row by row, then the text players. Numbers are float64 numpy arrays in units of the game.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fixlip.checks import boolean_masks, integer, number, numbers, one_of, per_side, plain, warn
from fixlip.explanation.terms import Terms, count_terms, flatten, unflatten
from fixlip.extras import need
from fixlip.files import read_arrays, user_path, write_arrays

if TYPE_CHECKING:
    import pandas as pd
    from shapiq import InteractionValues

FORMAT = "fixlip-explanation-2"
Player = int | str


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A second-order polynomial of the mask that approximates a game.

    Attributes
    ----------
    e0 : float
        Constant: the fitted value with everything removed (not the game's own: `empty_value`).
    e1, e2 : numpy.ndarray, (n,) and (n, n)
        First-order terms, and pair terms: symmetric, zero diagonal.
    players, n_image : tuple of str, int
        Names, those of the image first, and how many belong to the image.
    p : tuple of float
        Probability of being kept, for image and for text players.
    empty_value, grand_value : float
        The game itself with nothing and with everything kept.
    info : dict
        Everything that determined the numbers: both sides (model, caption, token ids, grid, masks,
        seed) and the fit (order, ridge, basis, scale, bias); JSON-able.
    picture : numpy.ndarray or None
        (H, W, 3), uint8: the image as the model saw it.
    deviations : numpy.ndarray or None
        (rows, 1 + n + n (n - 1) / 2), float32, or float64 where the numbers are too large or too
        small for that: a row is a change of e0, e1 and the pairs i < j, and a term's variance is
        the sum of its squares over the rows; (rows, 1 + n) where no pair has an error. A row for
        each group of the image's masks, then of the text's; then rows that simulate the bias of
        ridge penalties. Zero rows: nothing was drawn, errors are 0. None: errors were not
        estimated.
    """

    e0: float
    e1: np.ndarray
    e2: np.ndarray
    players: tuple[str, ...]
    n_image: int
    p: tuple[float, float] = (0.5, 0.5)
    empty_value: float = float("nan")
    grand_value: float = float("nan")
    info: dict[str, Any] = field(default_factory=dict)
    picture: np.ndarray | None = None
    deviations: np.ndarray | None = None

    def __post_init__(self) -> None:
        if isinstance(self.players, str) or not isinstance(self.players, Sequence | np.ndarray):
            raise TypeError(f"players must be a list of their names, got {self.players!r:.60}")
        if not isinstance(self.info, Mapping):
            raise TypeError(f"info must be a dict, got {self.info!r:.60}")
        seen = self.picture
        if seen is not None and (np.shape(seen)[2:] != (3,) or np.asarray(seen).dtype != np.uint8):
            raise ValueError(
                "picture must be an array of shape (height, width, 3) and type uint8, got "
                f"{np.shape(seen)} and {np.asarray(seen).dtype}"
            )
        n = len(self.players)
        e1, e2 = numbers("e1", self.e1), numbers("e2", self.e2)
        checked = {"e0": number("e0", float(numbers("e0", self.e0))), "e1": e1, "e2": e2}
        checked |= {"players": tuple(map(str, self.players))}
        checked |= {"n_image": integer("n_image", self.n_image, at_least=0)}
        for name in ("empty_value", "grand_value"):  # NaN: not known
            checked[name] = value = plain(getattr(self, name))
            if not isinstance(value, Real):
                raise ValueError(f"{name} must be a number, or NaN, got {value!r:.60}")
        both = per_side("p", self.p)
        try:
            p = tuple(number("p", q, at_least=0) for q in both)
        except ValueError:
            p = ()
        if not p or max(p) > 1:
            raise ValueError(f"p must be one or two probabilities (image, text), got {self.p!r}")
        for name, value in (checked | {"p": p}).items():
            object.__setattr__(self, name, value)
        if self.e1.shape != (n,) or self.e2.shape != (n, n) or not 0 <= self.n_image <= n:
            raise ValueError(
                f"{n} players need e1 of shape ({n},), e2 of ({n}, {n}) and n_image up to {n}; "
                f"got {self.e1.shape}, {self.e2.shape} and {self.n_image}"
            )
        rows = self.deviations
        if rows is not None and np.shape(rows)[1:] not in ((count_terms(n),), (1 + n,)):
            raise ValueError(
                f"deviations of {n} players have the shape (rows, {count_terms(n)}), or without "
                f"pairs (rows, {1 + n}), got {np.shape(rows)}"
            )
        if rows is not None:
            object.__setattr__(self, "deviations", _compact(rows))
        object.__setattr__(self, "info", copy.deepcopy(self.info))  # sides and pairs share parts
        uneven = np.abs(self.e2 - self.e2.T).max(initial=0) + np.abs(self.e2.diagonal()).sum()
        if not uneven <= 1e-6 * np.abs(self.e2).max(initial=0):  # also where it is NaN
            raise ValueError("e2 must be symmetric with a zero diagonal and no NaN: mend its pairs")

    @property
    def n(self) -> int:
        """Number of players."""
        return len(self.players)

    @property
    def n_text(self) -> int:
        """Number of text players."""
        return self.n - self.n_image

    @property
    def cross(self) -> np.ndarray:
        """Interactions of image players with text players, (n_I, n_T)."""
        return self.e2[: self.n_image, self.n_image :]

    @property
    def keep_probability(self) -> np.ndarray:
        """p of every player, (n,)."""
        return np.repeat(self.p, [self.n_image, self.n_text])

    def value(self, masks: torch.Tensor | np.ndarray) -> np.ndarray:
        """Evaluate the explanation on masks (m, n), True = kept: values (m,).

        Examples
        --------
        >>> first, pairs = np.array([2.0, 3.0]), np.array([[0, 5.0], [5.0, 0]])
        >>> e = Explanation(1.0, first, pairs, ("a", "b"), 1)
        >>> e.value(np.array([[False, False], [True, False], [True, True]])).tolist()
        [1.0, 3.0, 11.0]
        """
        z = self.checked(masks)
        return self.e0 + z @ self.e1 + ((z @ self.e2) * z).sum(1) / 2

    def checked(self, masks: torch.Tensor | np.ndarray) -> np.ndarray:
        """Masks (m, n), bool, as numbers 0 and 1; an error where they are not of this game."""
        return boolean_masks(masks, self.n).cpu().numpy().astype(float)

    def attributions(self) -> np.ndarray:
        """First-order attributions (n,): each term plus its pairs, weighted by their partner's p.

        Where the fit is exact these are the weighted Banzhaf values: the expected change of the
        game when the player joins the players that are kept with probability p.
        """
        return self.e1 + self.e2 @ self.keep_probability

    def first_order(self) -> Explanation:
        """The fit of order 1 to this explanation: the `attributions`, and no pair terms.

        The best one under the same p (for Shapley interactions: the one that agrees with this one
        for the empty mask). Error bars are carried over.

        Examples
        --------
        >>> e = Explanation(0.0, np.zeros(2), np.array([[0, 4.0], [4.0, 0]]), ("a", "b"), 1)
        >>> e.first_order().e1.tolist(), e.first_order().e0
        ([2.0, 2.0], -1.0)
        """
        p = self.keep_probability
        # z_i z_j is p_j z_i + p_i z_j - p_i p_j to first order
        fit = self.info.get("fit", {})
        constant = 0.0 if fit.get("index") == "shapley" else 0.5

        def reduced(terms: Terms) -> tuple[Any, ...]:
            shares = terms.e2 @ p  # (..., n)
            return terms.e0 - constant * (shares @ p), terms.e1 + shares

        e0, e1 = reduced(Terms(self.e0, self.e1, self.e2))
        rows = self.deviations
        if rows is not None:
            d0, d1 = reduced(unflatten(rows.astype(float), self.n))
            rows = flatten(d0, d1, None)
        info = self.info | {"fit": fit | {"order": 1}}
        return self.plain(e0=float(e0), e1=e1, e2=0 * self.e2, deviations=rows, info=info)

    def plain(self, **changes: Any) -> Explanation:
        """A copy of the class Explanation, with some fields changed."""
        same = {f.name: getattr(self, f.name) for f in fields(Explanation)}
        return Explanation(**same | changes)

    def given(self, player: Player | Sequence[Player]) -> np.ndarray:
        """Interactions of a player (or the sum over several) with the players of the other side.

        A word gives a map over the image players (n_I,), a patch gives scores of the words (n_T,).
        Names that stand for several players need the index instead.
        """
        index = self.indices(player)
        of_text = {i >= self.n_image for i in index}
        if len(of_text) != 1:
            raise ValueError(f"{player!r}: name one or more players, all of the same side")
        if of_text.pop():
            return self.cross[:, np.array(index) - self.n_image].sum(1)
        return self.cross[index].sum(0)

    def indices(self, player: Player | Sequence[Player]) -> list[int]:
        """Positions of one player, or of each of several different ones."""
        several = isinstance(player, Iterable) and not isinstance(player, str | bytes)
        several = several and getattr(player, "ndim", 1) > 0
        found = [self.index(one) for one in (player if several else [player])]
        if len(set(found)) < len(found):
            raise ValueError(f"{player!r} names a player twice: name different players")
        return found

    def index(self, player: Player) -> int:
        """Position of a player given by name or by (possibly negative) index."""
        player = plain(player)
        if isinstance(player, Integral) and not isinstance(player, bool):
            if not -self.n <= player < self.n:
                raise IndexError(f"there is no player {player}: there are {self.n}, from 0")
            return int(player) % self.n
        if not isinstance(player, str):
            raise TypeError(
                f"a player is given by its name or its position, got {player!r:.60}; of a mask, "
                "give np.flatnonzero(mask)"
            )
        found = [i for i, name in enumerate(self.players) if name == player]
        if not found:
            words = ", ".join(self.players[self.n_image :])
            raise KeyError(f"no player is called {player!r}; the text players are: {words}")
        if len(found) > 1:
            raise KeyError(f"{player!r} is the name of players {found}: give the index instead")
        return found[0]

    def on_grid(self, values: np.ndarray, side: str = "image") -> np.ndarray:
        """Spread values of the image players (n_I,) over the image's patches, (rows, columns)."""
        info = self.info.get(side, {})
        if "grid" not in info:
            raise ValueError(f"the {side} has no patch grid: {info.get('kind', 'unknown side')}")
        values, n = np.asarray(values), self.n_image if side == "image" else self.n_text
        if values.shape != (n,):
            raise ValueError(
                f"got values of shape {values.shape} for {n} {side} players: give one for each"
            )
        return values[np.array(info["owner"])].reshape(info["grid"])

    def strongest(self, count: int = 10, *, cross: bool = False) -> list[tuple[int, int, float]]:
        """The pairs with the largest |interaction|, strongest first: (player, player, e2)."""
        integer("count", count, at_least=0)
        i, j = np.triu_indices(self.n, 1)
        if cross:
            across = (i < self.n_image) & (j >= self.n_image)
            i, j = i[across], j[across]
        order = np.argsort(-np.abs(self.e2[i, j]), kind="stable")[:count]
        return [(int(i[o]), int(j[o]), float(self.e2[i[o], j[o]])) for o in order]

    def __repr__(self) -> str:
        side = self.info.get("image", self.info.get("text", {}))
        name = side.get("model", {}).get("name", "game")
        return (
            f"{type(self).__name__}({name}: {self.n_image} image + {self.n_text} text players, "
            f"p={self.p[0]:g}/{self.p[1]:g}, e0={self.e0:.4g}, value {self.empty_value:.4g} empty, "
            f"{self.grand_value:.4g} full)"
        )

    # --- error bars ------------------------------------------------------------------------

    @cached_property
    def stderr(self) -> Terms | None:
        """Standard errors of e0, e1 and e2; None where none were estimated.

        They count the masks drawn and a ridge penalty's expected bias: estimate ± 1.96 stderr
        covers 95 % of the terms (measured in notebooks/02_estimator_variance.ipynb).
        """
        if self.deviations is None:
            return None
        return unflatten(np.hypot.reduce(self.deviations.astype(float)), self.n)

    def stderr_of(self, quantity: Callable[[Explanation], np.ndarray | float]) -> np.ndarray:
        """Standard errors of a quantity made of the terms, such as ``Explanation.attributions``."""
        if self.deviations is None:
            raise ValueError("this explanation was made without error bars: solve(errors=True)")
        here = np.asarray(quantity(self), float)
        total = np.zeros_like(here)
        for row in range(len(self.deviations)):
            total = np.hypot(total, np.asarray(quantity(self.shifted(row)), float) - here)
        return total

    def shifted(self, row: int) -> Explanation:
        """The explanation with one row of ``deviations`` added to its terms."""
        d = unflatten(self.deviations[row].astype(float), self.n)
        return replace(self, e0=self.e0 + d.e0, e1=self.e1 + d.e1, e2=self.e2 + d.e2)

    # --- files -----------------------------------------------------------------------------

    def save(self, path: str | bytes | os.PathLike[str]) -> Path:
        """Write everything to one .safetensors file, whole or not at all; `load` reads it back."""
        name = ".".join([*type(self).__module__.split(".")[:2], type(self).__name__])
        about = {"format": FORMAT, "class": name, "players": self.players, "n_image": self.n_image}
        return write_arrays(path, self.arrays(), about | {"p": self.p, "info": self.info})

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file keeps beside the text."""
        scalars = np.array([self.e0, self.empty_value, self.grand_value])
        arrays = {"scalars": scalars, "e1": self.e1, "e2": self.e2}
        optional = {"picture": self.picture, "deviations": self.deviations}
        return arrays | {name: a for name, a in optional.items() if a is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Explanation:
        """Make an explanation of what `arrays` and the text of a file hold."""
        kept = {name: arrays.get(name) for name in ("e1", "e2", "picture", "deviations")}
        if kept["deviations"] is not None:
            numbers("deviations", kept["deviations"])
        kept |= zip(("e0", "empty_value", "grand_value"), arrays["scalars"].tolist(), strict=True)
        kept |= {"players": tuple(about["players"]), "p": tuple(about["p"])}
        return cls(**kept, n_image=about["n_image"], info=about["info"])

    @staticmethod
    def load(path: str | bytes | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote: of a product explanation, a `ProductExplanation`.

        Raises FileNotFoundError where there is no file, and ValueError for a truncated one or one
        that holds no explanation.
        """
        path = user_path(path)
        try:
            arrays, about = read_arrays(path)
            if about["format"] != FORMAT:
                raise ValueError(
                    f"its format is {about['format']!r}, and this version of fixlip reads "
                    f"{FORMAT!r}: read it with the version that wrote it"
                )
            room, _, name = about["class"].rpartition(".")
            if not room.startswith("fixlip."):
                raise ValueError(f"its class is {about['class']!r}")
            return getattr(importlib.import_module(room), name).from_arrays(arrays, about)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"{path} is not a whole explanation file: {error}; write it again with "
                "Explanation.save"
            ) from None

    # --- exchange --------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """The terms up to order 2 as a table, one row each (needs the optional package pandas).

        Returns a DataFrame with the columns ``order`` (0, 1, 2), ``sides`` ("", "image", "text",
        "image-text"), ``first`` and ``second`` (names of players, "" where there is none), ``i``
        and ``j`` (their positions, missing where there is none), ``estimate`` and ``stderr`` (its
        standard error, NaN where none was estimated). The constant comes first, then single
        players, then pairs.

        Examples
        --------
        >>> pairs = np.array([[0, 5.0], [5.0, 0]])
        >>> e = Explanation(1.0, np.array([2.0, 3.0]), pairs, ("a", "b"), 1)
        >>> print(e.to_frame()[["sides", "first", "second", "estimate"]].to_string(index=False))
             sides first second  estimate
                                      1.0
             image     a              2.0
              text     b              3.0
        image-text     a      b       5.0
        """
        need("to_frame", "studies")
        import pandas as pd

        n = self.n
        i, j = np.triu_indices(n, 1)
        nobody = np.full(n, n)  # its position is behind the players
        first, second = np.r_[n, :n, i], np.r_[n, nobody, j]  # in the order of `flatten`
        names = np.array([*self.players, ""], dtype=object)
        side = np.array(["image"] * self.n_image + ["text"] * self.n_text + [""], dtype=object)
        across = (first < self.n_image) & (second >= self.n_image) & (second < n)
        errors = np.full(count_terms(n), np.nan)
        if self.stderr is not None:
            errors = flatten(*map(np.asarray, self.stderr))
        return pd.DataFrame(
            {
                "order": (first < n).astype(int) + (second < n),
                "sides": np.where(across, "image-text", side[first]),
                "first": names[first],
                "second": names[second],
                "i": pd.Series(first).where(first < n).astype("Int64"),
                "j": pd.Series(second).where(second < n).astype("Int64"),
                "estimate": flatten(np.asarray(self.e0), self.e1, self.e2),
                "stderr": errors,
            }
        )

    def to_shapiq(self) -> InteractionValues:
        """The same terms as shapiq's InteractionValues (needs the optional package shapiq).

        Labelled "FSII" where the index is Shapley's, else "FBII": shapiq has no weighted Banzhaf
        index, so p is not exported. Nor are terms of third and fourth order.
        """
        need("to_shapiq", "peers")
        from shapiq import InteractionValues

        keys = [key for size in range(3) for key in itertools.combinations(range(self.n), size)]
        return InteractionValues(
            values=flatten(np.array(self.e0), self.e1, self.e2),
            index="FSII" if self.info.get("fit", {}).get("index") == "shapley" else "FBII",
            interaction_lookup={key: position for position, key in enumerate(keys)},
            estimated=True,
            baseline_value=self.e0,
            **{"n_players": self.n, "min_order": 0, "max_order": 2},
        )

    @staticmethod
    def from_shapiq(
        values: InteractionValues,
        *,
        n_image: int,
        players: Sequence[str] | None = None,
        p: tuple[float, float] = (0.5, 0.5),
        empty_value: float | None = None,
    ) -> Explanation:
        """Take over InteractionValues "FSII", "FBII", "FWBII", "Moebius" or "SV".

        Missing terms are 0.

        Parameters
        ----------
        values : shapiq.InteractionValues
            Of order 2 at most.
        n_image, players, p
            As the fields of an Explanation; by default players are numbers.
        empty_value : float, optional
            The game's value of the empty mask, where the terms were fitted to the game minus that
            value, as those in the result files of the FIxLIP experiments were: it is added to
            their constant.
        """
        one_of("the index", values.index, ("FSII", "FBII", "FWBII", "Moebius", "SV"))
        index = "shapley" if values.index in ("FSII", "SV") else "banzhaf"
        n = values.n_players
        terms = np.zeros(()), np.zeros(n), np.zeros((n, n))  # one array per order
        for key, position in values.interaction_lookup.items():
            if len(key) > 2:
                raise ValueError(f"order {len(key)} is too high: an Explanation has order 2")
            terms[len(key)][key] = values.values[position]
        e0, e1, e2 = terms
        if () not in values.interaction_lookup:
            e0 = values.baseline_value
        if values.index == "FWBII" and empty_value is None:
            warn(
                'the index "FWBII" is of result files of the FIxLIP experiments, which hold terms '
                "of the game minus its value of the empty mask: pass it as empty_value, else the "
                "constant, and with it every value, lacks it"
            )
        names = tuple(players) if players is not None else tuple(map(str, range(n)))
        about = {"fit": {"index": index}}
        known = {}
        if empty_value is not None:
            known = {"empty_value": number("empty_value", empty_value)}
            e0 = e0 + empty_value
        return Explanation(float(e0), e1, e2 + e2.T, names, n_image, p, info=about, **known)


def _compact(rows: Any) -> np.ndarray:
    """Finite numbers in float32, or in float64 where float32 would not hold them."""
    rows = np.asarray(rows)
    if rows.dtype == np.float32:
        return rows
    rows = numbers("deviations", rows)
    largest = np.abs(rows).max(initial=0)
    return rows.astype(np.float32) if not largest or 1e-30 < largest < 1e38 else rows

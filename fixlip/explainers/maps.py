"""What the explainers return: a factor per side, a pair of factors, or one number per player."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fixlip.explanation import Explanation, Player
from fixlip.sampler import pair_scale

if TYPE_CHECKING:
    from fixlip.encoders.sides import ImageSide, TextSide

NAN = float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class Factor:
    """One side's half of an interaction map: a vector per player, made once per image or caption.

    Attributes
    ----------
    vectors : numpy.ndarray, (n, D), float64
        The map of a pair is the inner products of both sides' vectors.
    players : tuple of str, length n
    kind : {"image", "text"}
    special : numpy.ndarray, (k, D), float64
        Vectors of the tokens that are no players: CLS; start, end and padding tokens.
    special_names : tuple of str, length k
    info : dict
        What the side says of itself, and ``method`` and ``options``; JSON-able.
    picture : numpy.ndarray or None
        (H, W, 3), uint8: the image as the model sees it.

    Raises
    ------
    ValueError
        Where shapes and names disagree, or a number is not finite.

    Examples
    --------
    >>> image = Factor([[1.0, 0], [0, 2]], ("sky", "dog"), "image")
    >>> text = Factor([[1.0, 1]], ("dog",), "text")
    >>> FactorPair(image, text).cross.tolist()
    [[1.0], [2.0]]
    """

    vectors: np.ndarray
    players: tuple[str, ...]
    kind: str
    special: np.ndarray | None = None
    special_names: tuple[str, ...] = ()
    info: dict[str, Any] = field(default_factory=dict)
    picture: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("image", "text"):
            raise ValueError(f'a factor is of kind "image" or "text", got {self.kind!r}')
        vectors = np.asarray(self.vectors, np.float64)
        if vectors.ndim != 2 or len(vectors) != len(self.players):
            raise ValueError(
                f"{len(self.players)} players need vectors of shape ({len(self.players)}, D), got "
                f"{vectors.shape}"
            )
        special = self.special if self.special is not None else vectors[:0]
        special = np.asarray(special, np.float64)
        if special.shape != (len(self.special_names), vectors.shape[1]):
            raise ValueError(
                f"{len(self.special_names)} special tokens need vectors of shape "
                f"({len(self.special_names)}, {vectors.shape[1]}), got {special.shape}"
            )
        _check_finite(vectors, special)
        for name, value in (
            ("vectors", vectors),
            ("players", tuple(self.players)),
            ("special", special),
            ("special_names", tuple(self.special_names)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def from_units(
        cls,
        side: ImageSide | TextSide,
        units: np.ndarray,
        *,
        method: str,
        options: Mapping[str, Any],
        special: np.ndarray | None = None,
        special_names: Sequence[str] = (),
    ) -> Factor:
        """Make a factor from a vector per patch or token: a player's is the sum over its units.

        Parameters
        ----------
        side : ImageSide or TextSide
        units : numpy.ndarray, (units, D)
            One row per patch, row by row, or per token of the caption.
        method : str
            The explainer; only factors of the same one pair.
        options : mapping
            Its options, JSON-able.
        special, special_names
            As in `Factor`.
        """
        units, owner = np.asarray(units, np.float64), side.players.owner
        if units.ndim != 2 or len(units) != len(owner):
            raise ValueError(
                f"the side has {len(owner)} patches or tokens and needs a vector for each, got "
                f"vectors of shape {units.shape}"
            )
        vectors = np.zeros((side.n, units.shape[1]))
        np.add.at(vectors, owner, units)  # (units, D) -> (n, D)
        return cls(
            vectors,
            side.names,
            side.info["kind"],
            special,
            tuple(special_names),
            {**side.info, "method": method, "options": dict(options)},
            getattr(side, "picture", None),
        )

    @property
    def n(self) -> int:
        """Number of players."""
        return len(self.players)

    def __repr__(self) -> str:
        n, width = self.vectors.shape
        return f"Factor({self.info.get('method', '?')}: {n} {self.kind} players, width {width})"


@dataclass(frozen=True, eq=False)
class FactorPair:
    """An interaction map: the inner products of two sides' vectors.

    Attributes
    ----------
    image, text : Factor
        Of the same method and the same model; two images or two captions pair as well.
    scale : float
        The map is ``scale * image.vectors @ text.vectors.T``.
    empty_value, grand_value : float
        The game itself with nothing and with everything kept, where known.

    Raises
    ------
    ValueError
        For factors of different models, methods or widths.
    """

    image: Factor
    text: Factor
    scale: float = 1.0
    empty_value: float = NAN
    grand_value: float = NAN

    def __post_init__(self) -> None:
        pair_scale(self.image.info, self.text.info)  # raises where the models differ
        methods = [factor.info.get("method") for factor in (self.image, self.text)]
        if methods[0] != methods[1]:
            raise ValueError(
                f"one factor was made by {methods[0]!r} and the other by {methods[1]!r}: make both "
                "with the same explainer"
            )
        widths = [factor.vectors.shape[1] for factor in (self.image, self.text)]
        if widths[0] != widths[1]:
            raise ValueError(
                f"the factors have vectors of width {widths[0]} and {widths[1]}: make both with "
                "the same explainer and encoder"
            )

    @property
    def cross(self) -> np.ndarray:
        """Interactions of image players with text players, (n_I, n_T)."""
        return self.scale * self.image.vectors @ self.text.vectors.T

    @property
    def full(self) -> np.ndarray:
        """The same with special tokens, which come first: (k_I + n_I, k_T + n_T)."""
        image, text = (np.concatenate([f.special, f.vectors]) for f in (self.image, self.text))
        return self.scale * image @ text.T

    def given(self, player: Player | Sequence[Player]) -> np.ndarray:
        """Map of a word or span of words (n_I,), or of a patch or patches (n_T,).

        As `fixlip.Explanation.given`: by name, or by index among all players, image first.
        """
        return self.to_explanation().given(player)

    def words_in(self, patches: np.ndarray) -> np.ndarray:
        """Scores of the text players (n_T,) for a part of the image.

        Parameters
        ----------
        patches : numpy.ndarray, (n_I,)
            Weight of each image player, as `fixlip.explainers.patches_in` gives it for a box.

        Examples
        --------
        >>> image = Factor([[1.0, 0], [0, 2]], ("sky", "dog"), "image")
        >>> text = Factor([[1.0, 1], [3, 0]], ("dog", "blue"), "text")
        >>> FactorPair(image, text).words_in(np.array([1, 0])).tolist()
        [1.0, 3.0]
        """
        patches = np.asarray(patches, np.float64)
        if patches.shape != (self.image.n,):
            raise ValueError(
                f"the image has {self.image.n} players and needs a weight for each (see "
                f"patches_in), got shape {patches.shape}"
            )
        return patches @ self.cross

    def first_order(self, variant: str = "mean") -> FirstOrderMap:
        """One number per player: its interactions with the other side, put together.

        Parameters
        ----------
        variant : {"mean", "sum"}
            The mean over the other side's players (the rule of the FIxLIP experiments for exCLIP),
            or their sum.
        """
        if variant not in ("mean", "sum"):
            raise ValueError(f'variant must be "mean" or "sum", got {variant!r}')
        cross = self.cross
        image, text = cross.sum(1), cross.sum(0)
        if variant == "mean":
            image, text = image / self.text.n, text / self.image.n
        return FirstOrderMap(
            image,
            text,
            self.image.players + self.text.players,
            self.image.n,
            self._info(order=1, variant=variant),
            self.image.picture,
            empty_value=self.empty_value,
            grand_value=self.grand_value,
        )

    def to_explanation(self) -> Explanation:
        """As an `Explanation` that has cross terms only: views, plots, files, evaluation."""
        n_I, n = self.image.n, self.image.n + self.text.n
        e2 = np.zeros((n, n))
        e2[:n_I, n_I:] = self.cross
        e2[n_I:, :n_I] = e2[:n_I, n_I:].T
        return Explanation(
            0.0,
            np.zeros(n),
            e2,
            self.image.players + self.text.players,
            n_I,
            empty_value=self.empty_value,
            grand_value=self.grand_value,
            info=self._info(order=2),
            picture=self.image.picture,
        )

    def _info(self, **fit: Any) -> dict[str, Any]:
        method = self.image.info.get("method")
        return {
            "image": self.image.info,
            "text": self.text.info,
            "fit": {"method": method, "scale": self.scale, **fit},
        }


@dataclass(frozen=True, eq=False, repr=False)
class FirstOrderMap:
    """One number per player.

    Attributes
    ----------
    image : numpy.ndarray, (n_I,), float64
    text : numpy.ndarray, (n_T,), float64
    players : tuple of str
        Names, image players first.
    n_image : int
    info : dict
        As in `fixlip.Explanation`: both sides, and the method under "fit".
    picture : numpy.ndarray or None
        (H, W, 3), uint8: the image as the model sees it.
    stderr : numpy.ndarray or None
        (n,): standard errors due to the masks drawn; None where none were estimated.
    empty_value, grand_value : float
        The game itself with nothing and with everything kept, where known.

    Raises
    ------
    ValueError
        Where shapes and names disagree, or a number is not finite.

    Examples
    --------
    >>> FirstOrderMap([1.0, 2.0], [3.0], ("sky", "dog", "dog"), 2).to_explanation().e1.tolist()
    [1.0, 2.0, 3.0]
    """

    image: np.ndarray
    text: np.ndarray
    players: tuple[str, ...]
    n_image: int
    info: dict[str, Any] = field(default_factory=dict)
    picture: np.ndarray | None = None
    stderr: np.ndarray | None = None
    empty_value: float = NAN
    grand_value: float = NAN

    def __post_init__(self) -> None:
        image, text = (np.asarray(part, np.float64) for part in (self.image, self.text))
        n, n_I = len(self.players), self.n_image
        if image.shape != (n_I,) or text.shape != (n - n_I,):
            raise ValueError(
                f"{n} players, {n_I} of the image, need values of shape ({n_I},) and ({n - n_I},), "
                f"got {image.shape} and {text.shape}"
            )
        if self.stderr is not None and np.shape(self.stderr) != (n,):
            raise ValueError(f"stderr must have shape ({n},), got {np.shape(self.stderr)}")
        _check_finite(image, text)
        for name, value in (("image", image), ("text", text), ("players", tuple(self.players))):
            object.__setattr__(self, name, value)

    @property
    def values(self) -> np.ndarray:
        """Both sides' values, image players first, (n,)."""
        return np.concatenate([self.image, self.text])

    def __repr__(self) -> str:
        method = self.info.get("fit", {}).get("method", "?")
        return f"FirstOrderMap({method}: {len(self.image)} image + {len(self.text)} text players)"

    def to_explanation(self) -> Explanation:
        """As an `Explanation` without pair terms; standard errors stay behind."""
        n = len(self.players)
        return Explanation(
            0.0,
            self.values,
            np.zeros((n, n)),
            self.players,
            self.n_image,
            empty_value=self.empty_value,
            grand_value=self.grand_value,
            info=self.info,
            picture=self.picture,
        )


def _check_finite(*arrays: np.ndarray) -> None:
    if bad := sum(int((~np.isfinite(array)).sum()) for array in arrays):
        raise ValueError(
            f"{bad} values of the map are NaN or infinite: check the input and the model's weights"
        )

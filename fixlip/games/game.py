"""The joint game: the model's score of a pair as a function of which players are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fixlip.checks import (
    MAX_ENUMERATED,
    boolean_masks,
    integer,
    ordinary,
    per_side,
    probability,
    visible,
    warn,
)
from fixlip.sampler import Side, bernoulli, enumerate_masks, side_seeds
from fixlip.sampler.masks import check_counts
from fixlip.sampler.sweep import check_side, embed_masks
from fixlip.solver import pair_scale

ROUNDED = 0.05  # of the values' range: a step of rounding that is warned about


class Game:
    """nu(M) = scale * <image embedding, text embedding> + bias, for joint masks M.

    Parameters
    ----------
    image_side, text_side : Side
        Both of the same model; any two sides will do (image and image, too).
    scale, bias : float, optional
        By default the model's own logit scale and bias where the sides name a model, else 1 and 0:
        with everything kept the value is then the model's own logit.

    Attributes
    ----------
    n, n_image : int
        All players, and how many of them (the first ones) belong to the image.
    names : tuple of str

    Examples
    --------
    >>> class Toy:
    ...     n, names = 2, ("a", "b")
    ...     def embed(self, masks): return masks.double()
    >>> Game(Toy(), Toy())(torch.tensor([[True, True, True, False]])).tolist()
    [1.0]
    """

    def __init__(
        self,
        image_side: Side,
        text_side: Side,
        *,
        scale: float | None = None,
        bias: float | None = None,
    ) -> None:
        self.image_side: Side = check_side(image_side)
        self.text_side: Side = check_side(text_side)
        self.n_image: int = image_side.n
        self.n: int = image_side.n + text_side.n
        self.names: Sequence[str] = (*image_side.names, *text_side.names)
        infos = [getattr(side, "info", None) or {} for side in (image_side, text_side)]
        self.scale: float
        self.bias: float
        self.scale, self.bias = pair_scale(*infos, scale=scale, bias=bias)

    def __call__(
        self, masks: torch.Tensor, *, batch_size: int | None = None, progress: bool | None = None
    ) -> torch.Tensor:
        """Values (m,), float64, of joint masks (m, n), bool: image players first, True = kept.

        Each side embeds every distinct mask of its own once.
        """
        masks = boolean_masks(masks, self.n)
        if not len(masks):
            return torch.zeros(0, dtype=torch.float64)
        image, text = (
            embed_masks(side, part, batch_size=batch_size, progress=progress).cpu().double()
            for side, part in (
                (self.image_side, masks[:, : self.n_image].contiguous()),
                (self.text_side, masks[:, self.n_image :].contiguous()),
            )
        )  # (m, D) each
        if image.shape[1] != text.shape[1]:
            raise ValueError(
                f"the sides have embeddings of width {image.shape[1]} and {text.shape[1]}: make "
                "both sides with the same encoder"
            )
        return self.scale * (image * text).sum(1) + self.bias


def joint_masks(
    n_image: int, n_text: int, m: int, *, p: float | tuple[float, float] = 0.5, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of both sides together, in which every player is kept independently; and their weights.

    Masks (m, n_I + n_T), bool, image players first, may repeat and have the weights 1/m, (m,),
    float64. Where m suffices for all masks, all are listed with their probabilities.

    Parameters
    ----------
    n_image, n_text, m : int
        Players of the two sides, and masks.
    p, seed : float or (float, float), int
        Probability of keeping a player, one for both sides or image and text; one seed, one set of
        masks.

    Examples
    --------
    >>> masks, weights = joint_masks(1, 1, 4, p=(0.5, 0.75))
    >>> masks.int().tolist(), weights.tolist()
    ([[0, 0], [1, 0], [0, 1], [1, 1]], [0.125, 0.125, 0.375, 0.375])
    """
    n, keep = n_image + n_text, [probability(q) for q in per_side("p", p)]
    check_counts(n, m)
    if n <= MAX_ENUMERATED and m >= 2**n:
        masks = enumerate_masks(n).masks
        q = np.repeat(keep, [n_image, n_text])  # (n,)
        return masks, torch.from_numpy(np.where(masks.numpy(), q, 1 - q).prod(1))
    sides = zip((n_image, n_text), keep, side_seeds(seed), strict=True)
    drawn = [bernoulli(k, m, p=q, seed=s, antithetic=False).masks for k, q, s in sides if k]
    return torch.cat(drawn, 1), torch.full((m,), 1 / m, dtype=torch.float64)


def count_players(game: Callable[[torch.Tensor], Any], n: int | None = None) -> int:
    """Number of players: as given, else as the game says itself in ``game.n``."""
    own = getattr(game, "n", None)
    if n is None and own is None:
        raise ValueError("the game does not say how many players it has: give n=...")
    if n is not None and own is not None and n != own:
        raise ValueError(f"the game has {own} players, and n={n} was given: leave n out")
    return integer("the number of players", own if n is None else n)


def ask(game: Callable[[torch.Tensor], Any], masks: torch.Tensor) -> torch.Tensor:
    """Values (m,), float64, of any function of masks (m, n), in one call, after checking them."""
    values = visible("the game's values", game(masks))
    if not isinstance(values, torch.Tensor):
        array = np.array(values)  # a copy: torch warns of arrays that cannot be written
        array = array.astype(float) if array.dtype == np.longdouble else array
        values = torch.from_numpy(array) if array.dtype.kind in "biuf" else values
    if not isinstance(values, torch.Tensor) or values.is_complex():
        raise TypeError(
            f"the game returned {type(values).__name__}: it must return one real number per mask, "
            "as a torch tensor or a numpy array (masks,)"
        )
    if values.shape != masks.shape[:1]:
        raise ValueError(
            f"the game was given {len(masks)} masks and returned values of the shape "
            f"{tuple(values.shape)}: it must return one number per mask, ({len(masks)},)"
        )
    exact = values.detach().cpu()
    values = exact.double()
    if bad := int((~torch.isfinite(values)).sum()):
        raise ValueError(
            f"the game gave NaN or infinite values for {bad} of {len(masks)} masks: every mask, "
            "the empty one included, needs a finite value"
        )
    largest = ordinary("the game's largest value", float(values.abs().max()))
    kind = exact.dtype if exact.is_floating_point() else torch.float64
    step, spread = torch.finfo(kind).eps * largest, exact.max().item() - exact.min().item()
    if spread and step > ROUNDED * spread:
        warn(
            f"the game's values are rounded to {step:.2g} and differ by {spread:.2g} at most: take "
            "off what they have in common before they are rounded; error bars do not count this"
        )
    return values

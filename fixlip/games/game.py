"""The joint game: the model's score of a pair as a function of which players are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fixlip.checks import boolean_masks
from fixlip.sampler import Side, pair_scale
from fixlip.sampler.sweep import embed_masks


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
        self.image_side, self.text_side = image_side, text_side
        self.n_image = image_side.n
        self.n = image_side.n + text_side.n
        self.names: Sequence[str] = (*image_side.names, *text_side.names)
        infos = [getattr(side, "info", {}) for side in (image_side, text_side)]
        self.scale, self.bias = pair_scale(*infos, scale=scale, bias=bias)

    def __call__(
        self,
        masks: torch.Tensor,
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> torch.Tensor:
        """Values (m,), float64, of joint masks (m, n), bool: image players first, True = kept.

        Each side embeds every distinct mask of its own once.
        """
        boolean_masks(masks, self.n)
        image, text = (
            embed_masks(side, part, batch_size=batch_size, progress=progress).cpu().double()
            for side, part in (
                (self.image_side, masks[:, : self.n_image].contiguous()),
                (self.text_side, masks[:, self.n_image :].contiguous()),
            )
        )  # (m, D) each
        return self.scale * (image * text).sum(1) + self.bias


def count_players(game: Callable, n: int | None = None) -> int:
    """Number of players: as given, else as the game says itself in ``game.n``."""
    own = getattr(game, "n", None)
    if n is None and own is None:
        raise ValueError("the game does not say how many players it has: give n=...")
    if n is not None and own is not None and n != own:
        raise ValueError(f"the game has {own} players, and n={n} was given: leave n out")
    return int(own if n is None else n)


def ask(game: Callable, masks: torch.Tensor) -> torch.Tensor:
    """Values (m,), float64, of any function of masks (m, n), in one call.

    Raises
    ------
    TypeError, ValueError
        Where the function returns anything but one finite number per mask.
    """
    values = game(masks)
    try:
        values = torch.as_tensor(np.asarray(values) if isinstance(values, list) else values)
        numeric = not values.is_complex()
    except (TypeError, ValueError, RuntimeError):
        numeric = False
    if not numeric:
        raise TypeError(
            f"the game returned {type(values).__name__}: it must return one real number per mask, "
            "as a torch tensor or a numpy array (masks,)"
        )
    if values.shape != masks.shape[:1]:
        raise ValueError(
            f"the game was given {len(masks)} masks and returned values of the shape "
            f"{tuple(values.shape)}: it must return one number per mask, ({len(masks)},)"
        )
    values = values.detach().to("cpu", torch.float64)
    if bad := int((~torch.isfinite(values)).sum()):
        raise ValueError(
            f"the game gave NaN or infinite values for {bad} of {len(masks)} masks: every mask, "
            "the empty one included, needs a finite value"
        )
    return values

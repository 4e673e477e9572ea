"""One side's half of an explanation, and the one place where two halves are paired.

Letters: E the image's embedding, F the text's; the game's value for the masks z and y is
<E(z), F(y)>. Of each side a fit gives the players' vectors J (n, D), what each adds to the
embedding on average; the mean (D,), and the origin (D,), the value at z = 0 of mean + J'(z - zbar);
and, linear in a vector v, its own polynomial of <E(z), v>. The explanation is the image's own
polynomial for v = the text's mean, plus the text's for v = the image's, minus <mean_I, mean_T>,
plus the cross terms (z - zbar)' J_I J_T' (y - ybar), expanded into monomials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fixlip.checks import instance, number, one_of, ordinary
from fixlip.explanation import Explanation
from fixlip.solver.errors import SideErrors, blocks, deviations
from fixlip.solver.polynomial import Polynomial


@dataclass(frozen=True, eq=False, repr=False)
class Factor:
    """One side's half: vectors whose inner products with the other side's are the cross terms.

    Attributes
    ----------
    first : torch.Tensor, (n, D), float64
        A vector per player; an array or a list is taken as well.
    names : tuple of str, length n
        The players.
    kind : {"image", "text"}
    method : str
        Only factors of one method pair.
    options, info : dict
        How it was made, and what the side says of itself (model, caption, grid, ...); JSON-able.
    picture : numpy.ndarray or None
        (H, W, 3), uint8: the image as the model sees it.
    special : torch.Tensor, (k, D)
        Vectors of what takes part without being a player: CLS; start, end and padding tokens.
    special_names : tuple of str, length k
    p : float
        Probability with which a player is kept, where the method has one.
    ends : torch.Tensor or None
        (2, D): the side's embedding with every player removed, and with every player kept.
    mean, origin : torch.Tensor or None
        (D,): the mean embedding, and the value at z = 0 of its first-order fit. None for methods
        that explain cross terms only.
    own : callable or None
        From vectors v (D, k) to the side's own polynomial of <E(z), v>: constants (k,), first-order
        terms (n, k), pairs (n, n, k).
    errors : SideErrors or None
        What error bars are made of.

    Examples
    --------
    >>> image = Factor([[1.0, 0], [0, 2]], ("sky", "dog"), "image")
    >>> text = Factor([[1.0, 1]], ("dog",), "text")
    >>> pair(image, text).cross.tolist()
    [[1.0], [2.0]]
    """

    first: torch.Tensor
    names: tuple[str, ...]
    kind: str
    method: str = "vectors"
    options: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    picture: np.ndarray | None = None
    special: torch.Tensor | None = None
    special_names: tuple[str, ...] = ()
    p: float = 0.5
    ends: torch.Tensor | None = None
    mean: torch.Tensor | None = None
    origin: torch.Tensor | None = None
    own: Callable[[torch.Tensor], Polynomial] | None = None
    errors: SideErrors | None = None

    def __post_init__(self) -> None:
        one_of("kind", self.kind, ("image", "text"))
        names, special_names = tuple(map(str, self.names)), tuple(self.special_names)
        first = _vectors("players", len(names), self.first)
        special = first[:0] if self.special is None else self.special
        special = _vectors("special tokens", len(special_names), special, first.shape[1])
        checked = {"names": names, "special_names": special_names}
        for name, value in (checked | {"first": first, "special": special}).items():
            object.__setattr__(self, name, value)

    @property
    def n(self) -> int:
        """Number of players."""
        return len(self.names)

    def with_special(self) -> Factor:
        """The vectors alone, with the special tokens as players before the others.

        For exCLIP's completeness: ``pair(a.with_special(), b.with_special()).cross``.
        """
        info = {k: v for k, v in self.info.items() if k not in ("grid", "owner")}
        every = torch.cat([self.special, self.first])  # (k + n, D)
        names = self.special_names + self.names
        return Factor(every, names, self.kind, self.method, self.options, info, ends=self.ends)

    def __repr__(self) -> str:
        return f"Factor({self.method}: {self.n} {self.kind} players, width {self.first.shape[1]})"


def pair(
    image: Factor,
    text: Factor,
    *,
    order: int = 2,
    scale: float | None = None,
    bias: float | None = None,
    errors: bool = True,
) -> Explanation:
    """Pair two sides: image and caption, or any two of one model.

    The first side's players come first. Explainers of cross terms only leave e0 and e1 zero.

    Raises ValueError for factors of different models, methods or widths.

    Parameters
    ----------
    image, text : Factor
        Of the same model and the same method, `fixlip.fit` or one of `fixlip.explainers`. Give two
        sweeps different seeds, also of an image that is paired with itself: both samples count as
        independent.
    order : {1, 2}
        1: no cross terms; then both sides must be fitted with order=1. 2: cross terms too.
    scale, bias : float, optional
        The game is scale * <E, F> + bias. By default the model's own logit scale and bias (1 and 0
        for sides that name no model); scale=1, bias=0 explain the cosine.
    errors : bool
        Also find the terms' standard errors, where both factors carry what they need.
    """
    scale, bias = _check(image, text, order, scale, bias)
    rows = None
    if image.own is None or text.own is None:
        none_I, none_T = (f.first.new_zeros(f.n, f.n) for f in (image, text))
        e0, e1 = 0.0, image.first.new_zeros(image.n + text.n)
        e2 = blocks(none_I, image.first @ text.first.T, none_T)
    else:
        e0, e1, e2 = _terms(image, text, cross=order != 1)
        e0 = scale * e0 + bias
        if errors and image.errors is not None and text.errors is not None:
            rows = scale * deviations(image, text, cross=order != 1)
    ends = [float("nan")] * 2
    if image.ends is not None and text.ends is not None:
        one, two = (side.ends.cpu().double() for side in (image, text))  # (2, D)
        ends = (scale * (one * two).sum(1) + bias).tolist()
    fit = {"method": image.method, **_options(image, text, order), "scale": scale, "bias": bias}
    return Explanation(
        e0=float(e0),
        e1=(scale * e1).cpu().numpy(),
        e2=(scale * e2).cpu().numpy(),
        players=image.names + text.names,
        n_image=image.n,
        p=(image.p, text.p),
        empty_value=ends[0],
        grand_value=ends[1],
        info={"image": image.info, "text": text.info, "fit": fit},
        picture=image.picture,
        deviations=None if rows is None else rows.cpu().numpy(),
    )


def pair_scale(
    image_info: dict[str, Any],
    text_info: dict[str, Any],
    *,
    scale: float | None = None,
    bias: float | None = None,
) -> tuple[float, float]:
    """Scale and bias of the game of two sides; an error where different models made them."""
    models = [info.get("model", {}) for info in (image_info, text_info)]
    models = [m if isinstance(m, dict) else {"name": str(m), "fingerprint": str(m)} for m in models]
    prints = [model.get("fingerprint") for model in models]
    if prints[0] != prints[1]:
        names = [model.get("name", "an unnamed model") for model in models]
        raise ValueError(
            f"one side belongs to {names[0]} (weights {prints[0]}) and the other to {names[1]} "
            f"(weights {prints[1]}): make both sides with the same encoder"
        )
    scale = models[0].get("logit_scale", 1.0) if scale is None else scale
    bias = models[0].get("logit_bias", 0.0) if bias is None else bias
    scale, bias = number("scale", scale), number("bias", bias)
    if not ordinary("the scale", abs(scale)):
        raise ValueError("with scale=0 every score is the bias: there is nothing to explain")
    return scale, bias


def _terms(image: Factor, text: Factor, *, cross: bool) -> tuple[torch.Tensor, ...]:
    """Constant, first-order terms (n,) and pairs (n, n) of the joint fit, read off as monomials."""
    g0, g1, g2 = (term[..., 0] for term in image.own(text.mean[:, None]))
    h0, h1, h2 = (term[..., 0] for term in text.own(image.mean[:, None]))
    e0, e1 = g0 + h0 - image.mean @ text.mean, torch.cat([g1, h1])
    if not cross:
        return e0, e1, torch.block_diag(g2, h2)
    # zbar' J_I and ybar' J_T: centring moves these into the constant and the first order
    centre_I, centre_T = image.mean - image.origin, text.mean - text.origin
    e0 = e0 + centre_I @ centre_T
    e1 = e1 - torch.cat([image.first @ centre_T, text.first @ centre_I])
    return e0, e1, blocks(g2, image.first @ text.first.T, h2)


def _check(
    image: Factor, text: Factor, order: int, scale: float | None, bias: float | None
) -> tuple[float, float]:
    """Scale and bias of the game of two factors; an error where they do not fit together."""
    one_of("order", order, (1, 2))
    for factor in (image, text):
        instance(factor, Factor, "fixlip.fit(sweep) and the explainers make factors")
    if order == 1 and {image.options.get("order"), text.options.get("order")} != {1}:
        raise ValueError("order=1 pairs sides that were fitted with order=1: fit(..., order=1)")
    found = pair_scale(image.info, text.info, scale=scale, bias=bias)
    made = [(factor.method, factor.first.shape[1]) for factor in (image, text)]
    if made[0] != made[1]:
        one, other = (f"made by {method!r}, of width {width}" for method, width in made)
        raise ValueError(
            f"one factor was {one}, and the other {other}: use one model and explainer"
        )
    return found


def _options(image: Factor, text: Factor, order: int) -> dict[str, Any]:
    """The options of a pair; where the sides were made with different ones, both."""
    pairs = {k: (image.options.get(k), text.options.get(k)) for k in image.options | text.options}
    found = {k: a if a == b else {"image": a, "text": b} for k, (a, b) in pairs.items()}
    crossed = order == 2 and found.get("order") == 1  # only the pairing made terms of order 2
    return found | {"order": 2, "basis": "cross"} if crossed else found


def _vectors(what: str, count: int, given: object, width: int | None = None) -> torch.Tensor:
    """Vectors (count, width) in float64, after checking them."""
    found = torch.as_tensor(given)
    if found.ndim != 2 or len(found) != count or width not in (None, found.shape[1]):
        wanted = f"({count}, {'D' if width is None else width})"
        raise ValueError(f"{count} {what} need vectors of shape {wanted}, got {tuple(found.shape)}")
    if bad := int((~torch.isfinite(found)).sum()):
        raise ValueError(f"{bad} numbers of a factor are NaN or infinite: check input and weights")
    return (found.cpu() if found.device.type == "mps" else found).double()  # MPS has no float64

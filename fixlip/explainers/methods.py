"""All methods that the two papers compare, on one pair, each as its paper runs it; work is shared.

Every explainer also stands by itself in `fixlip.explainers`. Here they meet: one call gives an
`Explanation` per method, all for the same game and in its units, which `fixlip.metrics` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from fixlip.checks import per_side
from fixlip.explainers import exclip, generic_attention, grad_eclip, icam, itsm, lime
from fixlip.explainers.maps import Factor, FactorPair
from fixlip.explainers.values import SOURCES
from fixlip.explanation import Explanation
from fixlip.games.estimate import estimate
from fixlip.games.game import Game
from fixlip.sampler import Sweep, pair_scale, side_seeds, sweep
from fixlip.solver import solve

if TYPE_CHECKING:
    from fixlip.encoders.sides import ImageSide, TextSide

FIRST_ORDER = ("GAME", "Grad-ECLIP", "Shapley values", "Banzhaf values")
METHODS = (
    *FIRST_ORDER,
    "ITSM-O",
    "ITSM-H",
    "InteractionCAM",
    "InteractionLIME",
    "exCLIP",
    "exCLIP, layer 0",
    "Shapley interactions",
    "FIxLIP",
)

Halves = dict[tuple, Sweep | Factor]


def explain_all(
    image_side: ImageSide,
    text_side: TextSide,
    *,
    methods: Sequence[str] = METHODS,
    p: float | Sequence[float] = (0.3, 0.5, 0.7),
    masks: int | tuple[int, int] = (2048, 1024),
    joint: int = 2**13,
    samples: int = 1000,
    steps: int = 50,
    source: str = "order 1",
    seed: int = 0,
    halves: Halves | None = None,
) -> dict[str, Explanation]:
    """Explain one pair by many methods.

    All explain the game that the sides define, so none is judged by another's game (the published
    experiments explain and judge FIxLIP on one implementation of CLIP and the other methods on
    another, with another way to hide a word).

    Parameters
    ----------
    image_side, text_side : ImageSide and TextSide
        Of the same encoder.
    methods : sequence of str
        Of METHODS. "exCLIP, layer 0" is exCLIP on the embedded patches and tokens by the midpoint
        rule in a fifth of the steps; the other names are as published.
    p : float or sequence of float
        Of FIxLIP, each giving one explanation: "FIxLIP p=0.3" and so on. Banzhaf values have .5.
    masks : int or (int, int)
        Masks of the image and of the caption, for FIxLIP and Banzhaf values.
    joint : int
        Joint masks for Shapley values and interactions, which do not split (published: 2**17).
    samples : int
        Of InteractionLIME.
    steps : int
        Of exCLIP (published: 50; in the FIxLIP experiments 20).
    source : {"order 1", "order 2"}
        First-order values by a fit of their own, as in the published insertion, deletion and
        faithfulness, or from the interactions of order 2, as in the published pointing game.
    seed : int
        The same seed gives the same explanations.
    halves : dict, optional
        Where the work on single sides is kept: calls with the same dictionary and other options
        unchanged do not repeat it for a side they have seen, one image with many captions.

    Returns
    -------
    dict of str to Explanation
        In the order of METHODS, in units of the game where the method has units. No error bars.

    Raises
    ------
    ValueError
        For unknown methods, and as the methods do for towers they are not defined for.

    Examples
    --------
    >>> import fixlip, numpy as np
    >>> encoder = fixlip.load("demo-clip", device="cpu")
    >>> sides = encoder.image(np.zeros((48, 48, 3), np.uint8)), encoder.text("a red star")
    >>> list(explain_all(*sides, methods=("FIxLIP", "GAME"), p=0.5, masks=64))
    ['GAME', 'FIxLIP p=0.5']
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"unknown methods {unknown}: the methods are {', '.join(METHODS)}")
    if source not in SOURCES:
        raise ValueError(f'source must be "order 1" or "order 2", got {source!r}')
    weights = (p,) if isinstance(p, int | float) else tuple(p)
    sides = image_side, text_side
    scale, bias = pair_scale(*(getattr(side, "info", {}) for side in sides))
    asked = _Asked(*sides, scale=scale, bias=bias)
    kept: Halves = {} if halves is None else halves

    def both(key: tuple, make: Callable[[int], Sweep | Factor]) -> list:
        """What `make` gives for the image (0) and for the text (1), made once per side."""
        found = []
        for k, side in enumerate(sides):
            where = (side, k, *key)  # the side itself, so that it stays alive
            if where not in kept:
                kept[where] = make(k)
            found.append(kept[where])
        return found

    @cache  # with source="order 2" two methods ask for the same fit
    def interactions(q: float, order: int = 2) -> Explanation:
        counts, seeds = per_side("masks", masks), side_seeds(seed)
        swept = both(
            ("sweep", q, counts, seed),
            lambda k: sweep(sides[k], masks=counts[k], p=q, seed=seeds[k]),
        )
        return solve(*swept, order=order, errors=False)

    @cache
    def shapley(order: int) -> Explanation:
        return estimate(asked, index="shapley", masks=joint, order=order, seed=seed)

    def pair(module: ModuleType, **options: object) -> Explanation:
        key = (module.__name__, *options.items())
        return FactorPair(
            *both(key, lambda k: module.factor(sides[k], **options)), scale
        ).to_explanation()

    calls: dict[str, Callable[[], Explanation]] = {
        "GAME": lambda: generic_attention.explain(*sides).to_explanation(),
        "Grad-ECLIP": lambda: grad_eclip.explain(*sides).to_explanation(),
        "Shapley values": lambda: _values(shapley(SOURCES[source])),
        "Banzhaf values": lambda: _values(interactions(0.5, SOURCES[source])),
        "ITSM-O": lambda: pair(itsm, variant="output"),
        "ITSM-H": lambda: pair(itsm, variant="hidden"),
        "InteractionCAM": lambda: pair(icam),
        "InteractionLIME": lambda: lime.explain(
            *sides, samples=samples, seed=seed, scale=scale
        ).to_explanation(),
        "exCLIP": lambda: pair(exclip, steps=steps),
        "exCLIP, layer 0": lambda: pair(exclip, steps=max(steps // 5, 1), layer=0, rule="midpoint"),
        "Shapley interactions": lambda: shapley(2),
        **{f"FIxLIP p={q:g}": partial(interactions, q) for q in weights},
    }
    return {name: call() for name, call in calls.items() if name.split(" p=")[0] in methods}


def _values(explanation: Explanation) -> Explanation:
    """The first-order attributions of an explanation, as one without pairs."""
    e0, q = explanation.e0, explanation.keep_probability
    if explanation.info["fit"].get("index") != "shapley":  # that one stays exact where all is gone
        e0 -= float(q @ explanation.e2 @ q) / 2  # z_i z_j is p z_i + p z_j - p^2 to first order
    return replace(
        explanation, e0=e0, e1=explanation.attributions(), e2=0 * explanation.e2, deviations=None
    )


class _Asked(Game):
    """The joint game; it remembers its last answer, as two methods ask for the same masks."""

    _last: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, masks: torch.Tensor, **options: object) -> torch.Tensor:
        if self._last is None or not torch.equal(self._last[0], masks):
            self._last = masks, super().__call__(masks, **options)
        return self._last[1]

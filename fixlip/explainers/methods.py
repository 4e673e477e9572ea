"""All methods that the two papers compare, on one pair; work is shared.

All explain the game of the two sides, so that `fixlip.metrics` can compare them; GAME and
Grad-ECLIP are maps of gradients, in units of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from fixlip import renamed
from fixlip.checks import one_of, per_side
from fixlip.explainers import exclip, generic_attention, grad_eclip, icam, itsm, lime
from fixlip.explanation import Explanation
from fixlip.games.estimate import estimate
from fixlip.games.game import Game
from fixlip.sampler import SAMPLINGS, Sweep, side_seeds, sweep
from fixlip.solver import Factor, pair, solve
from fixlip.solver.solve import check_options

if TYPE_CHECKING:
    from fixlip.encoders.sides import ImageSide, TextSide

SOURCES = {"order 1": 1, "order 2": 2}
FIRST_ORDER = ("GAME", "Grad-ECLIP", "Shapley values", "Banzhaf values")
METHODS = (*FIRST_ORDER, "ITSM-O", "ITSM-H", "InteractionCAM", "InteractionLIME")
METHODS += ("exCLIP", "exCLIP, layer 0", "Shapley interactions", "FIxLIP")

# How the FIxLIP experiments sample and fit, and how they run exCLIP; for `explain_all`. Their games
# and what depends on the pair are in `fixlip.explainers.presets`.
PUBLISHED: dict[str, Any] = {
    "sampling": "distinct-reference",
    "ridge": 0,
    "variant": "fixlip",
    "steps": 20,
}

Cache = dict[tuple[Any, ...], Sweep | Factor]


@renamed.keywords(halves="cache")
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
    variant: str = "tmlr",
    sampling: str = "antithetic",
    ridge: float | str = "auto",
    basis: str = "full",
    k: int = 72,
    source: str = "order 1",
    seed: int = 0,
    cache: Cache | None = None,
) -> dict[str, Explanation]:
    """Explain one pair by many methods.

    All explain the game that the sides define, so none is judged by another's game (the published
    experiments explain and judge FIxLIP on one implementation of CLIP and the other methods on
    another, with another way to hide a word). In the order of METHODS; only Shapley values and
    interactions have error bars. Raises ValueError for unknown methods, and as the methods do for
    towers they are not defined for.

    Parameters
    ----------
    image_side, text_side : ImageSide and TextSide
        Of the same encoder.
    methods : sequence of str
        Of METHODS. "exCLIP, layer 0" is exCLIP on the embedded patches and tokens by the midpoint
        rule in a fifth of the steps, which is ours; the other names are the papers'.
    p : float or sequence of float
        Of FIxLIP, each giving one explanation: "FIxLIP p=0.3" and so on. Banzhaf values have .5.
    masks, joint : int or (int, int), int
        Masks of the image and of the caption, for FIxLIP and Banzhaf values; joint masks for
        Shapley values and interactions, which do not split (published: 2**17, and 2**19 in the
        pointing game).
    samples : int
        Of InteractionLIME.
    steps, variant : int, str
        Of exCLIP; see `fixlip.explainers.exclip.factor`.
    sampling, ridge, basis, k
        Of FIxLIP, of Banzhaf and Shapley values and of Shapley interactions; see `fixlip.solve` and
        `fixlip.sampler.draw`. Of the samplings, Shapley takes "distinct" and "distinct-reference",
        and "distinct" in place of any other.
    source : {"order 1", "order 2"}
        First-order values by a fit of their own, as in the published insertion, deletion and
        faithfulness for CLIP, or from the interactions of order 2, as in the published pointing
        game.
    seed, cache : int, dict
        The same seed gives the same explanations. The work on single sides is stored in the cache:
        calls with the same one and other options unchanged do not repeat it for a side they have
        seen, for instance one image with many captions.

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
    one_of("source", source, SOURCES)
    one_of("sampling", sampling, SAMPLINGS)
    check_options(2, ridge, basis, k)
    cache = {} if cache is None else cache
    budgets = per_side("masks", masks), joint, samples
    path, fit = {"steps": steps, "variant": variant}, {"ridge": ridge, "basis": basis, "k": k}
    task = _Task(
        (image_side, text_side), *budgets, path, sampling, fit, SOURCES[source], seed, cache
    )
    found = {name: run(task) for name, run in _RUNS.items() if name in methods}
    if "FIxLIP" in methods:
        weights = (p,) if isinstance(p, int | float) else tuple(p)
        found |= {f"FIxLIP p={q:g}": task.interactions(q) for q in weights}
    return found


@dataclass
class _Task:
    """One pair to explain, the budgets, and the work that several methods share."""

    sides: tuple[ImageSide, TextSide]
    counts: tuple[int, int]
    joint: int
    samples: int
    path: dict[str, Any]  # exCLIP's steps and variant
    sampling: str
    fit: dict[str, Any]  # ridge, basis, k
    order: int
    seed: int
    cache: Cache

    def __post_init__(self) -> None:
        self.game = _RememberingGame(*self.sides)
        self._found: dict[tuple, Explanation] = {}  # with order 2, two methods want the same fit

    def factors(self, module: ModuleType, **options: object) -> Explanation:
        """The pairing of both sides' factors by one of the explainers."""
        key = (module.__name__, *options.items())
        return pair(*self._both(key, lambda k: module.factor(self.sides[k], **options)))

    def interactions(self, p: float, order: int = 2) -> Explanation:
        """FIxLIP from a sweep of each side."""
        if ("banzhaf", p, order) not in self._found:
            seeds = side_seeds(self.seed)

            def swept(k: int) -> Sweep:
                options = {"p": p, "seed": seeds[k], "sampling": self.sampling}
                return sweep(self.sides[k], masks=self.counts[k], **options)

            sweeps = self._both(("sweep", p, self.counts, self.seed, self.sampling), swept)
            found = solve(*sweeps, order=order, errors=False, **self.fit)
            self._found["banzhaf", p, order] = found
        return self._found["banzhaf", p, order]

    def shapley(self, order: int) -> Explanation:
        """Shapley values or interactions from joint masks."""
        if ("shapley", order) not in self._found:
            listed = self.sampling if self.sampling.startswith("distinct") else "distinct"
            options = {"order": order, "seed": self.seed, "sampling": listed, **self.fit}
            found = estimate(self.game, index="shapley", masks=self.joint, **options)
            self._found["shapley", order] = found
        return self._found["shapley", order]

    def _both(self, key: tuple, make: Callable[[int], Sweep | Factor]) -> list:
        """What `make` gives for the image (0) and for the text (1), made once per side."""
        for k, side in enumerate(self.sides):
            if (side, k, *key) not in self.cache:  # the side itself, so that it stays alive
                self.cache[side, k, *key] = make(k)
        return [self.cache[side, k, *key] for k, side in enumerate(self.sides)]


_RUNS: dict[str, Callable[[_Task], Explanation]] = {
    "GAME": lambda task: generic_attention.explain(*task.sides),
    "Grad-ECLIP": lambda task: grad_eclip.explain(*task.sides),
    "Shapley values": lambda task: task.shapley(task.order).first_order(),
    "Banzhaf values": lambda task: task.interactions(0.5, task.order).first_order(),
    "ITSM-O": lambda task: task.factors(itsm, variant="output"),
    "ITSM-H": lambda task: task.factors(itsm, variant="hidden"),
    "InteractionCAM": lambda task: task.factors(icam),
    "InteractionLIME": lambda task: lime.explain(*task.sides, samples=task.samples, seed=task.seed),
    "exCLIP": lambda task: task.factors(exclip, **task.path),
    "exCLIP, layer 0": lambda task: task.factors(
        exclip, **task.path | {"steps": max(task.path["steps"] // 5, 1)}, layer=0, rule="midpoint"
    ),
    "Shapley interactions": lambda task: task.shapley(2),
}


class _RememberingGame(Game):
    """The joint game; two methods ask for the same masks, so it remembers its last values."""

    _last: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, masks: torch.Tensor, **options: object) -> torch.Tensor:
        if self._last is None or not torch.equal(self._last[0], masks):
            self._last = masks, super().__call__(masks, **options)
        return self._last[1]

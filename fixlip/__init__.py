"""Why do CLIP, SigLIP and SigLIP 2 find an image and a caption similar?

In reading order: a `Side` is one image or caption whose players can be removed (``encoders``). A
`Sweep` holds its embeddings under many masks (``sampler``). `fit` makes of a sweep a `Factor`, the
side's half of an explanation, and `pair` makes of two factors an `Explanation` (``solver``,
``explanation``). `explain` does all of that in one call. Independent of this are any other game
(``games``), the question of how many masks (``budget``), other explainers, metrics and plots.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fixlip import renamed

if TYPE_CHECKING:  # for type checkers and editors, what `_import` imports
    from fixlip.budget import Advice, advise
    from fixlip.encoders import Encoder, load
    from fixlip.explanation import Explanation
    from fixlip.games import Game, exact
    from fixlip.games.estimate import estimate
    from fixlip.pipeline import explain
    from fixlip.sampler import MaskSample, Sweep
    from fixlip.sampler.sweep import sweep
    from fixlip.solver import Factor, pair
    from fixlip.solver.fit import fit
    from fixlip.solver.solve import solve

_PUBLIC = {
    "Advice": "budget",
    "Encoder": "encoders",
    "Explanation": "explanation",
    "Factor": "solver",
    "Game": "games",
    "MaskSample": "sampler",
    "Sweep": "sampler",
    "advise": "budget",
    "estimate": "games",
    "exact": "games",
    "explain": "pipeline",
    "fit": "solver",
    "load": "encoders",
    "pair": "solver",
    "solve": "solver",
    "sweep": "sampler",
}
__all__ = [
    "Advice",
    "Encoder",
    "Explanation",
    "Factor",
    "Game",
    "MaskSample",
    "Sweep",
    "advise",
    "estimate",
    "exact",
    "explain",
    "fit",
    "load",
    "pair",
    "solve",
    "sweep",
]  # of which type checkers want a list

renamed.RenamedModules.install()


def _import(name: str) -> Any:
    """Import a public name when it is first asked for: the core does without open_clip."""
    if name not in _PUBLIC:
        renamed.attribute("fixlip", name)
    value = getattr(importlib.import_module(f"fixlip.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # where it would make any name right
    __getattr__ = _import


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

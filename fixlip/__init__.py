"""Why do CLIP, SigLIP and SigLIP-2 find an image and a caption similar?

In reading order: a `Side` is one image or caption whose players can be removed (``encoders``). A
`Sweep` holds its embeddings under many masks (``sampler``). `fit` makes of a sweep a `Factor`, the
side's half of an explanation, and `pair` makes of two factors an `Explanation` (``solver``,
``explanation``). `explain` does all of that in one call. Independent of this are any other game
(``games``), the question of how many masks (``budget``), other explainers, metrics and plots.
"""

from __future__ import annotations

import importlib
from typing import Any

from fixlip import renamed

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
__all__ = list(_PUBLIC)

renamed.RenamedModules.install()


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the core does without open_clip."""
    if name not in _PUBLIC:
        return renamed.attributes("fixlip")(name)
    value = getattr(importlib.import_module(f"fixlip.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

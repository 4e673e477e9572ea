"""Why do CLIP, SigLIP and SigLIP-2 find an image and a caption similar? The public names."""

from fixlip import exact
from fixlip.budget import Advice, advise
from fixlip.estimators import estimate
from fixlip.explanation import Explanation
from fixlip.game import Game
from fixlip.pair import explain
from fixlip.sampler import MaskSample, Sweep, split_budget, sweep
from fixlip.solver import solve, solve_dense

__all__ = [
    "Advice",
    "Encoder",
    "Explanation",
    "Game",
    "MaskSample",
    "Sweep",
    "advise",
    "estimate",
    "exact",
    "explain",
    "load",
    "solve",
    "solve_dense",
    "split_budget",
    "sweep",
]


def __getattr__(name: str):
    """Import the encoders, and open_clip with them, only when asked for: the core needs none."""
    if name in ("Encoder", "load"):
        from fixlip import encoders

        return getattr(encoders, name)
    raise AttributeError(f"module 'fixlip' has no attribute {name!r}")

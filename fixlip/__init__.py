"""Why do CLIP, SigLIP and SigLIP-2 find an image and a caption similar? The public names."""

from fixlip.explanation import Explanation
from fixlip.game import Game
from fixlip.pair import explain
from fixlip.sampler import MaskSample, Sweep, split_budget, sweep
from fixlip.solver import solve, solve_dense

__all__ = [
    "Explanation",
    "Game",
    "MaskSample",
    "Sweep",
    "explain",
    "solve",
    "solve_dense",
    "split_budget",
    "sweep",
]

"""Masks and their weights, and the sweep of one side under them."""

from fixlip import renamed
from fixlip.sampler.distinct import distinct, shapley_masks, split_budget
from fixlip.sampler.masks import MaskSample, bernoulli, enumerate_masks, side_seeds
from fixlip.sampler.sweep import SAMPLINGS, Side, Sweep, draw, sweep

__all__ = ["SAMPLINGS", "MaskSample", "Side", "Sweep", "bernoulli", "distinct", "draw"]
__all__ += ["enumerate_masks", "shapley_masks", "side_seeds", "split_budget", "sweep"]

renamed.watch(__name__)

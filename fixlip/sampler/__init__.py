"""What is asked: masks and their weights, and the sweep of one side under them."""

from fixlip.sampler.distinct import distinct, shapley_masks, split_budget
from fixlip.sampler.masks import (
    MAX_ENUMERATED,
    MaskSample,
    bernoulli,
    check_counts,
    distinct_rows,
    empty_and_full,
    enumerate_masks,
    joint_masks,
    side_seeds,
)
from fixlip.sampler.sweep import (
    LAST_BATCH,
    SAMPLINGS,
    Side,
    Sweep,
    draw,
    embed_masks,
    grow,
    pair_scale,
    sweep,
)

__all__ = [
    "LAST_BATCH",
    "MAX_ENUMERATED",
    "SAMPLINGS",
    "MaskSample",
    "Side",
    "Sweep",
    "bernoulli",
    "check_counts",
    "distinct",
    "distinct_rows",
    "draw",
    "embed_masks",
    "empty_and_full",
    "enumerate_masks",
    "grow",
    "joint_masks",
    "pair_scale",
    "shapley_masks",
    "side_seeds",
    "split_budget",
    "sweep",
]

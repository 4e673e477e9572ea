"""Samples of masks, with weights for the product measure or the Shapley kernel.

A mask is a boolean row, True = kept. Under the product measure every player is kept independently
with probability ``p``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from fixlip import checks
from fixlip.checks import MAX_ENUMERATED, boolean_masks, integer, numbers, one_of, probability

KINDS = ("antithetic", "independent", "enumerated", "distinct", "shapley", "given")
KINDS += ("distinct-reference", "shapley-reference")


@dataclass(frozen=True, eq=False)
class MaskSample:
    """A weighted sample of masks, under the product measure or the Shapley kernel.

    Attributes
    ----------
    masks : torch.Tensor, (m, n), bool
        True = kept; an array or lists are taken as well. Rows may repeat; a sweep embeds every
        distinct row once.
    weights : torch.Tensor, (m,), float64
        Positive; scaled to sum 1; an array or a list is taken as well.
    p : float
        Probability with which a player is kept.
    sampling, seed : str, int or None
        "antithetic", "independent", "enumerated", "distinct", "shapley" (these two also with
        "-reference") or "given" (the user's own, treated as independent draws). The seed is None
        where nothing was drawn. "enumerated" is what `enumerate_masks` lists, in its order.
    """

    masks: torch.Tensor
    weights: torch.Tensor
    p: float = 0.5
    sampling: str = "given"
    seed: int | None = None

    def __post_init__(self) -> None:
        one_of("sampling", self.sampling, KINDS)
        masks = boolean_masks(self.masks).cpu()
        if masks.shape[0] == 0:
            raise ValueError("got no masks: give at least one row")
        weights = torch.from_numpy(numbers("weights", self.weights))
        if weights.shape != masks.shape[:1]:
            raise ValueError(
                f"got weights of shape {tuple(weights.shape)} for {masks.shape[0]} "
                "masks: give one weight per mask"
            )
        if not (weights > 0).all():
            raise ValueError("weights must be positive: leave out masks of weight zero")
        weights = weights / weights.max()  # first, so that no sum overflows
        checked = {"masks": masks, "weights": weights / weights.sum(), "p": probability(self.p)}
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.sampling == "enumerated":
            self._check_enumerated()

    def _check_enumerated(self) -> None:
        """Raise unless the sample is what `enumerate_masks` makes: errors count as 0 for it."""
        n, p = self.n, self.p
        rows = torch.arange(self.m)
        kept = (torch.equal(self.masks[:, i], (rows >> i & 1).bool()) for i in range(n))
        if n > MAX_ENUMERATED or self.m != 2**n or not all(kept):
            raise ValueError(
                'a sample that is "enumerated" lists all masks in the order of enumerate_masks; '
                'call one of your own "given"'
            )
        due = _probabilities(self.masks, p)
        if not torch.allclose(self.weights, due / due.sum(), rtol=1e-6):
            raise ValueError(f'the weights of an "enumerated" sample are those of p={p:g}')

    @property
    def m(self) -> int:
        """Number of masks."""
        return self.masks.shape[0]

    @property
    def n(self) -> int:
        """Number of players."""
        return self.masks.shape[1]

    def draws(self) -> torch.Tensor:
        """How many draws each row stands for, (m,), float64; 0 where it was listed."""
        if self.sampling == "enumerated":
            return torch.zeros(self.m, dtype=torch.float64)
        if self.sampling.removesuffix("-reference") not in ("distinct", "shapley"):
            return torch.ones(self.m, dtype=torch.float64)
        size = self.masks.sum(1)
        count = torch.bincount(size, minlength=self.n + 1)
        listed = [int(c) == math.comb(self.n, k) for k, c in enumerate(count.tolist())]
        drawn = ~torch.tensor(listed)[size]
        draws = torch.where(drawn, self.weights, 0.0)
        return draws / draws[drawn].min() if drawn.any() else draws

    @property
    def share(self) -> float:
        """How many of all masks are here, of a sample without repetition; of any other, 0."""
        if self.sampling.removesuffix("-reference") not in ("enumerated", "distinct", "shapley"):
            return 0.0
        ends = 2 if self.sampling.startswith("shapley") else 0  # no masks of the Shapley kernel
        return self.m / (2**self.n - ends)  # of integers: no overflow

    @property
    def complete(self) -> bool:
        """Whether these are all masks (of the Shapley kernel: all but the empty and the full)."""
        return self.share == 1 and not self.draws().any()


def check_counts(n: int, m: int) -> tuple[int, int]:
    """Players and masks as ints; an error where there are none."""
    return integer("the number of players", n), integer("the number of masks", m)


def bernoulli(
    n: int, m: int, *, p: float = 0.5, seed: int = 0, antithetic: bool = True
) -> MaskSample:
    """Draw m masks, of equal weight, in which every player is kept with probability p.

    Antithetic masks come in pairs made from the same uniforms u and 1 - u: complements at p = .5,
    and as different as p allows elsewhere. Each mask alone has the same distribution, so estimates
    stay unbiased; at p = .5 even-order terms cancel out of first-order estimates exactly, and
    odd-order terms out of second-order ones.

    Parameters
    ----------
    n, m : int
        Players and masks, each at least 1.
    p, seed : float, int
        Probability of keeping a player, in (0, 1); the same seed gives the same masks.
    antithetic : bool
        Draw pairs (rows 0 and 1, 2 and 3, ...); an odd m leaves the last mask without its twin.

    Examples
    --------
    >>> masks = bernoulli(3, 4, seed=1).masks
    >>> bool((masks[0::2] == ~masks[1::2]).all())
    True
    """
    n, m = check_counts(n, m)
    p, seed = probability(p), checks.seed(seed)
    generator = torch.Generator().manual_seed(seed)
    if antithetic:
        u = torch.rand((m + 1) // 2, n, generator=generator, dtype=torch.float64)
        masks = torch.stack([u < p, 1 - u < p], dim=1).flatten(0, 1)[:m]  # pairs: (2k, n) -> (m, n)
    else:
        masks = torch.rand(m, n, generator=generator, dtype=torch.float64) < p
    name = "antithetic" if antithetic else "independent"
    return MaskSample(masks, torch.ones(m), p, name, seed)


def enumerate_masks(n: int, *, p: float = 0.5) -> MaskSample:
    """List all 2**n masks with their probabilities under the product measure: no sampling error.

    Row r keeps player i where bit i of r is set, so row 0 is empty and the last row is full. For at
    most MAX_ENUMERATED players.
    """
    n, _ = check_counts(n, 1)
    p = probability(p)
    if n > MAX_ENUMERATED:
        raise ValueError(
            f"all 2**{n} masks of {n} players cannot be listed (at most {MAX_ENUMERATED} players): "
            "sample them, or play with coarser players"
        )
    masks = ((torch.arange(2**n)[:, None] >> torch.arange(n)) & 1).bool()  # (2**n, n)
    return MaskSample(masks, _probabilities(masks, p), p, "enumerated")


def _probabilities(masks: torch.Tensor, p: float) -> torch.Tensor:
    """Probabilities of masks under the product measure, (m,), up to a factor; none is 0."""
    kept, n = masks.sum(1).double(), masks.shape[1]
    logs = kept * math.log(p) + (n - kept) * math.log1p(-p)
    return torch.exp(logs - logs.max()).clamp(min=torch.finfo(torch.float64).tiny)


def distinct_rows(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each distinct mask, and each row's number among the distinct masks."""
    packed = np.packbits(masks, axis=1)
    keys = np.ascontiguousarray(packed).view([("", np.void, packed.shape[1])]).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return first, group.ravel()


def empty_and_full(n: int) -> torch.Tensor:
    """The mask with every player removed and the mask with every player kept, (2, n), bool."""
    return torch.tensor([[False], [True]]).expand(2, n)


def side_seeds(seed: int) -> tuple[int, int]:
    """Seeds of the image's and of the text's masks: independent streams of one seed."""
    image, text = np.random.SeedSequence(checks.seed(seed)).generate_state(2)
    return int(image), int(text)

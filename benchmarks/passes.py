"""What an estimator costs, the distinct masked inputs of both towers; masks for such a budget."""

from functools import partial

import numpy as np
import torch
from means import leverage_masks

from fixlip.sampler import MaskSample, Side, draw
from fixlip.sampler.masks import distinct_rows


class Counted:
    """A side that counts the distinct masks of one run; what it embedded once it remembers."""

    def __init__(self, side: Side) -> None:
        self.side, self.n, self.names, self.info = side, side.n, side.names, side.info
        self.known: dict[bytes, torch.Tensor] = {}
        self.seen: set[bytes] = set()

    def count(self, masks: torch.Tensor) -> list[bytes]:
        """Count these masks, without embedding them."""
        keys = [row.tobytes() for row in np.packbits(masks.numpy(), axis=1)]
        self.seen.update(keys)
        return keys

    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        """Embed masks (m, n) as (m, D)."""
        keys = self.count(masks)
        new = [row for row, key in enumerate(keys) if key not in self.known]
        if new:
            rows = self.side.embed(masks[new])
            self.known.update(zip([keys[row] for row in new], rows, strict=True))
        return torch.stack([self.known[key] for key in keys])


def side_masks(
    image: Counted, text: Counted, budget: int, p: float, seed: int, sampling: str
) -> tuple[MaskSample, MaskSample]:
    """One sample per side; text masks are listed where that leaves half of the budget."""
    make = leverage_masks if sampling == "leverage" else partial(draw, sampling=sampling)
    all_text = 2**text.n <= budget // 2
    text_sample = draw(text.n, 2**text.n, p=p)
    if not all_text:
        text_sample = make(text.n, budget // 2 - 2, p=p, seed=2 * seed + 1)
    text_passes = len(distinct_rows(_with_ends(text_sample.masks).numpy())[0])
    return make(image.n, budget - text_passes - 2, p=p, seed=2 * seed), text_sample


def joint_masks(
    image: Counted, text: Counted, budget: int, p: float, seed: int, sampling: str
) -> MaskSample:
    """As many joint masks as the budget pays for, after both sides' empty and full input."""
    n = image.n + text.n
    make = leverage_masks if sampling == "leverage" else partial(draw, sampling=sampling)
    sample = make(n, budget, p=p, seed=seed)
    masks = _with_ends(sample.masks, first=True).numpy()
    new = np.zeros(len(masks))
    for part in (masks[:, : image.n], masks[:, image.n :]):
        new[distinct_rows(np.ascontiguousarray(part))[0]] += 1
    m = int(np.searchsorted(new.cumsum(), budget, side="right")) - 2
    m -= m % 2 if sampling == "antithetic" else 0
    return MaskSample(sample.masks[:m], sample.weights[:m], p, sample.sampling, seed)


def _with_ends(masks: torch.Tensor, *, first: bool = False) -> torch.Tensor:
    ends = torch.tensor([[False], [True]]).expand(2, masks.shape[1])
    return torch.cat([ends, masks] if first else [masks, ends])

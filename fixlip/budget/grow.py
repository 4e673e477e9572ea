"""A sweep that grows: more masks of the same seed, none embedded twice."""

from __future__ import annotations

from dataclasses import replace

import torch

from fixlip.checks import instance
from fixlip.sampler import SAMPLINGS, Side, Sweep, draw
from fixlip.sampler.masks import check_counts, distinct_rows, empty_and_full
from fixlip.sampler.sweep import check_side, embed_masks


def grow(
    swept: Sweep,
    side: Side,
    masks: int,
    *,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Grow a sweep to more masks of the same seed; only masks not seen before are embedded.

    The result is the sweep that ``sweep(side, masks=masks, ...)`` makes with the same ``p``,
    ``seed`` and ``sampling``. Antithetic and independent masks begin with the masks of the smaller
    sample; of "distinct" ones, only those that both samples share are saved.

    Parameters
    ----------
    swept, side : Sweep, Side
        From `sweep`, and the side that was swept.
    masks : int
        Budget, at least as many as ``swept`` has; all masks are listed where it allows that.
    batch_size, progress
        See `sweep`.
    """
    old, side = instance(swept, Sweep, "fixlip.sweep(side) makes one").sample, check_side(side)
    if tuple(side.names) != swept.names:
        raise ValueError(
            f"the sweep has {swept.n} players ({swept.names[0]}, ...) and the side {side.n} "
            f"({side.names[0]}, ...): grow a sweep with the side that made it"
        )
    if repr(dict(getattr(side, "info", {}))) != repr(swept.info):
        raise ValueError(
            "the side is another one than that of the sweep (its image, caption or model differs): "
            "grow a sweep with the side that made it"
        )
    check_counts(side.n, masks)
    if masks < old.m:
        raise ValueError(f"a sweep of {old.m} masks cannot be grown to {masks}: ask for more")
    if old.sampling == "enumerated":
        return swept
    if old.sampling not in SAMPLINGS:
        raise ValueError(
            f"a {old.sampling!r} sample was not drawn with a seed: only samples drawn as "
            f"{', '.join(SAMPLINGS)} can be grown"
        )
    sample = draw(side.n, masks, p=old.p, seed=old.seed, sampling=old.sampling)
    ends = empty_and_full(side.n)
    seen = old.m + 2
    rows = torch.cat([old.masks, ends, sample.masks])  # (seen + m, n): the embedded ones first
    first, group = (torch.from_numpy(x) for x in distinct_rows(rows.numpy()))
    known = torch.cat([swept.embeddings, swept.ends])  # (seen, D)
    table = known[first.clamp(max=seen - 1).to(known.device)]  # (distinct, D), filled in below
    new = first >= seen  # the first row of a distinct mask is an embedded one if there is one
    if new.any():
        table[new.to(known.device)] = embed_masks(
            side, rows[first[new]], batch_size=batch_size, progress=progress
        )
    return replace(swept, sample=sample, embeddings=table[group[seen:].to(known.device)])

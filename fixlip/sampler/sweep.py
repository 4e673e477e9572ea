"""One side under many masks: the Side that embeds them, and the Sweep of its embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from fixlip import checks, renamed
from fixlip.checks import (
    MAX_ENUMERATED,
    boolean_masks,
    integer,
    one_of,
    ordinary,
    out_of_memory,
    probability,
    visible,
    warn,
)
from fixlip.progress import progress_bar
from fixlip.sampler.distinct import distinct
from fixlip.sampler.masks import (
    MaskSample,
    bernoulli,
    check_counts,
    distinct_rows,
    empty_and_full,
    enumerate_masks,
)

MIN_BATCH = 8  # matrix products of fewer rows may take another path and differ in the last bit
SAMPLINGS = ("antithetic", "independent", "distinct", "distinct-reference")


@runtime_checkable
class Side(Protocol):
    """One modality of one pair: its players, and an encoder that embeds masked versions of it."""

    @property
    def n(self) -> int:
        """Number of players."""

    @property
    def names(self) -> Sequence[str]:
        """Their names."""

    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        """Embed masks (m, n), bool, True = kept, as (m, D)."""


def check_side(side: object) -> Side:
    """Return a side; TypeError for anything else, ValueError where names and players differ."""
    if missing := [name for name in ("n", "names", "embed") if not hasattr(side, name)]:
        raise TypeError(
            f"expected a side, with n, names and embed, got {type(side).__name__} without "
            f"{', '.join(missing)}: encoder.image(...) and encoder.text(...) make sides"
        )
    names = len(side.names) if isinstance(side.names, Sequence) else repr(side.names)
    if names != integer("the number of players", side.n):
        raise ValueError(f"the side has {side.n} players and {names} names: give as many")
    if not isinstance(info := getattr(side, "info", {}), Mapping):
        raise TypeError(f"a side's info must be a dictionary, got {info!r}")
    return side


@renamed.keywords(method="sampling")
def draw(
    n: int, masks: int, *, p: float = 0.5, seed: int = 0, sampling: str = "antithetic"
) -> MaskSample:
    """Draw masks by the sampling's name, or list all 2**n where the budget allows it.

    "antithetic" and "independent" are `bernoulli` with and without pairs; "distinct" and
    "distinct-reference" are `distinct` with the weighting "mass" and "reference".
    """
    n, masks = check_counts(n, masks)
    one_of("sampling", sampling, SAMPLINGS)
    if n <= MAX_ENUMERATED and masks >= 2**n:
        return enumerate_masks(n, p=p)
    if sampling in ("antithetic", "independent"):
        return bernoulli(n, masks, p=p, seed=seed, antithetic=sampling == "antithetic")
    weighting = "mass" if sampling == "distinct" else "reference"
    return distinct(n, masks, p=p, seed=seed, weighting=weighting)


@dataclass(frozen=True, eq=False)
class Sweep:
    """One side's masks with the embedding that the encoder gave for each of them.

    Attributes
    ----------
    sample : MaskSample
        Masks (m, n) and weights (m,).
    embeddings, ends : torch.Tensor, (m, D) and (2, D)
        A row per mask, on the encoder's device and in its dtype; and with every player removed and
        kept.
    names : tuple of str
        The players.
    info : dict
        What the side says of itself (model, caption, token ids, grid, ...); JSON-able.
    picture : numpy.ndarray or None
        (H, W, 3), uint8: the image as the model sees it, for an image side.
    """

    sample: MaskSample
    embeddings: torch.Tensor
    ends: torch.Tensor
    names: tuple[str, ...]
    info: dict[str, Any] = field(default_factory=dict)
    picture: np.ndarray | None = None

    def __post_init__(self) -> None:
        rows, ends = (torch.as_tensor(x) for x in (self.embeddings, self.ends))
        names = tuple(map(str, self.names))
        if rows.ndim != 2 or len(rows) != self.sample.m or ends.shape != (2, rows.shape[1]):
            raise ValueError(
                f"{self.sample.m} masks need embeddings of shape ({self.sample.m}, D) and ends of "
                f"(2, D), got {tuple(rows.shape)} and {tuple(ends.shape)}"
            )
        if len(names) != self.sample.n:
            raise ValueError(f"{self.sample.n} players need as many names, got {len(names)}")
        for name, value in {"embeddings": rows, "ends": ends, "names": names}.items():
            object.__setattr__(self, name, value)

    @property
    def masks(self) -> torch.Tensor:
        """The masks, (m, n), bool."""
        return self.sample.masks

    @property
    def weights(self) -> torch.Tensor:
        """The masks' weights, (m,), float64, sum 1."""
        return self.sample.weights

    @property
    def n(self) -> int:
        """Number of players."""
        return self.sample.n

    @property
    def eps(self) -> float:
        """Relative rounding error of a mean over embeddings, in half precision as in float32."""
        dtype, single = self.embeddings.dtype, torch.finfo(torch.float32).eps
        return min(torch.finfo(dtype).eps if dtype.is_floating_point else single, single)


@renamed.keywords(method="sampling")
def sweep(
    side: Side,
    *,
    masks: int | MaskSample = 2048,
    p: float = 0.5,
    seed: int = 0,
    sampling: str = "antithetic",
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Embed one side under many masks.

    Every distinct mask is embedded once, as are the empty and the full one. If 2**n masks are
    affordable, all are listed and the side has no sampling error.

    Raises ValueError for impossible numbers, or where the encoder returns anything but one finite
    row per mask.

    Parameters
    ----------
    side : Side
        Anything with ``n``, ``names`` and ``embed(masks (b, n)) -> (b, D)``.
    masks : int or MaskSample
        Budget, or a sample of one's own (then ``p``, ``seed`` and ``sampling`` are not used).
    p, seed, sampling : float, int, str
        Probability of keeping a player, in (0, 1); the same seed gives the same masks; see `draw`.
    batch_size : int, optional
        Masks per forward pass; by default the side's own ``batch_size``, else 256. A batch that
        does not fit in memory is halved, with a warning, and the sweep goes on.
    progress : bool, optional
        Show a progress bar; by default only on a terminal.
    """
    check_side(side)
    if isinstance(masks, MaskSample):
        sample = masks
        boolean_masks(sample.masks, side.n)
        probability(p)  # play no part here, and are checked all the same
        checks.seed(seed)
        one_of("sampling", sampling, SAMPLINGS)
    else:
        sample = draw(side.n, masks, p=p, seed=seed, sampling=sampling)
    wanted = torch.cat([sample.masks, empty_and_full(side.n)])  # (m + 2, n)
    rows = embed_masks(side, wanted, batch_size=batch_size, progress=progress)  # (m + 2, D)
    about = dict(getattr(side, "info", None) or {}), getattr(side, "picture", None)
    return Sweep(sample, rows[:-2], rows[-2:], tuple(side.names), *about)


def embed_masks(
    side: Side, masks: torch.Tensor, *, batch_size: int | None = None, progress: bool | None = None
) -> torch.Tensor:
    """Embed masks (m, n) as (m, D), every distinct mask once, in batches that fit in memory."""
    masks = boolean_masks(masks, side.n)
    size = getattr(side, "batch_size", 256) if batch_size is None else batch_size
    integer("batch_size", size)
    first, group = distinct_rows(masks.cpu().numpy())
    todo = masks[torch.from_numpy(first)]  # (distinct, n)
    done, start = [], 0
    what = f"{getattr(side, 'info', {}).get('kind', 'side')} masks"
    with progress_bar(len(todo), what, progress) as bar:
        while start < len(todo):
            left = len(todo) - start
            batch = todo[start : start + _next_batch(left, size)]
            try:
                rows = side.embed(batch)
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
                size = len(batch) // 2
                warn(f"{len(batch)} masks at once do not fit in memory: going on with {size}")
                continue
            width = done[0].shape[1] if done else None
            done.append(_check_rows(rows, len(batch), width))
            start += len(batch)
            bar.update(len(batch))
    return torch.cat(done)[torch.from_numpy(group).to(done[0].device)]


def _next_batch(left: int, size: int) -> int:
    """How many rows to embed next, so that no short batch remains where ``size`` allows it."""
    remainder_is_short = 0 < left - size < MIN_BATCH and size >= 2 * MIN_BATCH
    return left - MIN_BATCH if remainder_is_short else min(left, size)


def _check_rows(rows: Any, count: int, width: int | None) -> torch.Tensor:
    visible("embeddings", rows)
    if isinstance(rows, np.ndarray) and rows.dtype.kind in "biuf":
        rows = torch.from_numpy(rows.copy())
    if not isinstance(rows, torch.Tensor) or rows.ndim != 2 or rows.shape[0] != count:
        shape = tuple(rows.shape) if hasattr(rows, "shape") else type(rows).__name__
        raise ValueError(
            f"embed was given {count} masks and returned {shape}: it must return a torch tensor "
            "with one embedding per mask, (masks, D)"
        )
    if not rows.shape[1]:
        raise ValueError(f"embed returned embeddings of width 0, {tuple(rows.shape)}: give numbers")
    if rows.is_complex() or (width is not None and rows.shape[1] != width):
        was = f"width {width} before" if width else "real numbers only"
        raise ValueError(
            f"embed returned {rows.dtype} of width {rows.shape[1]}, and {was}: it must return real "
            "embeddings of one width"
        )
    if bad := int((~torch.isfinite(rows).all(1)).sum()):
        raise ValueError(
            f"the encoder gave NaN or infinite embeddings for {bad} of {count} masks: "
            "the checkpoint is broken, or its precision too low (try dtype=torch.float32)"
        )
    if rows.dtype == torch.float64 and rows.numel():  # no other can be so large or so small
        ordinary("the largest number in the embeddings", float(rows.abs().max()))
    return rows.detach().clone()  # some sides write every batch into the same memory

"""Which masks are asked for, and what one side answers: mask samples, their weights, and the Sweep.

A *mask* is a boolean row, True = kept. A sample of masks stands for the product measure under
which every player is kept independently with probability ``p``. A *sweep* is one side's sample
together with the embedding that the encoder gave for every mask. This file knows no model: a side
is anything with ``n``, ``names`` and ``embed(masks)``.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.special import comb
from scipy.stats import binom
from tqdm.auto import tqdm

MAX_ENUMERATED = 24  # 2**24 masks of 24 players are 400 MB: more is a mistake, not a wish
LAST_BATCH = 8  # matrix products of fewer rows may take another path and differ in the last bit


@runtime_checkable
class Side(Protocol):
    """One modality of one pair: its players, and an encoder that embeds masked versions of it."""

    n: int
    names: Sequence[str]

    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        """Embed masks (m, n), bool, True = kept, as (m, D)."""


@dataclass(frozen=True, eq=False)
class MaskSample:
    """Masks and the weights with which they stand for the product measure.

    Attributes
    ----------
    masks : torch.Tensor, (m, n), bool
        True = kept. Rows may repeat; a sweep embeds every distinct row once.
    weights : torch.Tensor, (m,), float64
        Positive; scaled to sum 1.
    p : float
        Probability with which a player is kept.
    method : str
        "antithetic", "independent", "enumerated", "distinct", "shapley" or "given".
    seed : int or None
        None where nothing was drawn.
    """

    masks: torch.Tensor
    weights: torch.Tensor
    p: float = 0.5
    method: str = "given"
    seed: int | None = None

    def __post_init__(self) -> None:
        check_masks(self.masks)
        check_p(self.p)
        if self.masks.shape[0] == 0:
            raise ValueError("got no masks: give at least one row")
        if self.weights.shape != self.masks.shape[:1]:
            raise ValueError(
                f"got weights of shape {tuple(self.weights.shape)} for {self.masks.shape[0]} "
                "masks: give one weight per mask"
            )
        if not (torch.isfinite(self.weights).all() and (self.weights > 0).all()):
            raise ValueError("weights must be finite and positive: leave out masks of weight zero")
        object.__setattr__(self, "weights", self.weights.double() / self.weights.double().sum())

    @property
    def m(self) -> int:
        """Number of masks."""
        return self.masks.shape[0]

    @property
    def n(self) -> int:
        """Number of players."""
        return self.masks.shape[1]


def check_masks(masks: torch.Tensor, n: int | None = None) -> torch.Tensor:
    """Return ``masks`` if they are a boolean (m, n) tensor, else raise what is wrong with them."""
    if not isinstance(masks, torch.Tensor) or masks.dtype != torch.bool:
        given = f"dtype {masks.dtype}" if hasattr(masks, "dtype") else type(masks).__name__
        raise TypeError(
            f"masks must be a boolean torch tensor, got {given}: "
            "use torch.as_tensor(masks, dtype=torch.bool), True = kept"
        )
    if masks.ndim != 2 or (n is not None and masks.shape[1] != n):
        wanted = "(masks, players)" if n is None else f"(masks, {n}), one column per player"
        raise ValueError(f"masks must have the shape {wanted}, got {tuple(masks.shape)}")
    return masks


def check_p(p: float) -> float:
    """Return ``p`` as a float if it lies strictly between 0 and 1, else raise."""
    if isinstance(p, bool) or not isinstance(p, (int, float, np.floating)) or not 0 < p < 1:
        raise ValueError(
            "p is the probability that a player is kept and must lie strictly between 0 and 1, "
            f"got {p!r} (0.5 weights all masks alike)"
        )
    return float(p)


def check_counts(n: int, m: int) -> None:
    """Raise unless there is at least one player and at least one mask is asked for."""
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"the number of players must be a whole number of 1 or more, got {n!r}")
    if isinstance(m, bool) or not isinstance(m, (int, np.integer)) or m < 1:
        raise ValueError(f"the number of masks must be a whole number of 1 or more, got {m!r}")


def bernoulli(
    n: int, m: int, *, p: float = 0.5, seed: int = 0, antithetic: bool = True
) -> MaskSample:
    """Draw m masks in which every player is kept independently with probability p.

    Antithetic masks come in pairs made from the same uniforms u and 1 - u: complements at p = .5,
    and as different as p allows elsewhere. Each mask alone has the same law as before, so
    estimates stay unbiased; at p = .5 even-order terms cancel out of first-order estimates
    exactly, and odd-order terms out of second-order ones.

    Parameters
    ----------
    n, m : int
        Players and masks, each at least 1.
    p : float
        Probability of keeping a player, in (0, 1).
    seed : int
        The same seed gives the same masks.
    antithetic : bool
        Draw pairs (rows 0 and 1, 2 and 3, ...); an odd m leaves the last mask without its twin.

    Returns
    -------
    MaskSample
        With equal weights 1/m.

    Examples
    --------
    >>> masks = bernoulli(3, 4, seed=1).masks
    >>> bool((masks[0::2] == ~masks[1::2]).all())
    True
    """
    check_counts(n, m)
    p = check_p(p)
    generator = torch.Generator().manual_seed(seed)
    if antithetic:
        u = torch.rand((m + 1) // 2, n, generator=generator, dtype=torch.float64)
        masks = torch.stack([u < p, 1 - u < p], dim=1).flatten(0, 1)[:m]  # pairs: (2k, n) -> (m, n)
    else:
        masks = torch.rand(m, n, generator=generator, dtype=torch.float64) < p
    method = "antithetic" if antithetic else "independent"
    return MaskSample(masks, torch.ones(m), p, method, seed)


def enumerate_masks(n: int, *, p: float = 0.5) -> MaskSample:
    """List all 2**n masks with their probabilities under the product measure: no sampling error.

    Row r keeps player i where bit i of r is set, so row 0 is empty and the last row is full.

    Raises
    ------
    ValueError
        For more than MAX_ENUMERATED players.
    """
    check_counts(n, 1)
    p = check_p(p)
    if n > MAX_ENUMERATED:
        raise ValueError(
            f"all 2**{n} masks of {n} players cannot be listed (at most {MAX_ENUMERATED} players): "
            "sample them, or play with coarser players"
        )
    masks = ((torch.arange(2**n)[:, None] >> torch.arange(n)) & 1).bool()  # (2**n, n)
    return MaskSample(masks, _probability(masks.sum(1).double(), n, p), p, "enumerated")


def _probability(kept: torch.Tensor, n: int, p: float) -> torch.Tensor:
    """Probability of one mask with ``kept`` of n players; in logs, where no n underflows."""
    return torch.exp(kept * math.log(p) + (n - kept) * math.log1p(-p))


def distinct(
    n: int, m: int, *, p: float = 0.5, seed: int = 0, weighting: str = "mass"
) -> MaskSample:
    """Draw masks until m distinct ones are seen: the sampler of the FIxLIP experiments.

    Sizes that the budget covers completely are listed in full (the "border trick"); the others are
    drawn by size and then uniformly, and a mask drawn again counts again.

    Parameters
    ----------
    n, m : int
        Players, and distinct masks (clamped to 2**n with a warning).
    p : float
        Probability of keeping a player, in (0, 1).
    seed : int
        The same seed gives the same masks.
    weighting : {"mass", "reference"}
        "mass" gives the drawn masks together the probability that the listed ones leave over.
        "reference" gives them probability 1 instead, which over-weights them wherever the border
        trick is partial: it reproduces the weights of the published code.

    Returns
    -------
    MaskSample
        Listed masks first.

    References
    ----------
    Baniecki et al., "Explaining Similarity in Vision-Language Encoders with Weighted Banzhaf
    Interactions", NeurIPS 2025, and its reference code.
    """
    check_counts(n, m)
    p = check_p(p)
    if n <= MAX_ENUMERATED and m > 2**n:
        warnings.warn(f"{n} players have only {2**n} masks, not {m}: using all", stacklevel=2)
        m = 2**n

    masks, weights = _distinct_by_size(n, m, binom.pmf(np.arange(n + 1), n, p), seed, weighting)
    return MaskSample(masks, weights, p, "distinct", seed)


def shapley_masks(n: int, m: int, *, seed: int = 0, weighting: str = "mass") -> MaskSample:
    """Draw distinct masks with the Shapley kernel as their weights: neither empty nor full.

    A mask of size k has the weight 1 / C(n - 2, k - 1), so that all masks of size k together have
    a weight in proportion to 1 / (k (n - k)); the empty and the full mask have infinite weight and
    are left to the fit. Sizes are listed or drawn as in `distinct`.

    Parameters
    ----------
    n, m : int
        Players, at least 2, and distinct masks (clamped to 2**n - 2 with a warning).
    seed : int
        The same seed gives the same masks.
    weighting : {"mass", "reference"}
        See `distinct`.

    Returns
    -------
    MaskSample
        With p = .5, the share of players that the kernel keeps on average.

    References
    ----------
    Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017; for
    second order Tsai, Yeh and Ravikumar, "Faith-Shap", JMLR 24, 2023.

    Examples
    --------
    >>> sample = shapley_masks(3, 6)
    >>> sample.masks.sum(1).tolist(), round(float(sample.weights[0]), 4)
    ([1, 1, 1, 2, 2, 2], 0.1667)
    """
    check_counts(n, m)
    if n < 2:
        raise ValueError("one player has no mask that is neither empty nor full: give 2 or more")
    if n <= MAX_ENUMERATED and m > 2**n - 2:
        warnings.warn(f"{n} players have {2**n - 2} such masks, not {m}: using all", stacklevel=2)
        m = 2**n - 2
    sizes = np.arange(1, n)
    mass = np.zeros(n + 1)
    mass[1:n] = 1 / (sizes * (n - sizes))
    masks, weights = _distinct_by_size(n, m, mass / mass.sum(), seed, weighting)
    return MaskSample(masks, weights, 0.5, "shapley", seed)


def _distinct_by_size(
    n: int, m: int, mass: np.ndarray, seed: int, weighting: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw m distinct masks by the probability of their size, (n + 1,), with the border trick."""
    if weighting not in ("mass", "reference"):
        raise ValueError(f'weighting must be "mass" or "reference", got {weighting!r}')
    sizes = np.arange(n + 1)
    count = comb(n, sizes)
    listed, left = np.zeros(n + 1, bool), m
    while left > 0 and mass[~listed].sum() > 0:
        share = np.where(listed, 0, mass) / mass[~listed].sum()
        covered = ~listed & (mass > 0) & (left * share >= count * (1 - 1e-12))
        if not covered.any():
            break
        listed |= covered
        left -= round(count[covered].sum())

    parts = [torch.from_numpy(_masks_of_size(n, k)) for k in sizes[listed]]
    each = mass[listed] / count[listed]
    weights = [
        torch.full((len(part),), w, dtype=torch.float64)
        for part, w in zip(parts, each, strict=True)
    ]
    rest = np.where(listed, 0, mass)
    if left > 0 and rest.sum() > 0:
        drawn, frequency = _draw_distinct(n, left, rest, seed)
        parts.append(drawn)
        weights.append(frequency * (rest.sum() if weighting == "mass" else 1.0))
    return torch.cat(parts), torch.cat(weights)


def _masks_of_size(n: int, size: int) -> np.ndarray:
    """All masks with exactly ``size`` players kept: (C(n, size), n), bool."""
    kept = np.array(list(itertools.combinations(range(n), size)), dtype=np.int64)
    masks = np.zeros((len(kept), n), bool)
    np.put_along_axis(masks, kept.reshape(len(kept), size), True, axis=1)
    return masks


def _draw_distinct(
    n: int, m: int, mass: np.ndarray, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw sizes by ``mass``, subsets uniformly, until m masks are distinct: masks, frequencies."""
    rng = np.random.default_rng(seed)
    draws = np.zeros((0, n), bool)
    while True:
        size = rng.choice(n + 1, size=max(m, 256), p=mass / mass.sum())
        rank = rng.random((len(size), n)).argsort(1).argsort(1)  # a uniform order of the players
        draws = np.concatenate([draws, rank < size[:, None]])  # (draws, n)
        first, group = distinct_rows(draws)
        if len(first) >= m:
            break
    stop = np.sort(first)[m - 1] + 1  # the draw that brought the m-th distinct mask is the last
    kept = np.sort(first[first < stop])
    counts = np.bincount(group[:stop], minlength=len(first))
    return torch.from_numpy(draws[kept]), torch.from_numpy(counts[group[kept]] / stop)


def distinct_rows(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of every distinct mask, and for every row the distinct mask that it shows."""
    packed = np.packbits(masks, axis=1)
    keys = np.ascontiguousarray(packed).view([("", np.void, packed.shape[1])]).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return first, group.ravel()


def split_budget(n_image: int, n_text: int, values: int) -> tuple[int, int]:
    """Split a number of game values into image and text masks as the FIxLIP experiments do.

    The smaller side gets max(4, sqrt(values) * its players / the larger side's players) masks, at
    most all it has; the larger side gets what makes up the product.

    Parameters
    ----------
    n_image, n_text : int
        Players of each side.
    values : int
        Wanted number of game values m_I * m_T, at least 4.

    Returns
    -------
    tuple of int
        (m_I, m_T).

    Examples
    --------
    >>> split_budget(49, 8, 2**19)
    (4405, 119)
    """
    if values < 4:
        raise ValueError(f"a budget of {values} game values cannot be split: give 4 or more")
    small, large = sorted((n_image, n_text))
    few = min(math.ceil(max(4.0, math.sqrt(values) * small / large)), 2**small)
    many = values // few
    return (many, few) if n_text < n_image else (few, many)


METHODS = ("antithetic", "independent", "distinct", "distinct-reference")


def draw(
    n: int, masks: int, *, p: float = 0.5, seed: int = 0, method: str = "antithetic"
) -> MaskSample:
    """Draw a sample by the method's name, or list all masks where the budget allows it.

    Parameters
    ----------
    n, masks : int
        Players, and budget.
    p, seed
        As in `bernoulli`.
    method : {"antithetic", "independent", "distinct", "distinct-reference"}
        `bernoulli` with and without pairs; `distinct` with the weighting "mass" or "reference".
    """
    check_counts(n, masks)
    if n <= MAX_ENUMERATED and masks >= 2**n:
        return enumerate_masks(n, p=p)
    match method:
        case "antithetic" | "independent":
            return bernoulli(n, masks, p=p, seed=seed, antithetic=method == "antithetic")
        case "distinct":
            return distinct(n, masks, p=p, seed=seed)
        case "distinct-reference":
            return distinct(n, masks, p=p, seed=seed, weighting="reference")
    raise ValueError(
        'method must be "antithetic", "independent", "distinct" or "distinct-reference", '
        f"got {method!r}"
    )


@dataclass(frozen=True, eq=False)
class Sweep:
    """One side's masks, their weights, and the embeddings the encoder gave for them.

    Attributes
    ----------
    sample : MaskSample
        Masks (m, n) and weights (m,).
    embeddings : torch.Tensor, (m, D)
        One row per mask, on the encoder's device and in its dtype.
    ends : torch.Tensor, (2, D)
        Embeddings with every player removed, and with every player kept.
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


def sweep(
    side: Side,
    *,
    masks: int | MaskSample = 2048,
    p: float = 0.5,
    seed: int = 0,
    method: str = "antithetic",
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Embed one side under many masks.

    Every distinct mask is embedded once, and two more rows are: everything removed and everything
    kept. If 2**n masks are affordable, all are listed and the side has no sampling error.

    Parameters
    ----------
    side : Side
        Anything with ``n``, ``names`` and ``embed(masks (b, n)) -> (b, D)``.
    masks : int or MaskSample
        Budget, or a sample of one's own (then ``p``, ``seed`` and ``method`` are not used).
    p : float
        Probability of keeping a player, in (0, 1).
    seed : int
        The same seed gives the same masks.
    method : str
        See `draw`.
    batch_size : int, optional
        Masks per forward pass; by default the side's own ``batch_size``, else 256. A batch that
        does not fit in memory is halved, with a warning, and the sweep goes on.
    progress : bool, optional
        Show a progress bar; by default only on a terminal.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError
        For impossible numbers, or where the encoder returns anything but one finite row per mask.
    """
    if isinstance(masks, MaskSample):
        sample = masks
        check_masks(sample.masks, side.n)
    else:
        sample = draw(side.n, masks, p=p, seed=seed, method=method)
    ends = torch.tensor([[False], [True]]).expand(2, side.n)  # everything removed, everything kept
    embeddings = embed_masks(
        side, torch.cat([sample.masks, ends]), batch_size=batch_size, progress=progress
    )
    return Sweep(
        sample,
        embeddings[:-2],
        embeddings[-2:],
        tuple(side.names),
        dict(getattr(side, "info", {})),
        getattr(side, "picture", None),
    )


def extend(
    swept: Sweep,
    side: Side,
    masks: int,
    *,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Grow a sweep to more masks of the same seed; only masks not seen before are embedded.

    The result is the sweep that ``sweep(side, masks=masks, ...)`` makes with the same ``p``,
    ``seed`` and ``method``. Antithetic and independent masks begin with the masks of the smaller
    sample; of "distinct" ones, only those that both samples share are saved.

    Parameters
    ----------
    swept : Sweep
        From `sweep`, of the same side.
    side : Side
    masks : int
        Budget, at least as many as ``swept`` has; all masks are listed where it allows that.
    batch_size, progress
        See `sweep`.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError
        For fewer masks than there are, for a side with other players, or for a sample that was
        not drawn by `draw`.
    """
    old = swept.sample
    if tuple(side.names) != swept.names:
        raise ValueError(
            f"the sweep has {swept.n} players ({swept.names[0]}, ...) and the side {side.n} "
            f"({side.names[0]}, ...): extend a sweep with the side that made it"
        )
    check_counts(side.n, masks)
    if masks < old.m:
        raise ValueError(f"a sweep of {old.m} masks cannot be extended to {masks}: ask for more")
    if old.method == "enumerated":
        return swept
    if old.method not in METHODS:
        raise ValueError(
            f"a {old.method!r} sample was not drawn with a seed: only samples of the methods "
            f"{', '.join(METHODS)} can be extended"
        )
    sample = draw(side.n, masks, p=old.p, seed=old.seed, method=old.method)
    ends = torch.tensor([[False], [True]]).expand(2, side.n)
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


def per_side(name: str, value: object) -> tuple:
    """One value for both sides, or a value for the image and one for the text."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2:
        raise ValueError(f"{name} takes one value or two (image, text), got {value!r}")
    return both


def side_seeds(seed: int) -> tuple[int, int]:
    """Seeds of the image's and of the text's masks: independent streams of one seed."""
    image, text = np.random.SeedSequence(seed).generate_state(2)
    return int(image), int(text)


def embed_masks(
    side: Side,
    masks: torch.Tensor,
    *,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> torch.Tensor:
    """Embed masks (m, n) as (m, D), every distinct mask once, in batches that fit in memory."""
    check_masks(masks, side.n)
    size = getattr(side, "batch_size", 256) if batch_size is None else batch_size
    if size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size!r}")
    first, group = distinct_rows(masks.cpu().numpy())
    todo = masks[torch.from_numpy(first)]  # (distinct, n)
    done, start = [], 0
    bar = tqdm(
        total=len(todo),
        desc=f"{getattr(side, 'info', {}).get('kind', 'side')} masks",
        leave=False,
        disable=None if progress is None else not progress,
    )
    with bar:
        while start < len(todo):
            left = len(todo) - start
            short = 0 < left - size < LAST_BATCH and size >= 2 * LAST_BATCH
            batch = todo[start : start + (left - LAST_BATCH if short else size)]
            try:
                rows = side.embed(batch)
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not _out_of_memory(error):
                    raise
                size = len(batch) // 2
                warnings.warn(
                    f"{len(batch)} masks at once do not fit in memory: going on with {size}",
                    stacklevel=3,
                )
                continue
            done.append(_check_rows(rows, len(batch)))
            start += len(batch)
            bar.update(len(batch))
    return torch.cat(done)[torch.from_numpy(group).to(done[0].device)]


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory: CUDA has a type for it, the CPU only words."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        word in str(error).lower() for word in words
    )


def _check_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    if not isinstance(rows, torch.Tensor) or rows.ndim != 2 or rows.shape[0] != count:
        shape = tuple(rows.shape) if hasattr(rows, "shape") else type(rows).__name__
        raise ValueError(
            f"embed was given {count} masks and returned {shape}: it must return a torch tensor "
            "with one embedding per mask, (masks, D)"
        )
    bad = int((~torch.isfinite(rows).all(1)).sum())
    if bad:
        raise ValueError(
            f"the encoder gave NaN or infinite embeddings for {bad} of {count} masks: "
            "the checkpoint is broken, or its precision too low (try dtype=torch.float32)"
        )
    return rows

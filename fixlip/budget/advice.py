"""How many masks each side should get: for a given time, or until a given error is reached."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from fixlip import renamed
from fixlip.budget.grow import grow
from fixlip.budget.variance import (
    SAMPLED,
    Counts,
    VarianceComponents,
    all_masks,
    least_masks,
    ratio,
    seconds_of,
)
from fixlip.checks import integer, number, per_side, probability, warn
from fixlip.progress import progress_line
from fixlip.sampler import Side, Sweep, side_seeds, sweep
from fixlip.sampler.masks import check_counts

PILOT = (256, 128)
MAX_MASKS = 65536
WARM_UP = 16  # masks of the first, untimed call: it pays for lazy loading, not for masks
NOTHING = (
    "these masks show no interaction of any image player with any text player: the embeddings of a "
    "side do not depend on its masks, or the sides' changes are orthogonal"
)


@dataclass(frozen=True)
class Advice:
    """How many masks to take of the image and of the text, and what error to expect.

    Attributes
    ----------
    masks, players : (int, int)
        Masks of the image and of the text, to be given to `fixlip.explain` or, one by one, to
        `fixlip.sweep`; 2**n of n players are all there are, and so no error from that side.
    error, size : float
        Expected root-mean-square standard error of the image-text interactions, and their
        root-mean-square corrected for it, in units of the game.
    seconds, costs : float, (float, float)
        Expected time of the encoder for these masks and each side's two ends; seconds per mask.
    components : (float, float, float)
        zeta_I, zeta_T and s2 of the variance of a two-sample statistic, on which the paper's
        Theorem 2 has bounds, for the mean over all interactions, in squared units of the game:
        Var = [(m_T - 1) zeta_I + (m_I - 1) zeta_T + s2] / (m_I m_T).
        Predictions count, instead of m, the masks left over after the fit, and no variance of a
        side that is listed in full.
    paper_masks, paper_error : (int, int), float
        The published split (`fixlip.sampler.split_budget`) at equal time, and its expected error.
    notes : tuple of str
        What to know about these numbers of masks.
    """

    masks: Counts
    error: float
    size: float
    seconds: float
    costs: tuple[float, float]
    components: tuple[float, float, float]
    paper_masks: Counts
    paper_error: float
    players: Counts
    notes: tuple[str, ...] = ()

    @property
    def relative(self) -> float:
        """The expected error as a share of the interactions' size."""
        return ratio(self.error, self.size)

    def __repr__(self) -> str:
        image, text = (
            f"{m:,}{' (all)' if m == all_masks(n) else ''}"
            for m, n in zip(self.masks, self.players, strict=True)
        )
        zeta_I, zeta_T, s2 = self.components
        lines = [
            f"Advice: {image} image masks and {text} text masks, about {self.seconds:.3g} s.",
            f"Expected error of an interaction: {self.error:.3g}, {self.relative:.2g} of its size; "
            f"with the paper's split at equal time, {self.paper_masks[0]:,} and "
            f"{self.paper_masks[1]:,} masks: {self.paper_error:.3g}.",
            f"A mask costs {1e3 * self.costs[0]:.3g} ms (image) and {1e3 * self.costs[1]:.3g} ms "
            f"(text); zeta_I = {zeta_I:.3g}, zeta_T = {zeta_T:.3g}, s2 = {s2:.3g}.",
        ]
        return "\n".join([*lines, *self.notes])


@renamed.keywords(method="sampling")
def advise(
    image: Side | Sweep,
    text: Side | Sweep,
    *,
    seconds: float | None = None,
    tolerance: float | None = None,
    p: float | tuple[float, float] = 0.5,
    pilot: int | Counts = PILOT,
    seed: int = 0,
    sampling: str = "antithetic",
    costs: tuple[float, float] | None = None,
    scale: float | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Advice:
    """Advise on the masks of both sides, from a pilot sweep of each.

    The best split gives each side masks in proportion to sqrt(variance / cost) of one of its
    masks: m_I / m_T = sqrt(zeta_I c_T / (zeta_T c_I)). A side whose masks are few enough is listed
    in full, has no variance then, and leaves the rest of the time to the other. No side gets fewer
    masks than four per term of the fit that gives the interactions.

    Parameters
    ----------
    image, text : Side or Sweep
        Sides, such as ``encoder.image(...)``, or sweeps that were made already; these need
        ``costs``, and take the place of a pilot of their side.
    seconds, tolerance : float
        Give one: the time that the encoder may take (the fit comes on top), for the smallest error;
        or the error to reach, relative to the size of the interactions, in (0, 1), for the shortest
        time.
    p, seed, sampling, scale, batch_size, progress
        As in `fixlip.explain`; only "antithetic" and "independent" masks.
    pilot : int or (int, int)
        Masks of the pilot; raised to the least that carries a fit, and to all where a side has
        no more than that.
    costs : float or (float, float), optional
        Seconds (or any other price) of one image mask and of one text mask; by default the time of
        the pilot, after a first call that is not counted.

    References
    ----------
    Baniecki et al., NeurIPS 2025, Theorem 2, for the variance of cross-modal sampling.

    Examples
    --------
    >>> class Toy:
    ...     n, names = 20, [str(i) for i in range(20)]
    ...     def embed(self, masks): return torch.tanh(masks.double().cumsum(1) - 5)
    >>> advice = advise(Toy(), Toy(), seconds=3, costs=(0.001, 0.0001))
    >>> advice.masks[1] > advice.masks[0]  # text masks are cheaper, and vary as much
    True
    """
    if (seconds is None) == (tolerance is None):
        raise ValueError("give either seconds=... (the time there is) or tolerance=... (the error)")
    if seconds is not None:
        number("seconds", seconds, above=0)
    if tolerance is not None:
        check_tolerance(tolerance)
    if costs is not None:
        costs = tuple(number("costs", cost, above=0) for cost in per_side("costs", costs))
    swept, timed = [], []
    each = (image, text), per_side("p", p), per_side("pilot", pilot), side_seeds(seed)
    for side, q, masks, s in zip(*each, strict=True):
        if isinstance(side, Sweep):
            if costs is None:
                raise ValueError("sweeps do not say what a mask costs: give costs=(image, text)")
            swept.append(side)
            continue
        timed.append(_Timed(side))
        check_counts(side.n, masks)
        masks = max(masks, least_masks(side.n, probability(q)))
        swept.append(_pilot(timed[-1], masks, q, s, sampling, batch_size, progress))
    components = VarianceComponents.of(*swept, sampling=sampling, scale=scale)
    costs = costs or tuple(side.cost for side in timed)
    if tolerance is not None:
        seconds = components.time_for((tolerance * components.rms_interaction) ** 2, costs)
    masks = components.split(seconds, costs)
    if components.no_interaction:
        warn(NOTHING)
        masks = components.min_masks
    taken = seconds_of(masks, costs)
    if not components.no_interaction and taken > seconds * (1 + 1e-9):
        warn(
            f"{seconds:.3g} seconds are too short: {masks[0]:,} image and {masks[1]:,} text masks, "
            f"the fewest that carry a fit, take {taken:.3g} seconds"
        )
    paper = components.paper_split(taken, costs)
    notes = []
    if components.relative >= 1 and not components.no_interaction:
        notes.append(
            "The pilot does not tell the interactions from zero: take a larger one to be sure of "
            "their size."
        )
    for name, n, m in zip(("image", "text"), components.players, masks, strict=True):
        if m < 1 + n * (n + 1) // 2 and m < all_masks(n):
            notes.append(
                f"Pairs within the {name} have {n * (n - 1) // 2} terms, and {m:,} masks leave "
                "some of them to the ridge penalty."
            )
    return Advice(
        masks=masks,
        error=math.sqrt(components.variance(*masks)),
        size=components.rms_interaction,
        seconds=taken,
        costs=costs,
        components=(components.zeta_image, components.zeta_text, components.s2),
        paper_masks=paper,
        paper_error=math.sqrt(components.variance(*paper)),
        players=components.players,
        notes=tuple(notes),
    )


def sweep_to_tolerance(
    image: Side,
    text: Side,
    *,
    tolerance: float = 0.05,
    max_masks: int = MAX_MASKS,
    p: float | tuple[float, float] = 0.5,
    seed: int = 0,
    sampling: str = "antithetic",
    batch_size: int | None = None,
    progress: bool | None = None,
) -> tuple[Sweep, Sweep, dict[str, Any]]:
    """Sweep both sides until their interactions are known to a tolerance.

    Starts with a pilot, and in every round takes the split that `advise` expects to be enough, but
    at least 1.25 and at most 4 times the time spent so far. No masked input is embedded twice.
    Returns the same sweeps as with these numbers of masks from the start, and a report:
    ``tolerance``; ``error``, the one reached (1 where the interactions cannot be told from zero);
    ``rounds``; and by side (image, text) ``masks`` and ``seconds``.

    Parameters
    ----------
    tolerance : float
        Root-mean-square standard error of the image-text interactions, divided by their
        root-mean-square size; in (0, 1).
    max_masks : int
        Most masks of either side.
    p, seed, sampling, batch_size, progress
        As in `advise`.
    """
    check_tolerance(tolerance)
    sides = _Timed(image), _Timed(text)
    keep = per_side("p", p)
    least = [least_masks(side.n, probability(q)) for side, q in zip(sides, keep, strict=True)]
    if integer("max_masks", max_masks) < max(least):
        raise ValueError(
            f"max_masks must be {max(least):,} or more, the fewest masks that carry a fit of "
            f"{image.n} and {text.n} players at p={p}, got {max_masks!r}"
        )
    most = max_masks - max_masks % 2  # twins come in pairs
    swept = [
        _pilot(side, min(max(m, few), most), q, s, sampling, batch_size, progress)
        for side, m, few, q, s in zip(sides, PILOT, least, keep, side_seeds(seed), strict=True)
    ]
    rounds = 1
    while True:
        components = VarianceComponents.of(*swept, sampling=sampling, scale=1.0, keep=True)
        if components.no_interaction:
            warn(NOTHING)
            break
        if components.relative <= tolerance:
            break
        masks = _next(components, tolerance, tuple(side.cost for side in sides), most)
        if masks == components.masks:
            warn(
                f"the interactions' error is {components.relative:.2g} of their size and not "
                f"{tolerance:g}: {masks[0]:,} image and {masks[1]:,} text masks are all that "
                f"max_masks={max_masks:,} allows. Raise max_masks, or play with coarser players"
            )
            break
        swept = [
            grow(one, side, m, batch_size=batch_size, progress=progress)
            for one, side, m in zip(swept, sides, masks, strict=True)
        ]
        rounds += 1
    report = {
        "tolerance": float(tolerance),
        "error": components.relative,
        "rounds": rounds,
        "masks": list(components.masks),
        "seconds": [side.seconds for side in sides],
    }
    progress_line(
        f"{swept[0].sample.m:,} image and {swept[1].sample.m:,} text masks (rounds: {rounds}), "
        f"{sum(report['seconds']):.3g} s: error {components.relative:.2g} of the interactions",
        progress,
    )
    return *swept, report


def _next(
    components: VarianceComponents, tolerance: float, costs: tuple[float, float], most: int
) -> Counts:
    """Masks of the next round: what the tolerance is expected to need, within bounds."""
    # a little more than needed: to miss the tolerance by little would cost a round more
    wanted = components.time_for(0.95 * (tolerance * components.rms_interaction) ** 2, costs, most)
    spent = seconds_of(components.masks, costs)
    target = components.split(min(max(wanted, 1.25 * spent), 4 * spent), costs, most)
    return tuple(max(m, min(t, 4 * m)) for m, t in zip(components.masks, target, strict=True))


class _Timed:
    """A side with a stopwatch: everything else is passed on."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._calls: list[tuple[int, float]] = []  # masks, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._side, name)

    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        rows = self._side.embed(masks)
        if isinstance(rows, torch.Tensor):
            rows[:1].cpu()  # a GPU works on after the call: wait for its answer
        self._calls.append((len(masks), time.perf_counter() - start))
        return rows

    @property
    def seconds(self) -> float:
        return sum(s for _, s in self._calls)

    @property
    def cost(self) -> float:
        """Seconds per mask, without the first call where there are more."""
        calls = self._calls[1:] or self._calls
        return max(sum(s for _, s in calls) / sum(m for m, _ in calls), 1e-9)


def _pilot(
    side: _Timed,
    masks: int,
    p: float,
    seed: int,
    sampling: str,
    batch_size: int | None,
    progress: bool | None,
) -> Sweep:
    """A small sweep in two calls, so that the first one can be left out of the time."""
    if sampling not in SAMPLED:
        raise ValueError(
            f"a number of masks can be advised for the samplings {' and '.join(SAMPLED)} only, "
            f"got {sampling!r}"
        )
    options = {"batch_size": batch_size, "progress": progress}
    first = sweep(side, masks=min(WARM_UP, masks), p=p, seed=seed, sampling=sampling, **options)
    return grow(first, side, masks - masks % 2, **options)


def check_tolerance(tolerance: float) -> None:
    """Raise unless a tolerance lies strictly between 0 and 1."""
    if not 0 < number("tolerance", tolerance) < 1:
        raise ValueError(
            "tolerance is an error relative to the size of the interactions and must lie strictly "
            f"between 0 and 1, got {tolerance!r} (0.05 is 5 %)"
        )

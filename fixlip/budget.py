"""How many masks each side should get: for a given time, or until a given error is reached.

The interaction of image player i and text player t is an inner product of regression slopes,
<J_I[i], J_T[t]>, and the two sides are sampled independently. With slopes that vary by S_I / m_I
and S_T / m_T (D x D, summed over the players), the mean variance of all n_I n_T interactions is

    Var = zeta_I / m_I + zeta_T / m_T + (s2 - zeta_I - zeta_T) / (m_I m_T),
    zeta_I = tr(S_I J_T'J_T), zeta_T = tr(S_T J_I'J_I), s2 - zeta_I - zeta_T = tr(S_I S_T),

each over n_I n_T: the three components of a two-sample statistic, all from one pilot sweep a side.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from fixlip.game import pair_scale
from fixlip.sampler import (
    MAX_ENUMERATED,
    Side,
    Sweep,
    check_p,
    extend,
    per_side,
    side_seeds,
    split_budget,
    sweep,
)
from fixlip.sidefit import FEW, Problem
from fixlip.sidefit import Side as SideNumbers

PILOT = (256, 128)
MAX_MASKS = 65536
WARM_UP = 16  # masks of the first, untimed call: it pays for lazy loading, not for masks
RARE = 8  # masks, on average, in which a player is kept, and in which it is removed
SAMPLED = ("antithetic", "independent")  # masks that are drawn one like the other

Counts = tuple[int, int]


@dataclass(frozen=True)
class Advice:
    """How many masks to take of the image and of the text, and what error to expect.

    Attributes
    ----------
    masks : (int, int)
        Masks of the image and of the text, to be given to `fixlip.explain` or, one by one, to
        `fixlip.sweep`. 2**n of n players: all there are, and so no error from that side.
    error : float
        Expected root-mean-square standard error of the image-text interactions, in units of the
        game.
    size : float
        Root-mean-square of the interactions themselves, corrected for their error.
    seconds : float
        Expected time of the encoder for these masks and each side's two ends.
    costs : (float, float)
        Seconds per mask, image and text.
    components : (float, float, float)
        zeta_I, zeta_T and s2 of the paper's Theorem 2 for the mean over all interactions, in
        squared units of the game: Var = [(m_T - 1) zeta_I + (m_I - 1) zeta_T + s2] / (m_I m_T).
        0 for what a side causes that is listed in full. Predictions count, instead of m, the
        masks left over after the fit.
    paper_masks, paper_error : (int, int), float
        The paper's split (`fixlip.split_budget`) at equal time, and its expected error.
    players : (int, int)
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
        return _ratio(self.error, self.size)

    def __repr__(self) -> str:
        image, text = (
            f"{m:,}{' (all)' if m == _all(n) else ''}"
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


def advise(
    image: Side | Sweep,
    text: Side | Sweep,
    *,
    seconds: float | None = None,
    tolerance: float | None = None,
    p: float | tuple[float, float] = 0.5,
    pilot: int | Counts = PILOT,
    seed: int = 0,
    method: str = "antithetic",
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
    seconds : float
        Time that the encoder may take: the error is made as small as possible. Give this or
        ``tolerance``. The fit that follows takes time of its own.
    tolerance : float
        Error to reach, relative to the size of the interactions, in (0, 1): the time is made as
        short as possible.
    p, seed, method
        As in `fixlip.explain`; only "antithetic" and "independent" masks.
    pilot : int or (int, int)
        Masks of the pilot; raised to the least that carries a fit, and to all where a side has
        no more than that.
    costs : (float, float), optional
        Seconds (or any other price) of one image mask and of one text mask; by default the time of
        the pilot, after a first call that is not counted.
    scale : float, optional
        As in `fixlip.solve`.
    batch_size, progress
        See `fixlip.sweep`.

    Returns
    -------
    Advice

    Raises
    ------
    ValueError
        For impossible numbers, and for sweeps too small to tell anything.

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
    if seconds is not None and not (_number(seconds) and 0 < seconds < math.inf):
        raise ValueError(f"seconds must be a positive number, got {seconds!r}")
    if tolerance is not None:
        check_tolerance(tolerance)
    if costs is not None and not (
        len(costs) == 2 and all(_number(c) and 0 < c < math.inf for c in costs)
    ):
        raise ValueError(f"costs are two positive numbers (image, text), got {costs!r}")
    swept, timed = [], []
    each = (image, text), per_side("p", p), per_side("pilot", pilot), side_seeds(seed)
    for side, q, masks, s in zip(*each, strict=True):
        if isinstance(side, Sweep):
            if costs is None:
                raise ValueError("sweeps do not say what a mask costs: give costs=(image, text)")
            swept.append(side)
            continue
        timed.append(_Timed(side))
        masks = max(masks, least_masks(side.n, check_p(q)))
        swept.append(_pilot(timed[-1], masks, q, s, method, batch_size, progress))
    spread = Spread.of(*swept, scale=scale)
    costs = tuple(side.cost for side in timed) if costs is None else tuple(map(float, costs))
    if spread.nothing:
        warnings.warn(NOTHING, stacklevel=2)
    if seconds is None:
        seconds = spread.time_for((tolerance * spread.size) ** 2, costs)
    masks = spread.split(seconds, costs)
    taken = _seconds(masks, costs)
    if taken > seconds * (1 + 1e-9):
        warnings.warn(
            f"{seconds:.3g} seconds are too short: {masks[0]:,} image and {masks[1]:,} text masks, "
            f"the fewest that carry a fit, take {taken:.3g} seconds",
            stacklevel=2,
        )
    paper = spread.paper_split(taken, costs)
    notes = []
    if spread.relative >= 1 and not spread.nothing:
        notes.append(
            "The pilot does not tell the interactions from zero: take a larger one to be sure of "
            "their size."
        )
    for name, n, m in zip(("image", "text"), spread.players, masks, strict=True):
        if m < 1 + n * (n + 1) // 2 and m < _all(n):
            notes.append(
                f"Pairs within the {name} have {n * (n - 1) // 2} terms, and {m:,} masks leave "
                "some of them to the ridge penalty."
            )
    return Advice(
        masks,
        math.sqrt(spread.variance(*masks)),
        spread.size,
        taken,
        costs,
        (spread.from_image, spread.from_text, spread.s2),
        paper,
        math.sqrt(spread.variance(*paper)),
        spread.players,
        tuple(notes),
    )


def sweep_to_tolerance(
    image: Side,
    text: Side,
    *,
    tolerance: float = 0.05,
    max_masks: int = MAX_MASKS,
    p: float | tuple[float, float] = 0.5,
    seed: int = 0,
    method: str = "antithetic",
    batch_size: int | None = None,
    progress: bool | None = None,
) -> tuple[Sweep, Sweep, dict[str, Any]]:
    """Sweep both sides until their interactions are known to a tolerance.

    Starts with a pilot, and in every round takes the split that `advise` expects to be enough, but
    1.25 to 4 times the time so far. No masked input is embedded twice.

    Parameters
    ----------
    image, text : Side
    tolerance : float
        Root-mean-square standard error of the image-text interactions, divided by their
        root-mean-square size; in (0, 1).
    max_masks : int
        Most masks of either side.
    p, seed, method
        As in `fixlip.explain`; only "antithetic" and "independent" masks.
    batch_size, progress
        See `fixlip.sweep`.

    Returns
    -------
    tuple of Sweep, Sweep and dict
        The same sweeps as with these numbers of masks from the start, and a report, JSON-able:
        ``tolerance``; ``error``, the one reached (1 where the interactions cannot be told from
        zero); ``rounds``; and by side (image, text) ``masks`` and ``seconds``.
    """
    check_tolerance(tolerance)
    sides = _Timed(image), _Timed(text)
    keep = per_side("p", p)
    least = [least_masks(side.n, check_p(q)) for side, q in zip(sides, keep, strict=True)]
    if isinstance(max_masks, bool) or not isinstance(max_masks, int) or max_masks < max(least):
        raise ValueError(
            f"max_masks must be a whole number of {max(least):,} or more, the fewest masks that "
            f"carry a fit of {image.n} and {text.n} players at p={p}, got {max_masks!r}"
        )
    most = max_masks - max_masks % 2  # twins come in pairs
    swept = [
        _pilot(side, min(max(m, few), most), q, s, method, batch_size, progress)
        for side, m, few, q, s in zip(sides, PILOT, least, keep, side_seeds(seed), strict=True)
    ]
    rounds = 1
    while True:
        spread = Spread.of(*swept, scale=1.0)
        if spread.nothing:
            warnings.warn(NOTHING, stacklevel=3)
            break
        if spread.relative <= tolerance:
            break
        masks = _next(spread, tolerance, tuple(side.cost for side in sides), most)
        if masks == spread.masks:
            warnings.warn(
                f"the interactions' error is {spread.relative:.2g} of their size and not "
                f"{tolerance:g}: {masks[0]:,} image and {masks[1]:,} text masks are all that "
                f"max_masks={max_masks:,} allows. Raise max_masks, or play with coarser players",
                stacklevel=3,
            )
            break
        swept = [
            extend(one, side, m, batch_size=batch_size, progress=progress)
            for one, side, m in zip(swept, sides, masks, strict=True)
        ]
        rounds += 1
    report = {
        "tolerance": float(tolerance),
        "error": spread.relative,
        "rounds": rounds,
        "masks": list(spread.masks),
        "seconds": [side.seconds for side in sides],
    }
    if progress or (progress is None and sys.stderr.isatty()):
        tqdm.write(
            f"{spread.masks[0]:,} image and {spread.masks[1]:,} text masks in {rounds} rounds, "
            f"{sum(report['seconds']):.3g} s: error {spread.relative:.2g} of the interactions",
            file=sys.stderr,
        )
    return *swept, report


def _next(spread: Spread, tolerance: float, costs: tuple[float, float], most: int) -> Counts:
    """Masks of the next round: what the tolerance is expected to need, within bounds."""
    # a little more than needed: an estimate just short of the tolerance costs a whole round
    wanted = spread.time_for(0.95 * (tolerance * spread.size) ** 2, costs, most)
    spent = _seconds(spread.masks, costs)
    target = spread.split(min(max(wanted, 1.25 * spent), 4 * spent), costs, most)
    return tuple(max(m, min(t, 4 * m)) for m, t in zip(spread.masks, target, strict=True))


NOTHING = (
    "these masks show no interaction of any image player with any text player: the embeddings of a "
    "side do not depend on its masks, or the sides' changes are orthogonal"
)


@dataclass(frozen=True)
class Spread:
    """How the variance of the interactions depends on the numbers of masks, from two sweeps.

    Variances are means over all image-text pairs, of one mask a side.
    """

    players: Counts
    masks: Counts  # of the sweeps it was estimated from
    least: Counts
    used: Counts  # masks that the fit itself uses up
    from_image: float  # zeta_I
    from_text: float  # zeta_T
    from_both: float  # s2 - zeta_I - zeta_T
    size: float  # RMS interaction, corrected for its error
    relative: float  # the sweeps' own RMS standard error over the size, at most 1
    nothing: bool  # no interaction beyond rounding errors

    @classmethod
    def of(cls, image: Sweep, text: Sweep, *, scale: float | None = None) -> Spread:
        """Estimate from two sweeps, as the standard errors of `fixlip.solve` are."""
        scale, _ = pair_scale(image.info, text.info, scale=scale)
        widths = image.embeddings.shape[1], text.embeddings.shape[1]
        if widths[0] != widths[1]:
            raise ValueError(
                f"the sides have embeddings of width {widths[0]} and {widths[1]}: take both from "
                "the same model"
            )
        (J_I, S_I, used_I), (J_T, S_T, used_T) = _slopes(image), _slopes(text)  # S: (D, D)
        M_I, M_T = J_I.T @ J_I, J_T.T @ J_T  # (D, D)
        S_T, M_T = S_T.to(S_I), M_T.to(M_I)
        unit = scale**2 / (image.n * text.n)
        squares, from_image, from_text, both = (
            unit * float((a * b).sum()) for a, b in ((M_I, M_T), (S_I, M_T), (M_I, S_T), (S_I, S_T))
        )
        ends = [float(s.ends.double().norm(dim=1).max()) for s in (image, text)]
        rounding = 10 * torch.finfo(image.embeddings.dtype).eps * abs(scale) * math.prod(ends)
        error = from_image + from_text  # counts `both` twice, to be careful, as stderr does
        size = max(squares - error, error)
        used = used_I, used_T
        left = [float(_left(s.sample.m, u)) for s, u in zip((image, text), used, strict=True)]
        return cls(
            players=(image.n, text.n),
            masks=(image.sample.m, text.sample.m),
            least=tuple(
                s.sample.m if s.sample.method == "enumerated" else least_masks(s.n, s.sample.p)
                for s in (image, text)
            ),
            used=used,
            # slopes of a pilot vary: what they add to the other side's share is taken out again
            from_image=left[0] * max(from_image - both, 0.0),
            from_text=left[1] * max(from_text - both, 0.0),
            from_both=left[0] * left[1] * both,
            size=math.sqrt(size),
            relative=_ratio(math.sqrt(error), math.sqrt(size)),
            nothing=math.sqrt(squares) <= rounding,
        )

    @property
    def s2(self) -> float:
        """Variance by one mask of the image and one of the text."""
        return self.from_image + self.from_text + self.from_both

    def variance(self, image: np.ndarray | int, text: np.ndarray | int) -> np.ndarray:
        """Expected mean variance of the interactions for numbers of masks."""
        one, two = (
            np.where(np.asarray(m) >= _all(n), 0.0, 1 / _left(np.asarray(m, float), used))
            for m, n, used in zip((image, text), self.players, self.used, strict=True)
        )
        return self.from_image * one + self.from_text * two + self.from_both * one * two

    def split(self, seconds: float, costs: tuple[float, float], most: float = math.inf) -> Counts:
        """The masks of least variance for a time; the fewest possible if the time is too short."""
        caps = [min(_all(n), most) for n in self.players]
        left = seconds - 2 * sum(costs)  # the ends
        share = 1 / (1 + np.exp(-np.linspace(-12, 12, 2001)))  # of the image

        def whole(side: int, masks: np.ndarray) -> np.ndarray:
            even = np.floor(masks / 2 + 1e-9) * 2
            return np.clip(even, self.least[side], caps[side])

        image = whole(0, share * left / costs[0])
        text = whole(1, (left - costs[0] * image) / costs[1])
        image = whole(0, (left - costs[1] * text) / costs[0])  # what the text has no use for
        price = costs[0] * image + costs[1] * text
        ok = price <= left * (1 + 1e-9)
        if not ok.any():
            return self.least
        best = np.lexsort((price[ok], self.variance(image[ok], text[ok])))[0]
        return int(image[ok][best]), int(text[ok][best])

    def time_for(
        self, variance: float, costs: tuple[float, float], most: float = math.inf
    ) -> float:
        """The shortest time that brings the variance down to a value, or as far as it goes."""
        low = high = _seconds(self.least, costs)
        masks = self.least
        while self.variance(*masks) > variance:
            low, high = high, 2 * high
            before, masks = masks, self.split(high, costs, most)
            if masks == before:  # there are no more
                return low
        for _ in range(40):
            middle = (low + high) / 2
            enough = self.variance(*self.split(middle, costs, most)) <= variance
            low, high = (low, middle) if enough else (middle, high)
        return high

    def paper_split(self, seconds: float, costs: tuple[float, float]) -> Counts:
        """The split of the FIxLIP experiments for as many game values as a time pays for."""
        low, high = 4, 8
        while _seconds(split_budget(*self.players, high), costs) <= seconds and high < 2**50:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            fits = _seconds(split_budget(*self.players, middle), costs) <= seconds
            low, high = (middle, high) if fits else (low, middle)
        masks = split_budget(*self.players, low)
        return tuple(int(min(m, _all(n))) for m, n in zip(masks, self.players, strict=True))


def _slopes(swept: Sweep) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Slopes (n, D), their covariance summed over players (D, D), and masks used up by the fit."""
    sample, kind = swept.sample, swept.info.get("kind", "side")
    if sample.method not in ("enumerated", *SAMPLED):
        raise ValueError(
            f"the {kind} was swept with {sample.method!r} masks: a pilot needs masks of the "
            f"methods {' or '.join(SAMPLED)}"
        )
    if sample.method != "enumerated":
        if sample.m < FEW * (swept.n + 1):
            raise ValueError(
                f"{sample.m} masks of {swept.n} players are too few for a pilot: "
                f"take {least_masks(swept.n, sample.p):,} or more"
            )
        kept = sample.masks.sum(0)
        fixed = int(((kept == 0) | (kept == sample.m)).sum())
        if fixed:
            raise ValueError(
                f"{fixed} of {swept.n} players of the {kind} are kept in all or in none of "
                f"{sample.m} masks: take more masks, or a p nearer to 0.5 than {sample.p:g}"
            )
    side = SideNumbers(swept)
    players = torch.arange(side.n)
    problem = Problem(side, players, players[:0], 0.0, side.E)
    slopes = problem.terms(side.E)[1]  # (n, D)
    residual = problem.residual(side.E)  # (m, D)
    covariance = slopes.new_zeros(2 * [slopes.shape[1]])
    for member in side.members().T:
        moved = problem.terms(residual * member[:, None])[1]  # (n, D)
        covariance += moved.T @ moved
    return slopes, covariance, (2 if side.folded else 1) * (side.n + 1)


class _Timed:
    """A side with a stopwatch: everything else is passed on."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._calls: list[tuple[int, float]] = []  # masks, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._side, name)

    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        """Embed, and note how long it took."""
        start = time.perf_counter()
        rows = self._side.embed(masks)
        if isinstance(rows, torch.Tensor):
            rows[:1].cpu()  # a GPU works on after the call: wait for its answer
        self._calls.append((len(masks), time.perf_counter() - start))
        return rows

    @property
    def seconds(self) -> float:
        """Seconds of all calls."""
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
    method: str,
    batch_size: int | None,
    progress: bool | None,
) -> Sweep:
    """A small sweep in two calls, so that the first one can be left out of the time."""
    if method not in SAMPLED:
        raise ValueError(
            f"a number of masks can be advised for the methods {' and '.join(SAMPLED)} only, "
            f"got {method!r}"
        )
    options = {"batch_size": batch_size, "progress": progress}
    first = sweep(side, masks=min(WARM_UP, masks), p=p, seed=seed, method=method, **options)
    return extend(first, side, masks - masks % 2, **options)


def check_tolerance(tolerance: float) -> None:
    """Raise unless a tolerance lies strictly between 0 and 1."""
    if not (_number(tolerance) and 0 < tolerance < 1):
        raise ValueError(
            "tolerance is an error relative to the size of the interactions and must lie strictly "
            f"between 0 and 1, got {tolerance!r} (0.05 is 5 %)"
        )


def least_masks(n: int, p: float) -> int:
    """The fewest masks, an even number, that carry the fit of a side's n first-order terms.

    Four per coefficient, and enough to keep and to remove every player a few times.
    """
    few = max(FEW * (n + 1), math.ceil(RARE / min(p, 1 - p)))
    return int(min(few + few % 2, _all(n)))


def _all(n: int) -> float:
    """The number of masks of n players; infinite where they are too many to be listed."""
    return 2**n if n <= MAX_ENUMERATED else math.inf


def _left(masks: np.ndarray | float, used: int) -> np.ndarray:
    """Masks left over after a fit that uses some up; a fit of too few is shrunk instead."""
    return np.maximum(masks - used, masks / 2)


def _seconds(masks: Counts, costs: tuple[float, float]) -> float:
    """Time of two sweeps with their ends."""
    return sum(c * (m + 2) for m, c in zip(masks, costs, strict=True))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _number(value: object) -> bool:
    return isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)

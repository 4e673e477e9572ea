"""How the sampling error of the interactions depends on the numbers of masks: the best split.

The interaction of image player i and text player t is an inner product of regression slopes,
<J_I[i], J_T[t]>, and the two sides are sampled independently. With slopes that vary by S_I / m_I
and S_T / m_T (D x D, summed over the players), the mean variance of all n_I n_T interactions is

    Var = zeta_I / m_I + zeta_T / m_T + (s2 - zeta_I - zeta_T) / (m_I m_T),
    zeta_I = tr(S_I J_T'J_T), zeta_T = tr(S_T J_I'J_I), s2 - zeta_I - zeta_T = tr(S_I S_T),

each over n_I n_T: the three components of a two-sample statistic, all from one pilot sweep a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from fixlip.checks import MAX_ENUMERATED
from fixlip.sampler import Sweep, split_budget
from fixlip.solver import pair_scale
from fixlip.solver.errors import members, residuals
from fixlip.solver.polynomial import MIN_MASKS_PER_TERM, Design, Problem

RARE = 8  # least expected number of masks in which a player is kept, and is removed
SAMPLED = ("antithetic", "independent")  # masks that are drawn one like the other

Counts = tuple[int, int]


@dataclass(frozen=True)
class VarianceComponents:
    """How the variance of the interactions depends on the numbers of masks, from two sweeps.

    Variances are means over all image-text pairs, of one mask a side.
    """

    players: Counts
    masks: Counts  # of the sweeps it was estimated from
    min_masks: Counts
    fit_masks: Counts  # degrees of freedom that the fit itself takes
    zeta_image: float  # zeta_I
    zeta_text: float  # zeta_T
    zeta_both: float  # s2 - zeta_I - zeta_T
    rms_interaction: float  # RMS interaction, corrected for its error
    relative: float  # the sweeps' own RMS standard error over the size, at most 1
    no_interaction: bool  # no interaction beyond rounding errors

    @classmethod
    def of(
        cls,
        image: Sweep,
        text: Sweep,
        *,
        sampling: str = "antithetic",
        scale: float | None = None,
        keep: bool = False,
    ) -> VarianceComponents:
        """Estimate from two sweeps, as the standard errors of `fixlip.solve` are.

        ``sampling`` says how masks would be drawn of a side that is listed in full; with ``keep``
        it stays listed.
        """
        scale, _ = pair_scale(image.info, text.info, scale=scale)

        def fewest(swept: Sweep) -> int:
            listed = keep and swept.sample.sampling == "enumerated"
            return swept.sample.m if listed else least_masks(swept.n, swept.sample.p)

        if (width := image.embeddings.shape[1]) != (other := text.embeddings.shape[1]):
            raise ValueError(
                f"the sides have embeddings of width {width} and {other}: use one model for both"
            )
        found = [_slopes(swept, sampling) for swept in (image, text)]
        (J_I, S_I, used_I, now_I), (J_T, S_T, used_T, now_T) = found  # J: (n, D), S: (D, D)
        M_I, M_T = J_I.T @ J_I, J_T.T @ J_T  # (D, D)
        S_T, M_T = S_T.to(S_I), M_T.to(M_I)
        unit = scale**2 / (image.n * text.n)
        squares, zeta_image, zeta_text, both = (
            unit * float((a * b).sum()) for a, b in ((M_I, M_T), (S_I, M_T), (M_I, S_T), (S_I, S_T))
        )
        ends = [float(s.ends.cpu().double().norm(dim=1).max()) for s in (image, text)]
        rounding = 10 * max(image.eps, text.eps) * abs(scale) * math.prod(ends)
        # counts `both` twice, to be careful, as stderr does
        error = now_I * zeta_image + now_T * zeta_text
        size = max(squares - error, error)
        return cls(
            players=(image.n, text.n),
            masks=(image.sample.m, text.sample.m),
            min_masks=(fewest(image), fewest(text)),
            fit_masks=(used_I, used_T),
            # slopes of a pilot vary: what they add to the other side's share is taken out again
            zeta_image=max(zeta_image - now_T * both, 0.0),
            zeta_text=max(zeta_text - now_I * both, 0.0),
            zeta_both=both,
            rms_interaction=math.sqrt(size),
            relative=ratio(math.sqrt(error), math.sqrt(size)),
            no_interaction=math.sqrt(squares) <= rounding,
        )

    @property
    def s2(self) -> float:
        """Variance by one mask of the image and one of the text."""
        return self.zeta_image + self.zeta_text + self.zeta_both

    def variance(self, image: np.ndarray | int, text: np.ndarray | int) -> np.ndarray:
        """Expected mean variance of the interactions for numbers of masks."""
        one, two = (
            np.where(np.asarray(m) >= all_masks(n), 0.0, 1 / _left(np.asarray(m, float), used))
            for m, n, used in zip((image, text), self.players, self.fit_masks, strict=True)
        )
        return self.zeta_image * one + self.zeta_text * two + self.zeta_both * one * two

    def split(self, seconds: float, costs: tuple[float, float], most: float = math.inf) -> Counts:
        """The masks of least variance for a time; the fewest possible if the time is too short."""
        caps = [min(all_masks(n), most) for n in self.players]
        left = seconds - 2 * sum(costs)  # the ends
        share = 1 / (1 + np.exp(-np.linspace(-12, 12, 2001)))  # of the image

        def possible(side: int, masks: np.ndarray) -> np.ndarray:
            even = np.floor(masks / 2 + 1e-9) * 2
            return np.clip(even, self.min_masks[side], caps[side])

        image = possible(0, share * left / costs[0])
        text = possible(1, (left - costs[0] * image) / costs[1])
        image = possible(0, (left - costs[1] * text) / costs[0])  # time that the text cannot use
        price = costs[0] * image + costs[1] * text
        ok = price <= left * (1 + 1e-9)
        if not ok.any():
            return self.min_masks
        best = np.lexsort((price[ok], self.variance(image[ok], text[ok])))[0]
        return int(image[ok][best]), int(text[ok][best])

    def time_for(
        self, variance: float, costs: tuple[float, float], most: float = math.inf
    ) -> float:
        """The shortest time that brings the variance down to a value, or as far as it goes."""
        low = high = seconds_of(self.min_masks, costs)
        masks = self.min_masks
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
        while seconds_of(split_budget(*self.players, high), costs) <= seconds and high < 2**50:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            fits = seconds_of(split_budget(*self.players, middle), costs) <= seconds
            low, high = (middle, high) if fits else (low, middle)
        masks = split_budget(*self.players, low)
        return tuple(int(min(m, all_masks(n))) for m, n in zip(masks, self.players, strict=True))


def _slopes(swept: Sweep, sampling: str) -> tuple[torch.Tensor, torch.Tensor, int, float]:
    """Slopes (n, D); their covariance by one mask, summed over players (D, D); the degrees of
    freedom that a fit takes; and the share of that covariance that these slopes have, 0 if all
    masks are listed.
    """
    sample, kind = swept.sample, swept.info.get("kind", "side")
    if sample.sampling not in ("enumerated", *SAMPLED):
        raise ValueError(
            f"the {kind} was swept with {sample.sampling!r} masks: a pilot needs sampling="
            f"{' or '.join(map(repr, SAMPLED))}"
        )
    if sample.sampling != "enumerated":
        if sample.m < MIN_MASKS_PER_TERM * (swept.n + 1):
            raise ValueError(
                f"{sample.m} masks of {swept.n} players are too few for a pilot: "
                f"take {least_masks(swept.n, sample.p):,} or more"
            )
        kept = sample.masks.sum(0)
        if fixed := int(((kept == 0) | (kept == sample.m)).sum()):
            raise ValueError(
                f"{fixed} of {swept.n} players of the {kind} are kept in all or in none of "
                f"{sample.m} masks: take more masks, or a p nearer to 0.5 than {sample.p:g}"
            )
    design = Design(sample, swept.embeddings, kind)
    players = torch.arange(design.n)
    problem = Problem(design, players, players[:0], 0.0, design.E)
    slopes = problem.fit(design.E)[1]  # (n, D)
    residual = residuals(problem, design.E)  # (m, D)
    if design.exact:
        folded = sampling == "antithetic" and design.p == 0.5  # as `Design.folded` of drawn masks
        if folded:  # of twins, the half difference counts; the last row is the first one's twin
            residual = (residual - residual.flip(0)) / 2
        size = design.w * design.X.square().sum(1) / design.sd**2 * (1 + folded)  # (m,)
        covariance = residual.T @ (size[:, None] * residual)
        return slopes, covariance, (1 + folded) * (design.n + 1), 0.0
    covariance = slopes.new_zeros(2 * [slopes.shape[1]])
    for member in members(design).T:
        shift = problem.fit(residual * member[:, None])[1]  # (n, D)
        covariance += shift.T @ shift
    used = (1 + design.folded) * (design.n + 1)
    left = float(_left(design.m, used))
    return slopes, left * covariance, used, 1 / left


def least_masks(n: int, p: float) -> int:
    """The fewest masks, an even number, that carry the fit of a side's n first-order terms.

    Four per coefficient, and enough to keep and to remove every player a few times.
    """
    few = max(MIN_MASKS_PER_TERM * (n + 1), math.ceil(RARE / min(p, 1 - p)))
    if (few := min(few + few % 2, all_masks(n))) > 2**MAX_ENUMERATED:
        raise ValueError(
            f"at p={p:g}, a fit of {n} players needs {few:.2g} masks or more, so that each player "
            "is kept in some and removed in others: give a p nearer to 0.5"
        )
    return int(few)


def all_masks(n: int) -> float:
    """The number of masks of n players; infinite where they are too many to be listed."""
    return 2**n if n <= MAX_ENUMERATED else math.inf


def _left(masks: np.ndarray | float, used: int) -> np.ndarray:
    """Degrees of freedom that a fit leaves, at least half: a fit of fewer masks is shrunk."""
    return np.maximum(masks - used, masks / 2)


def seconds_of(masks: Counts, costs: tuple[float, float]) -> float:
    """Time of two sweeps with their ends."""
    return sum(c * (m + 2) for m, c in zip(masks, costs, strict=True))


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0

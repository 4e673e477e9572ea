"""Error bars: how terms vary with the masks that were drawn, and what a penalty takes from them.

Both are rows that change all terms at once, and a term's variance is the sum of its squares over
the rows. The masks of a side are put into groups that are independent of each other; a row is what
one group adds to the terms, to first order: the grouped infinitesimal jackknife, with residuals
corrected for leverage. A penalty is equivalent to a normal prior: coefficients are drawn from it,
noise-free targets are computed from them and fitted, and a row is the fitted minus the drawn ones.

References
----------
Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", 1982. The correction HC2:
MacKinnon and White, "Some heteroskedasticity-consistent covariance matrix estimators", 1985. That a
smoother's intervals cover if they count its expected bias: Nychka, "Bayesian confidence intervals
for smoothing splines", 1988.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from fixlip.checks import warn
from fixlip.explanation import count_terms, flatten
from fixlip.sampler.masks import MaskSample, distinct_rows
from fixlip.solver.leastsquares import BLOCK, LeastSquares
from fixlip.solver.polynomial import Design, Polynomial, Problem, Solution

GROUPS = 48  # groups of masks per side
MAX_LEVERAGE = 0.8  # degrees of freedom per different mask; above, residuals are too small
MIN_LEFT = 12  # different masks beyond the terms without a penalty
SMALL_GAME = 64  # masks: part of a game of no more has error bars that are too small
MIN_KEPT = 10  # pairs that a game's penalty leaves; with fewer, it was chosen by chance
NEARLY_ALL = 16  # masks: with fewer left out, the error is not that of a random sample
MIN_TOGETHER = 10  # masks, on average, with both players of a pair in the rarer state
DRAWS = 32  # draws from the prior from which the bias of a penalty is simulated


class Fitted(Protocol):
    """What is needed of a `fixlip.Factor`, which imports this file."""

    n: int
    first: torch.Tensor  # (n, D)
    mean: torch.Tensor  # (D,)
    origin: torch.Tensor  # (D,)
    own: Callable[..., Any]
    errors: SideErrors


class SideErrors:
    """What one side's masks and penalties do to the terms of any pair that the side is in.

    ``vectors`` is the fit of the players' vectors and ``own`` that of the side's own terms.
    """

    def __init__(self, design: Design, vectors: Problem, own: Problem) -> None:
        self.design, self.vectors, self.own = design, vectors, own

    @cached_property
    def members(self) -> torch.Tensor:
        """See `members`: (m, groups)."""
        return members(self.design)

    @cached_property
    def vector_residuals(self) -> torch.Tensor:
        """Residuals of the embedding in the fit of the vectors, (m, D)."""
        return residuals(self.vectors, self.design.E)

    def rows(self, other: Fitted, *, cross: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of the terms of a pair, this side's players first, then the other's.

        What each group of masks adds (groups, terms), and draws of the penalties' bias (draws,
        terms); no rows: no error. Without ``cross`` no players have a pair term.
        """
        n = self.design.n + other.n
        none = self.design.E.new_zeros(0, count_terms(n) if cross else 1 + n)
        directions = torch.cat([other.first, (other.mean - other.origin)[None]])  # (n_other + 1, D)
        directions = directions if cross else torch.zeros_like(directions)
        groups = self._of_groups(other, directions, cross) if self.members.shape[1] else none
        draws = self._of_penalties(other, directions, cross)
        return groups, none if draws is None else draws

    def own_rows(self, vectors: torch.Tensor) -> Iterator[Polynomial]:
        """What each group adds to the side's own polynomial along vectors (D, k), one by one."""
        left, k = residuals(self.own, self.design.E @ vectors), vectors.shape[1]  # (m, k)
        step = max(1, BLOCK // (max(self.design.m, self.design.n**2) * k))
        for some in self.members.T.split(step):
            targets = (left[:, None] * some.T[..., None]).flatten(1)  # (m, groups k)
            yield from zip(*(t.split(k, -1) for t in self.own.fit(targets)), strict=True)

    def _of_groups(self, other: Fitted, directions: torch.Tensor, cross: bool) -> torch.Tensor:
        member, design = self.members, self.design
        means = (design.w[:, None] * member).T @ (design.E - design.mean)  # (groups, D)
        within = residuals(self.own, design.E @ other.mean[:, None])  # (m, 1)
        g0, g1, g2 = self.own.fit(within * member)  # (groups,), (n, groups), (n, n, groups)
        h0, h1, h2 = other.own(means.T)  # through the mean that the other side is paired with
        across = self.vector_residuals @ directions.T  # (m, n_other + 1)
        rows = []
        for g, mean in enumerate(means):
            origin, slopes, _ = self.vectors.fit(across * member[:, g : g + 1])
            centre = directions @ mean - origin  # (n_other + 1,)
            e0 = g0[g] + h0[g] - mean @ other.mean + centre[-1]
            e1 = torch.cat([g1[:, g] - slopes[:, -1], h1[:, g] - centre[:-1]])
            e2 = blocks(g2[..., g], slopes[:, :-1], h2[..., g]) if cross else None
            rows.append(flatten(e0, e1, e2))
        return torch.stack(rows)

    def _of_penalties(
        self, other: Fitted, directions: torch.Tensor, cross: bool
    ) -> torch.Tensor | None:
        E, n, n_other = self.design.E, self.design.n, other.n
        own = shrinkage(self.own, E @ other.mean[:, None])
        across = shrinkage(self.vectors, E @ directions.T)
        if own is None and across is None:
            return None
        zeros = E.new_zeros
        g0, g1, g2 = own or (zeros(DRAWS), zeros(n, DRAWS), zeros(n, n, DRAWS))
        # values at z = 0, (n_other + 1, DRAWS), and slopes, (n, n_other + 1, DRAWS)
        origin, slopes = zeros(n_other + 1, DRAWS), zeros(n, n_other + 1, DRAWS)
        if across is not None:
            origin = across[0].unflatten(0, origin.shape)
            slopes = across[1].unflatten(1, origin.shape)
        e0 = g0 - origin[-1]  # (DRAWS,)
        e1 = torch.cat([g1 - slopes[:, -1], origin[:-1]])  # (n + n_other, DRAWS)
        if not cross:
            return flatten(e0, e1.T, None)
        e2 = zeros(DRAWS, n + n_other, n + n_other)  # of pairs i < j, which are all that counts
        e2[:, :n, :n], e2[:, :n, n:] = g2.movedim(2, 0), slopes[:, :-1].movedim(2, 0)
        return flatten(e0, e1.T, e2)


def deviations(image: Fitted, text: Fitted, *, cross: bool) -> torch.Tensor:
    """Rows of the terms of a pair, image players first, as an `Explanation` keeps them.

    First the image's groups of masks, then the text's; then draws of the penalties, likewise.
    """
    own_groups, own_draws = image.errors.rows(text, cross=cross)
    other_groups, other_draws = (
        _roll(rows, text.n, image.n) for rows in text.errors.rows(image, cross=cross)
    )
    return torch.cat([own_groups, other_groups, own_draws, other_draws])


def _roll(rows: torch.Tensor, first: int, second: int) -> torch.Tensor:
    """Rows of terms with the first players put behind the second ones."""
    n = first + second
    order = torch.arange(n).roll(-first)  # where each player of the new order was
    zero = torch.zeros(1, dtype=torch.long)
    if rows.shape[1] == 1 + n:
        return rows[:, torch.cat([zero, 1 + order]).to(rows.device)]
    i, j = torch.triu_indices(n, n, 1)
    place = torch.zeros(n, n, dtype=torch.long)
    place[i, j] = place[j, i] = torch.arange(len(i))
    pairs = place[order[i], order[j]]
    return rows[:, torch.cat([zero, 1 + order, 1 + n + pairs]).to(rows.device)]


def blocks(within: torch.Tensor, cross: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Assemble (n, n) from the parts within the sides and between them."""
    return torch.cat([torch.cat([within, cross], 1), torch.cat([cross.T, other], 1)])


def members(design: Design) -> torch.Tensor:
    """Rows in up to GROUPS groups that are independent of each other, (m, groups).

    Twins stay together. Rows that were not drawn belong to no group: all of an enumerated side, and
    sizes that are listed in full. Groups are centred: the drawn rows' common weight is fixed.
    """
    draws = design.sample.draws().to(design.E.device)
    drawn = torch.nonzero(draws)[:, 0]
    if design.sample.sampling.endswith("-reference"):
        warn_of_weights(design, float(design.w[drawn].sum()))
    pair = torch.arange(len(drawn), device=drawn.device) // 2
    count = min(GROUPS, int(pair[-1]) + 1) if len(pair) else 0
    member = design.E.new_zeros(design.m, count)
    # a row that stands for c draws varies like the sum of c rows, not like c times one
    member[drawn, pair % max(count, 1)] = draws[drawn].rsqrt()
    if count > 1:
        member -= member.mean(1, keepdim=True)
    return member


def known(design: Design) -> bool:
    """Whether the masks drawn say anything of the errors: not one of them, or one with its twin."""
    drawn = int(design.sample.draws().count_nonzero())
    if not 0 < drawn <= 2:
        return True
    design.warn(
        "errors", f"so few masks ({drawn}) say nothing of the errors: there are no error bars."
    )
    return False


def together(m: int, p: float, sampling: str) -> float:
    """In how many of m masks, on average, two players are both in the rarer state.

    Infinite for samples whose masks are not alike, or not of equal weight.
    """
    return m * min(p, 1 - p) ** 2 if sampling in ("antithetic", "independent") else math.inf


def warn_of_weights(design: Design, drawn: float) -> None:
    """Warn where the reference code's weights bias terms by more than their error bars.

    Beside listed masks of probability P, drawn masks have not 1 - P of the weight but 1 / (1 + P).
    Up to P = .4, 95 % intervals covered as those of right weights; above .6, down to .45.
    """
    right = 2 - 1 / drawn if drawn else 0.0
    if 0 < right < 0.5:
        name = design.sample.sampling
        design.warn(
            "errors",
            f'"{name}" gives the drawn masks {drawn:.0%} of the weight, which is {right:.0%} by '
            "right: terms are biased, and error bars do not count that. Use sampling="
            f'"distinct", unless the published numbers are wanted.',
        )


def copies(design: Design) -> torch.Tensor:
    """How often each row's mask occurs (or, folded, its twin): such rows err alike, (m,)."""
    masks = design.sample.masks
    if design.folded:
        masks = masks ^ masks[:, :1]  # the same for twins
    _, group = distinct_rows(masks.cpu().numpy())
    found = torch.from_numpy(np.bincount(group)[group]).to(design.E)
    return found / 2 if design.folded else found


def residuals(problem: Problem, Y: torch.Tensor) -> torch.Tensor:
    """Residuals of targets (m, k), as large as the errors: each is corrected for its leverage."""
    design = problem.design
    repeats = copies(design)[0 :: 2 if design.folded else 1]
    different = float((1 / repeats).sum())
    rarer = "kept" if design.p < 0.5 else "removed"
    rare = together(design.m, design.p, design.sample.sampling)
    if len(problem.among) > 1 and rare < MIN_TOGETHER:
        needed = math.ceil(MIN_TOGETHER * design.m / rare)
        more = f"{needed:,} masks or more, or " if needed < 10**9 else ""
        design.warn(
            "errors",
            f"at p={design.p:g} two players are both {rarer} in {rare:.2g} of {design.m} masks on "
            f"average: error bars within this side are too small. Use {more}a p nearer to .5.",
        )
    parts, used = [], []
    each_part = zip(problem.parts, problem.solutions(Y), problem.ridges, strict=True)
    for k, (part, solution, ridge) in enumerate(each_part):
        each = leverage(part, ridge)
        used.append(float(each.sum()))
        y = problem.of_part(k, Y)
        parts.append(corrected_residual(part, y, solution, each * repeats))
    for k in np.argsort(used)[::-1]:  # the fullest part first: one warning is enough
        warn_of_few(design, problem.parts[k], problem.ridges[k], used[k], different)
    if not design.folded:
        return parts[0]
    even, odd = parts
    return torch.stack([even + odd, even - odd], 1).flatten(0, 1)  # twins: (m/2, 2, k) -> (m, k)


def warn_of_few(
    design: Design, part: LeastSquares, ridge: float, used: float, different: float
) -> None:
    """Warn where so many different masks say too little of the errors of the terms they settle.

    ``used`` is the sum of the leverages.
    """
    if design.exact:
        return
    # where a penalty settles many more terms than there are masks, `shrinkage` says how well
    settled = bool(ridge) and part.n_terms > 1.1 * different
    crowded = used > MAX_LEVERAGE * different and not settled
    if crowded or different - len(part.s) < MIN_LEFT or 2**design.n <= SMALL_GAME:
        terms = "even or odd terms" if design.folded else "terms"
        design.warn(
            "errors",
            f"{different * (1 + design.folded):.0f} different masks are few for {used:.0f} "
            f"{terms}: error bars within this side are too small. Use more masks"
            f"{f'; {2**design.n} list them all' if design.n <= 12 else ''}.",
        )


def warn_of_chosen(design: Design, part: LeastSquares, ridge: float) -> None:
    """Warn where one game's own values chose a penalty that leaves little of its pairs.

    One target says little of how large its pairs are, and bars count the penalty's bias only as far
    as that size is right. White noise of 10 players, 300 masks: 95 % intervals of pairs covered .91
    to 1 above `MIN_KEPT`, as little as .07 below; from 700 of the 1,024 masks, .6 to .8 where less
    than half of the pairs' freedom was left.
    """
    if not part.columns.count or not ridge:
        return
    left = float(part.kept(ridge).sum()) if len(part.values) else 0.0
    count = part.columns.count
    if left < (count / 2 if design.trust else min(MIN_KEPT, count / 4)):
        design.warn(
            "errors",
            f"the penalty took most of the {count} interactions for noise (of their freedom, "
            f"{left / count:.0%} is left): if they are none, error bars are too small. Use more "
            "masks, or ridge=0, whose error bars hold.",
        )


def warn_of_nearly_all(sample: MaskSample) -> None:
    """Warn where all masks but a few are asked for: what these hide is no random error."""
    missing = round(sample.m / sample.share) - sample.m if sample.share > 0.95 else 0
    if 0 < missing <= NEARLY_ALL and sample.draws().any():
        warn(
            f"all masks but {missing} are in the sample: error bars of the rest are too small. Use "
            f"masks={2**sample.n}, which lists all of them and has no error."
        )


def corrected_residual(
    part: LeastSquares, Y: torch.Tensor, solution: Solution, leverage: torch.Tensor
) -> torch.Tensor:
    """Residuals (m, k) of a solution divided by sqrt(1 - leverage), the correction called HC2.

    It makes variances unbiased where all errors are alike; HC3's 1 - leverage was measured to be
    too careful with two masks per term. Equal rows have one error: their leverage adds up.
    """
    free, penalised = solution
    fitted = part.free @ free
    if len(penalised):
        fitted = fitted + part.penalised_part(penalised)
    # a row that alone determines a term has leverage 1: its own residual says nothing
    return (Y - fitted) / (1 - leverage).clamp(min=1e-3).sqrt()[:, None]


def leverage(part: LeastSquares, ridge: float) -> torch.Tensor:
    """Diagonal of the matrix that maps targets to fitted values, (m,)."""
    found = part.Q.square().sum(1)
    if not len(part.values):
        return found
    shrink = part.kept(ridge)
    if not part.primal:
        return found + part.V.square() @ shrink
    # (q, f)
    mixed = sum((T * part.root[rows]).T @ part.Q[rows] for rows, T in part.columns.blocks())
    along = [
        ((T * part.root[rows] - part.Q[rows] @ mixed.T) @ part.V).square() @ (shrink / part.values)
        for rows, T in part.columns.blocks()
    ]
    return found + torch.cat(along)


def shrinkage(problem: Problem, Y: torch.Tensor) -> Polynomial | None:
    """The penalty's bias in the terms of targets (m, k), in k * DRAWS columns, target by target.

    The squares of a term's draws sum to its expected squared bias. None where nothing is penalised.
    """
    if not any(r and p.columns.count for r, p in zip(problem.ridges, problem.parts, strict=True)):
        return None
    errors = [
        prior_errors(part, problem.of_part(k, Y), problem.ridges[k], problem.priors[k])
        for k, part in enumerate(problem.parts)
    ]
    return problem.monomials([(free / DRAWS**0.5, b / DRAWS**0.5) for free, b in errors])


def prior_errors(part: LeastSquares, Y: torch.Tensor, ridge: float, prior: float) -> Solution:
    """The penalty's bias in free terms (f, k * DRAWS) and in penalised ones (q, k * DRAWS).

    Coefficients are drawn from the normal prior that the likeliest penalty, ``prior``, stands for
    (always the same draws), with the variance that the targets (m, k) imply, and fitted without
    noise.
    """
    q, k = part.columns.count, Y.shape[1]
    if not q or not ridge:
        return Y.new_zeros(part.free.shape[1], k * DRAWS), Y.new_zeros(q, k * DRAWS)
    inside, outside, rows = part.energy(Y)
    prior = prior or ridge  # columns that span nothing have no likeliest penalty
    variance = (inside / (part.values + prior)[:, None]).sum(0) + outside / prior
    variance = variance / max(rows, 1)  # (k,): of highest restricted likelihood
    rng = torch.Generator().manual_seed(q)  # one problem's draws are not another's
    b = torch.randn(q, k, DRAWS, generator=rng, dtype=Y.dtype).to(Y.device)
    b = (b * variance.sqrt()[:, None]).flatten(1)  # (q, k * DRAWS)
    free, found = part.solve(part.penalised_part(b), ridge)
    return free, found - b

"""One pair explained by several models: a common scale, a common grid, and how far they agree.

Models differ in the units of their score, in their patches and in their tokens. `unit_scale`,
`on_common_grid` and words as players (``text_players="words"``) remove these differences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag
from scipy.stats import rankdata, spearmanr

from fixlip.checks import instance, integer, number, one_of, warn
from fixlip.explanation import Explanation, Terms, flatten, unflatten
from fixlip.sampler import Sweep
from fixlip.solver.errors import MIN_TOGETHER, together
from fixlip.solver.polynomial import MIN_MASKS_PER_TERM

PARTS = ("cross", "image", "text", "first")
DRAWS = 200  # simulated errors from which the standard error of a rank correlation is estimated
MAKE = "fixlip.explain and fixlip.solve make explanations"
CELLS = "cells"  # the kind of image players that `on_common_grid` makes


class WithError(NamedTuple):
    """A number and its standard error due to the masks that were drawn."""

    value: float
    stderr: float


# --- a common scale ----------------------------------------------------------------------------


def unit_scale(image_sweep: Sweep, text_sweep: Sweep) -> float:
    """The scale on which the game has the standard deviation 1 under the sweeps' own masks.

    For ``solve(image_sweep, text_sweep, scale=..., bias=0)``, of sweeps of one model. An affine
    change of a model's score (its temperature, its bias) does not change an explanation on this
    scale, and squares of orthonormal terms are shares of the game's variance (`variance_shares`).
    The scale hides how far the model's score varies at all: report that too. Raises ValueError
    where the score does not depend on the masks.

    Examples
    --------
    >>> import torch, fixlip
    >>> class Toy:
    ...     n, names = 1, ["a"]
    ...     def embed(self, masks): return 4.0 * masks
    >>> swept = fixlip.sweep(Toy()), fixlip.sweep(Toy())  # 16 in one of four cases, else 0
    >>> round(unit_scale(*swept) ** -2, 6)
    48.0
    """
    means, covariances = [], []
    for swept in (image_sweep, text_sweep):
        instance(swept, Sweep, "fixlip.sweep(side) makes one")
        E = swept.embeddings.cpu().double()  # (m, D)
        w = swept.weights.to(E)
        mean = w @ E
        means.append(mean)
        covariances.append((w[:, None] * (E - mean)).T @ (E - mean))  # (D, D)
    (a, b), (A, B) = means, covariances
    if len(a) != len(b):
        raise ValueError(
            f"the sweeps have embeddings of width {len(a)} and {len(b)}: use one model for both"
        )
    # Var <E, F> of independent E and F, without a difference of large numbers
    variance = float(b @ A @ b + a @ B @ a + (A * B).sum())
    rounding = 10 * max(image_sweep.eps, text_sweep.eps) * float(a.norm() * b.norm())
    if not variance > rounding**2:
        raise ValueError("the score is the same under all masks: there is no scale to put it on")
    return variance**-0.5


# --- a common grid -----------------------------------------------------------------------------


def on_common_grid(explanation: Explanation, grid: int | tuple[int, int] = (6, 6)) -> Explanation:
    """The same explanation with the cells of a coarser grid as its image players.

    An explanation is a polynomial of the mask, so a cell that keeps all its patches or none has the
    sum of their terms, of the pairs within it too, and two cells have the sum of the interactions
    between them. A patch that lies in several cells (7 x 7 patches on 6 x 6 cells) gives each the
    share of its area; so does a block or a region.

    It still explains the game that was played. To remove single patches and to remove whole cells
    are different questions to a model: for the second, play with blocks (``image_players="2x2"``).

    Error bars go with it. Raises ValueError for an image side without a grid, or a finer grid.

    Parameters
    ----------
    explanation : Explanation
        With a patch grid on its image side. Of a product explanation, its terms up to order 2.
    grid : (int, int) or int
        Rows and columns (one number: of both), at most those of the patches.

    Examples
    --------
    >>> pairs = np.array([[0, 8.0, 1.0], [8.0, 0, 2.0], [1.0, 2.0, 0]])
    >>> info = {"image": {"grid": [1, 2], "owner": [0, 1]}}
    >>> e = Explanation(0.0, np.array([1.0, 2.0, 4.0]), pairs, ("l", "r", "dog"), 2, info=info)
    >>> coarse = on_common_grid(e, (1, 1))
    >>> coarse.e1.tolist(), coarse.cross.tolist()
    ([11.0, 4.0], [[3.0]])
    """
    instance(explanation, Explanation, MAKE)
    image = explanation.info.get("image", {})
    if "grid" not in image:
        raise ValueError(
            f"the image side has no patch grid ({image.get('kind', 'unknown side')}): only "
            "explanations of images can be put on a common grid"
        )
    two = isinstance(grid, tuple | list) and len(grid) == 2
    rows, columns = (integer("grid", side) for side in (grid if two else (grid, grid)))
    own = tuple(image["grid"])
    if not (1 <= rows <= own[0] and 1 <= columns <= own[1]):
        raise ValueError(
            f"a grid of {rows} x {columns} cells does not fit {own[0]} x {own[1]} patches: a "
            "common grid has at least one cell and at most as many as the coarsest model"
        )
    patches = np.kron(_overlap(own[0], rows), _overlap(own[1], columns))  # (patches, cells)
    owner = np.asarray(image["owner"])
    shares = np.zeros((explanation.n_image, rows * columns))
    np.add.at(shares, owner, patches)  # a player owns its patches in equal parts
    shares /= np.bincount(owner)[:, None]
    shares = block_diag(shares, np.eye(explanation.n_text))  # (n, cells + n_T)
    terms = _summed(Terms(explanation.e0, explanation.e1, explanation.e2), shares)
    deviations = explanation.deviations
    if deviations is not None:
        all_rows = _summed(unflatten(deviations.astype(float), explanation.n), shares)
        deviations = flatten(*all_rows)
    cells = {"players": CELLS, "grid": [rows, columns], "owner": list(range(rows * columns))}
    names = (f"({row},{column})" for row in range(rows) for column in range(columns))
    return explanation.plain(
        **terms._asdict(),
        players=(*names, *explanation.players[explanation.n_image :]),
        n_image=rows * columns,
        info={**explanation.info, "image": {**image, **cells}},
        deviations=deviations,
    )


def _overlap(fine: int, coarse: int) -> np.ndarray:
    """Which part of each of `fine` equal intervals lies in each of `coarse`, (fine, coarse)."""
    a, b = np.arange(fine + 1) / fine, np.arange(coarse + 1) / coarse
    low, high = np.maximum(a[:-1, None], b[:-1]), np.minimum(a[1:, None], b[1:])
    return (high - low).clip(min=0) * fine


def _summed(terms: Terms, shares: np.ndarray) -> Terms:
    """Put z = shares @ y into polynomials; y is 0 or 1, so y * y is y."""
    pairs = shares.T @ terms.e2 @ shares  # (..., cells, cells)
    within = np.diagonal(pairs, axis1=-2, axis2=-1)
    pairs = pairs * (1 - np.eye(pairs.shape[-1]))
    return Terms(terms.e0, terms.e1 @ shares + within / 2, pairs)


# --- how far two explanations agree ------------------------------------------------------------


def difference(first: Explanation, second: Explanation) -> Explanation:
    """One explanation minus another of the same players: an explanation itself, with error bars.

    Both must have the same units, players (words in any case) and p. Their masks must be drawn
    independently, with another seed for each model, so that variances add: a term differs where it
    is beyond 1.96 ``stderr``. (The same masks would make the same errors in both, which would look
    like agreement.) Raises ValueError where players or p differ, and warns where both drew the
    masks of a side with the same seed.

    Examples
    --------
    >>> a = Explanation(1.0, np.array([2.0, 3.0]), np.zeros((2, 2)), ("x", "dog"), 1)
    >>> difference(a, a).e1.tolist()
    [0.0, 0.0]
    """
    _check_pair(first, second)
    if first.p != second.p:
        raise ValueError(
            f"one explanation has p={first.p} and the other p={second.p}: terms of different games "
            "have no difference; use the same p"
        )
    fits = [e.info.get("fit", {}) for e in (first, second)]
    for name in ("index", "method", "order", "basis"):
        if fits[0].get(name) != fits[1].get(name):
            raise ValueError(
                f"one explanation has {name}={fits[0].get(name)!r} and the other "
                f"{name}={fits[1].get(name)!r}: their terms mean different things"
            )
    both = [first.deviations, second.deviations]
    if all(d is not None for d in both):  # with or without columns of pairs
        both = [flatten(*unflatten(d, first.n)) for d in both]
    image = first.info.get("image", {})
    names = [e.info.get("image", {}).get("model", {}).get("name", "game") for e in (first, second)]
    numbers = ("e0", "e1", "e2", "empty_value", "grand_value")
    return first.plain(
        **{name: getattr(first, name) - getattr(second, name) for name in numbers},
        info={
            **first.info,
            "image": {**image, "model": {"name": " minus ".join(names)}},
            "fit": {"method": "difference", "of": fits},
        },
        deviations=None if any(d is None for d in both) else np.concatenate([both[0], -both[1]]),
    )


def _check_pair(first: Explanation, second: Explanation) -> None:
    """Raise unless two explanations have the same players; warn where they share masks."""
    for one in (first, second):
        instance(one, Explanation, MAKE)
    for side in ("image", "text"):
        _check_players(first, second, side)
    for side in ("image", "text"):
        seeds = [e.info.get(side, {}).get("seed") for e in (first, second)]
        if seeds[0] is not None and seeds[0] == seeds[1]:
            warn(
                f"both explanations drew their {side} masks with the seed {seeds[0]}: their errors "
                "are not independent, so that they agree more than the models do; give each "
                "another seed"
            )


def _check_players(first: Explanation, second: Explanation, side: str) -> None:
    """Raise unless both have the same players on a side (words in any case), by what it shows."""
    both = [
        e.players[: e.n_image] if side == "image" else e.players[e.n_image :]
        for e in (first, second)
    ]
    kind, other = (e.info.get(side, {}).get("kind", side) for e in (first, second))
    if kind != other:
        raise ValueError(
            f"one explanation has {kind} players where the other has {other} players: give both "
            "the same kinds of sides, in the same order"
        )
    if kind == "text":
        both = [[name.casefold() for name in players] for players in both]
    if both[0] == both[1]:
        return
    if kind == "text":
        which = "text" if side == "text" else "first caption's"
        raise ValueError(
            f"the {which} players differ, {' | '.join(both[0])} and {' | '.join(both[1])}: two "
            'models are compared on one caption, with players="words" (text_players="words" of '
            "fixlip.explain) where they split words differently; two captions have no terms in "
            "common but those of the other side"
        )
    grids = side == "image" and all("grid" in e.info.get(side, {}) for e in (first, second))
    mend = "put both explanations on one grid, on_common_grid(explanation, grid)" if grids else ""
    if len(both[0]) != len(both[1]):
        raise ValueError(
            f"the {kind} sides have {len(both[0])} and {len(both[1])} players: "
            f"{mend or 'play with the same players, such as regions, in both'}"
        )
    raise ValueError(
        f"the {kind} players have other names: {mend + ', or ' if mend else ''}play with the same "
        "players, such as regions, in both"
    )


def rank_correlation(
    first: Explanation, second: Explanation, *, part: str = "cross", errors: bool = True
) -> WithError:
    """Spearman's correlation between the same terms of two explanations; units do not matter.

    Errors of the terms draw it towards 0. The correlation of one model with itself under other
    masks is the ceiling: two models cannot be expected to agree better than about the square root
    of the product of their ceilings.

    The standard error is due to the masks of both. NaN, with a warning, where one explanation has
    the same value in all terms. Raises ValueError where players differ, there are fewer than three
    such terms, or error bars are missing. Warns where both drew masks with the same seed.

    Parameters
    ----------
    first, second : Explanation
        With the same players and with error bars; their masks drawn with different seeds.
    part, errors : {"cross", "image", "text", "first"}, bool
        Interactions of image with text, within the image, within the text; or first-order
        `Explanation.attributions`. Without errors the standard error is NaN.

    Examples
    --------
    >>> pairs = np.array([[0, 1.0, 5.0, 3.0]] + 3 * [[0.0] * 4])
    >>> none = np.zeros((0, 11), np.float32)  # no group of masks: exact
    >>> a = Explanation(0.0, np.zeros(4), pairs + pairs.T, tuple("wxyz"), 1, deviations=none)
    >>> b = Explanation(0.0, np.zeros(4), 2 * a.e2, tuple("wxyz"), 1, deviations=none)
    >>> [round(x, 6) for x in rank_correlation(a, b)]
    [1.0, 0.0]
    """
    one_of("part", part, PARTS)
    _check_pair(first, second)
    terms = [_part(e, part) for e in (first, second)]
    if len(terms[0]) < 3:
        raise ValueError(
            f"there are only {len(terms[0])} terms of the part {part!r}: a ranking needs three or "
            "more; take another part or more players"
        )
    if any(np.ptp(t) == 0 for t in terms):
        warn(f"all terms of the part {part!r} are the same: NaN")
        return WithError(float("nan"), float("nan"))
    found = float(spearmanr(*terms).statistic)
    if not errors:
        return WithError(found, float("nan"))
    # Ranks jump, and small changes of one group of masks after the other (`stderr_of`) would
    # overestimate the error: all groups change at once, at random.
    rng = np.random.default_rng(0)
    drawn = [[_part(_drawn(e, rng), part) for e in (first, second)] for _ in range(DRAWS)]
    ranks = rankdata(drawn, axis=-1)  # (draws, 2, terms)
    return WithError(found, float(np.std([np.corrcoef(pair)[0, 1] for pair in ranks])))


def _drawn(explanation: Explanation, rng: np.random.Generator) -> Explanation:
    """The explanation plus an error drawn at random from the deviations of its groups of masks."""
    if explanation.deviations is None:
        raise ValueError("this explanation was made without error bars: solve(..., errors=True)")
    groups = rng.standard_normal(len(explanation.deviations))
    d = unflatten(groups @ explanation.deviations.astype(float), explanation.n)
    e0, e1, e2 = explanation.e0 + d.e0, explanation.e1 + d.e1, explanation.e2 + d.e2
    return replace(explanation, e0=e0, e1=e1, e2=e2)


def _part(explanation: Explanation, part: str) -> np.ndarray:
    """The terms of one part, (terms,)."""
    n = explanation.n_image
    if part == "cross":
        return explanation.cross.ravel()
    if part == "first":
        return explanation.attributions()
    block = explanation.e2[:n, :n] if part == "image" else explanation.e2[n:, n:]
    return block[np.triu_indices(len(block), 1)]


# --- shares of the variance --------------------------------------------------------------------


def variance_shares(explanation: Explanation, *, variance: float = 1.0) -> dict[str, float]:
    """How the variance of the game under its masks divides between kinds of terms.

    In x_i = (z_i - p_i) / s_i with s_i^2 = p_i (1 - p_i), the terms of the explanation are
    c_i = s_i * attribution_i and c_ij = s_i s_j e_ij, and 1, x_i, x_i x_j are orthonormal under the
    masks' distribution: the squares c^2 add up to the variance of the explanation, and the rest of
    the game's variance is of higher order. Sums of |e| do not add up to anything, and grow with
    noise.

    Squares of estimates are corrected for their errors, in two directions. The square of a term
    estimated without a penalty is too large by its variance, which is subtracted. The square of a
    term that a ridge penalty has drawn towards 0 is too *small* by its squared error, which is
    added. (For a best linear prediction c^ of c the error c^ - c is uncorrelated with c^, so
    E c^2 = E c^^2 + E (c^ - c)^2.) The pairs within a side whose masks were drawn are penalised.

    The kinds are "image", "text" (first order), "image x image", "text x text", "image x text", and
    "beyond", which makes the sum 1; a share of nothing may come out negative. Raises ValueError for
    explanations that are no fit under p (Shapley, other methods, sums on a common grid). Warns
    where masks are so few that the fit has shrunk first-order terms as well, or that two players
    are rarely both removed (p near 1) or kept: then some of a side's pairs count as first-order
    terms. Against exact enumeration of 12 + 11 players, "image" was .077 too large (of .61) with
    300 masks at p = .95, and right with 2,000; within .002 of it with 1,000 masks from .2 to .8.
    "image x text" was right throughout.

    Parameters
    ----------
    explanation, variance : Explanation, float
        From `fixlip.solve` or `fixlip.explain`, with error bars, on its own players. The game's
        variance under its masks in the explanation's units; 1 for one on `unit_scale`.

    References
    ----------
    Orthonormal bases of weighted games: Marichal and Mathonet, "Weighted Banzhaf power and
    interaction indexes through weighted approximations of games", 2011. Squares of predictions:
    Henderson, "Best linear unbiased estimation and prediction under a selection model", 1975.

    Examples
    --------
    >>> import fixlip
    >>> class Toy:
    ...     n, names = 2, ["a", "b"]
    ...     def embed(self, masks): return masks.double()
    >>> swept = fixlip.sweep(Toy()), fixlip.sweep(Toy())
    >>> e = fixlip.solve(*swept, scale=unit_scale(*swept), bias=0)
    >>> {name: round(share, 3) for name, share in variance_shares(e).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'image': 0.333, 'text': 0.333, 'image x image': 0.0, 'text x text': 0.0,
     'image x text': 0.333, 'beyond': 0.0}
    """
    shrunk, variance = _shrunk(explanation), number("variance", variance, above=0)
    n, q = explanation.n_image, explanation.keep_probability
    s2 = q * (1 - q)
    error = explanation.stderr_of(Explanation.attributions)
    first = s2 * (explanation.attributions() ** 2 - error**2)  # (n,)
    squares, errors = (np.outer(s2, s2) * x**2 for x in (explanation.e2, explanation.stderr.e2))
    image, text = slice(None, n), slice(n, None)

    def pairs(a: slice, b: slice, shrunk: bool = False) -> float:
        return float((squares[a, b] + (errors[a, b] if shrunk else -errors[a, b])).sum())

    shares = {
        "image": float(first[image].sum()),
        "text": float(first[text].sum()),
        "image x image": pairs(image, image, shrunk["image"]) / 2,
        "text x text": pairs(text, text, shrunk["text"]) / 2,
        "image x text": pairs(image, text),
    }
    shares = {name: share / variance for name, share in shares.items()}
    return {**shares, "beyond": 1 - sum(shares.values())}


def _shrunk(explanation: Explanation) -> dict[str, bool]:
    """Whether a penalty shrank each side's pairs; raise or warn where shares would be wrong."""
    info = instance(explanation, Explanation, MAKE).info
    fit = info.get("fit", {})
    if fit.get("method") != "fixlip":
        raise ValueError(
            "shares of the variance need a least-squares fit under p, as fixlip.solve and "
            "fixlip.explain make it"
        )
    if info["image"].get("players") == CELLS:
        raise ValueError(
            "shares of the variance belong to the players that were masked: take them before "
            "on_common_grid, or play with blocks"
        )
    found = {}
    for side, n in (("image", explanation.n_image), ("text", explanation.n_text)):
        ridge = fit["ridge"][side] if isinstance(fit["ridge"], dict) else fit["ridge"]
        auto = ridge == "auto" and info[side]["sampling"] != "enumerated"
        enough = MIN_MASKS_PER_TERM * (n + 1)
        if auto and info[side]["masks"] < enough:
            warn(
                f"{info[side]['masks']} masks of {n} {side} players are so few that first-order "
                f"terms were shrunk and their shares are too small: take {enough} or more"
            )
        found[side] = auto if ridge == "auto" else ridge > 0
        p = explanation.p[side == "text"]
        rare = together(info[side]["masks"], p, info[side]["sampling"])
        if n > 1 and rare < MIN_TOGETHER:
            warn(
                f"at p={p:g}, two {side} players are both {'kept' if p < 0.5 else 'removed'} in "
                f"{rare:.2g} of {info[side]['masks']} masks on average: the shares of the {side}'s "
                "terms and of its pairs are rough (that of image x text is not). Use more masks, "
                "or a p nearer to .5."
            )
    return found

"""How well an explanation predicts the game on masks it has not seen: figure 4 of the FIxLIP paper.

Two things are called p-faithfulness there. In the theory it is a loss, the expected squared error
under masks that keep every player with probability p: `p_faithfulness`. In the figures it is
Spearman's correlation between explanation and game on distinct masks drawn with that p: the column
``spearman`` of `faithfulness`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import kendalltau, spearmanr

from fixlip.checks import instance, numbers, one_of, per_side, probability, warn
from fixlip.explanation import Explanation
from fixlip.games.game import ask, joint_masks
from fixlip.sampler import MaskSample, distinct, shapley_masks
from fixlip.sampler.masks import check_counts, empty_and_full

DISTRIBUTIONS = (0.3, 0.5, 0.7, "shapley")  # the published ones
OFFSETS = ("published", "free")
CONSTANT = 1e-12  # relative range below which numbers differ by rounding alone


def evaluation_masks(
    n: int, count: int, *, distribution: float | str = 0.5, seed: int = 0
) -> MaskSample:
    """Draw distinct masks on which explanations are judged.

    The sample's weights make it stand for the distribution where the sampler has listed whole sizes
    of masks; the published metrics do not use them. The kernel's weight of the empty and of the
    full mask is infinite: here each counts as one drawn mask.

    Parameters
    ----------
    n, count : int
        Players, and distinct masks (clamped to 2**n with a warning).
    distribution : float or "shapley"
        The probability that a player is kept (`fixlip.sampler.distinct`), or the Shapley kernel
        (`fixlip.sampler.shapley_masks`) with the empty and the full mask, which come first and are
        two of the count.
    seed : int
        The published experiments take the pair's number in its data set.

    References
    ----------
    Baniecki et al., NeurIPS 2025, figure 4, and its code: 1000 masks for each distribution.

    Examples
    --------
    >>> evaluation_masks(3, 4, distribution="shapley").masks.sum(1).tolist()[:2]
    [0, 3]
    """
    if distribution != "shapley":
        if isinstance(distribution, str):
            raise ValueError(f'a distribution is a p in (0, 1) or "shapley", got {distribution!r}')
        return distinct(n, count, p=probability(distribution), seed=seed)
    check_counts(n, count)
    if count < 3:
        raise ValueError(
            f"the Shapley kernel needs the empty, the full and some other mask: got count={count}"
        )
    drawn = shapley_masks(n, count - 2, seed=seed)
    weights = torch.cat([torch.full((2,), 1 / drawn.m), drawn.weights])
    return MaskSample(torch.cat([empty_and_full(n), drawn.masks]), weights, 0.5, "shapley", seed)


def agreement(
    predicted: np.ndarray, truth: np.ndarray, *, weights: np.ndarray | None = None
) -> dict[str, float]:
    """How well predictions agree with the truth, by the published measures.

    - r2: 1 - squared error / variance of the truth: 1 at best, negative where the truth's own mean
      would predict better; units and constant matter.
    - mse, mae: mean squared and mean absolute error, in units of the game.
    - pearson, spearman, kendall: correlation of values, of ranks (ties share their mean rank), and
      of the order of pairs (tau-b). Blind to a constant and to (positive) units.
    - cosine: of the two vectors, blind to units but not to a constant.

    What is not defined is NaN, with a warning: correlations of something constant, r2 of a constant
    truth, the cosine of zeros.

    Parameters
    ----------
    predicted, truth : numpy.ndarray, (m,)
        At least two of each.
    weights : numpy.ndarray, (m,), optional
        Positive. By default all masks count alike, as in the published figure, beside which the
        code keeps two weighted r2. Rank correlations always do.

    Examples
    --------
    >>> found = agreement(np.array([0.0, 1, 2, 3]), np.array([1.0, 2, 3, 4]))
    >>> {name: round(value, 3) for name, value in found.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'r2': 0.2, 'mse': 1.0, 'mae': 1.0, 'pearson': 1.0, 'spearman': 1.0, 'kendall': 1.0,
     'cosine': 0.976}
    """
    predicted, truth = numbers("predicted", predicted), numbers("truth", truth)
    if truth.ndim != 1 or predicted.shape != truth.shape or len(truth) < 2:
        raise ValueError(
            "predicted and truth need the same shape (masks,), two masks or more; got "
            f"{predicted.shape} and {truth.shape}"
        )
    w = np.ones(len(truth)) if weights is None else numbers("weights", weights)
    if w.shape != truth.shape or not (w > 0).all():
        raise ValueError(f"weights must be positive, one for each of {len(truth)} masks")
    return _agreement(predicted, truth, w / w.sum(), "the prediction")


def _agreement(
    predicted: np.ndarray, truth: np.ndarray, w: np.ndarray, name: str
) -> dict[str, float]:
    """As `agreement`, of checked numbers and weights of sum 1."""
    flat = {
        what: np.ptp(x) <= CONSTANT * np.abs(x).max()
        for what, x in ((name, predicted), ("the game", truth))
    }
    for what in (what for what, is_flat in flat.items() if is_flat):
        warn(f"{what} is constant over these {len(truth)} masks: what is undefined is NaN")
    # by a power of two, which is exact: squares of very large and very small numbers are lost
    largest = max(np.abs(truth).max(), np.abs(predicted).max())
    unit = 2.0 ** (int(np.frexp(largest)[1]) - 1)
    truth, predicted = truth / unit, predicted / unit
    error = truth - predicted
    a, b = predicted - w @ predicted, truth - w @ truth  # (m,) each: centred
    lengths = np.sqrt((w @ predicted**2) * (w @ truth**2))
    nan, any_flat = float("nan"), any(flat.values())
    return {
        "r2": nan if flat["the game"] else float(1 - w @ error**2 / (w @ b**2)),
        "mse": float(w @ error**2) * unit * unit,
        "mae": float(w @ np.abs(error)) * unit,
        "pearson": nan if any_flat else float(w @ (a * b) / np.sqrt((w @ a**2) * (w @ b**2))),
        "spearman": nan if any_flat else float(spearmanr(predicted, truth).statistic),
        "kendall": nan if any_flat else float(kendalltau(predicted, truth).statistic),
        "cosine": float(w @ (predicted * truth) / lengths) if lengths > 0 else nan,
    }


def faithfulness(
    explanations: Mapping[str, Explanation],
    game: Callable[[torch.Tensor], Any],
    *,
    distributions: Sequence[float | str] = DISTRIBUTIONS,
    count: int = 1000,
    seed: int = 0,
    weighted: bool = False,
    offset: str = "published",
) -> pd.DataFrame:
    """Compare explanations of one game with the game on the same fresh masks.

    The game is evaluated once, for all masks and all explanations. The truth is nu(M) - nu(empty).
    What is compared with it depends on ``offset``, and matters to r2, mse, mae and cosine only:

    - "published": an explanation with a constant of its own (``e0`` is not 0: FIxLIP, Shapley and
      Banzhaf fits) predicts the game, so nu(empty) is taken off it as well; one without (exCLIP,
      GAME, Grad-ECLIP, ...) is taken as it is, and so claims that its terms sum to the gain over
      the empty mask. The r2 of these mostly shows that their units are not the game's.
    - "free": each explanation gets the constant that is best on these masks. The r2 is then free of
      the shift, but not of units: the square of ``pearson`` is free of both.

    One row per method and distribution: ``method``, ``distribution``, the measures of `agreement`.

    Parameters
    ----------
    explanations : mapping of str to Explanation
        All of the game's players; any method, `fixlip.solver.product.ProductExplanation` included.
    game : callable
        From masks (m, n), torch.bool, to values (m,), as `fixlip.Game`.
    distributions, count, seed
        See `evaluation_masks`; the count is of each distribution.
    weighted : bool
        Weight the masks as in the sample, not all alike as published. With many players this
        changes little except for "shapley", where the sampler lists the smallest and largest sizes
        in full, so that each of those masks has a small weight.
    offset : {"published", "free"}

    References
    ----------
    Baniecki et al., NeurIPS 2025, figure 4: its "p-faithfulness correlation" is ``spearman``.

    Examples
    --------
    >>> e = Explanation(1.0, np.array([1.0, 3.0]), np.zeros((2, 2)), ("a", "b"), 1)
    >>> table = faithfulness({"itself": e}, e.value, distributions=[0.5], count=4)
    >>> table[["method", "distribution", "r2", "spearman"]].values.tolist()
    [['itself', 0.5, 1.0, 1.0]]
    """
    n = common_players(explanations, game)
    one_of("offset", offset, OFFSETS)
    samples = [evaluation_masks(n, count, distribution=d, seed=seed) for d in distributions]
    masks = torch.cat([torch.zeros(1, n, dtype=torch.bool), *(s.masks for s in samples)])
    values = ask(game, masks).numpy()
    truths = np.split(values[1:], np.cumsum([s.m for s in samples])[:-1])
    rows = []
    for name, explanation in explanations.items():
        for distribution, sample, truth in zip(distributions, samples, truths, strict=True):
            w = sample.weights.numpy() if weighted else np.full(sample.m, 1 / sample.m)
            gain = truth - values[0]
            predicted = _gain(explanation, sample.masks, values[0])
            if offset == "free":
                predicted = predicted + w @ (gain - predicted)
            found = _agreement(predicted, gain, w, name)
            rows.append({"method": name, "distribution": distribution, **found})
    return pd.DataFrame(rows)


def p_faithfulness(
    explanations: Mapping[str, Explanation],
    game: Callable[[torch.Tensor], Any],
    *,
    p: float | tuple[float, float] = 0.5,
    count: int = 2**14,
    seed: int = 0,
    offset: str = "published",
) -> pd.DataFrame:
    """The loss that FIxLIP minimises: the expected squared error under independently kept players.

    One row per method: ``method``; ``loss`` in squared units of the game; ``stderr``, its standard
    error due to the masks drawn, 0 where it is exact; and ``explained``, the share of the game's
    variance under p that the explanation accounts for, 1 - loss / variance.

    Parameters
    ----------
    explanations, game, offset
        As in `faithfulness`.
    p : float or (float, float)
        Probability that a player is kept; one for both sides, or image and text.
    count, seed : int
        Of the masks. Where these suffice for all 2**n, all are listed and the loss is exact;
        otherwise they are drawn independently, and may repeat.

    References
    ----------
    Baniecki et al., NeurIPS 2025: F_p, the sum over all masks M of p^|M| (1-p)^(n-|M|) times the
    squared error.

    Examples
    --------
    >>> e = Explanation(0.0, np.array([1.0, 3.0]), np.zeros((2, 2)), ("a", "b"), 1)
    >>> both = {"itself": e, "nothing": Explanation(0.0, 0 * e.e1, e.e2, e.players, 1)}
    >>> p_faithfulness(both, e.value).loss.tolist()  # (0 + 1 + 9 + 16) / 4
    [0.0, 6.5]
    """
    n = common_players(explanations, game)
    one_of("offset", offset, OFFSETS)
    n_image, *others = {explanation.n_image for explanation in explanations.values()}
    if others and len({*per_side("p", p)}) > 1:
        raise ValueError("two values of p need explanations with the same number of image players")
    masks, w = joint_masks(n_image, n - n_image, count, p=p, seed=seed)
    w, exact = w.numpy(), len(masks) == 2**n
    if not exact and count < 2:
        raise ValueError("a standard error needs two masks or more: got count=1")
    values = ask(game, torch.cat([torch.zeros(1, n, dtype=torch.bool), masks])).numpy()
    gain = values[1:] - values[0]
    variance = w @ (gain - w @ gain) ** 2
    if not variance > 0:
        warn("the game is constant over these masks: explained is NaN")
    rows = []
    for name, explanation in explanations.items():
        error = gain - _gain(explanation, masks, values[0])
        if offset == "free":
            error -= w @ error
        squares = error**2
        loss = w @ squares
        stderr = 0.0 if exact else squares.std(ddof=1) / np.sqrt(len(squares))
        explained = 1 - loss / variance if variance > 0 else float("nan")
        rows.append({"method": name, "loss": loss, "stderr": stderr, "explained": explained})
    return pd.DataFrame(rows)


def common_players(
    explanations: Mapping[str, Explanation], game: Callable[[torch.Tensor], Any]
) -> int:
    """Number of players of the game, after checking that every explanation has as many."""
    if not isinstance(explanations, Mapping) or not callable(game):
        raise TypeError(
            "expected {name: explanation} and a game, a function of masks; got "
            f"{type(explanations).__name__} and {type(game).__name__}"
        )
    if not explanations:
        raise ValueError("got no explanations: give at least one, {name: explanation}")
    first, *_ = (instance(e, Explanation, f"{k!r} is none") for k, e in explanations.items())
    n = getattr(game, "n", first.n)
    for name, explanation in explanations.items():
        if explanation.n != n:
            raise ValueError(f"{name} explains {explanation.n} players, and the game has {n}")
    return n


def _gain(explanation: Explanation, masks: torch.Tensor, empty: float) -> np.ndarray:
    """What an explanation predicts for nu(M) - nu(empty), (m,)."""
    return explanation.value(masks) - (empty if explanation.e0 else 0.0)

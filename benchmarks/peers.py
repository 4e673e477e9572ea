"""Estimators of shapiq >= 1.8 for pairwise Banzhaf interactions, or at least for Banzhaf values."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from passes import Counted, side_masks
from scipy.stats import binom

from fixlip import Game, MaskSample, solve, sweep

PACKAGES = ("shapiq", "xgboost", "lightgbm", "scikit-learn", "sparse-transform", "numpy")
SLOW = ("ProxySPEX", "SVARM-IQ")  # minutes per run


class OverBudgetError(Exception):
    """More passes were asked for than the budget has."""


def peers(n: int) -> dict[str, Callable]:
    """Estimators by name, each as `estimators.run` calls it."""
    from shapiq import approximator as a

    size = binom.pmf(np.arange(n + 1), n, 0.5)  # sizes as often as they occur under p = .5
    proxy = partial(a.ProxySHAP, n)
    made = {
        "RegressionFBII": partial(a.RegressionFBII, n, 2),
        "RegressionFBII, paired": partial(a.RegressionFBII, n, 2, pairing_trick=True),
        "ProxySHAP": partial(proxy, index="FBII"),
        "ProxySHAP, adjusted": partial(proxy, index="BII", adjustment=True),
        "ProxySHAP, binomial sizes": partial(proxy, index="FBII", sampling_weights=size),
        "ProxySHAP, binomial sizes, adjusted": partial(
            proxy, index="BII", adjustment=True, sampling_weights=size
        ),
        "ProxySHAP, binomial sizes, cross-fitted": partial(
            proxy, index="BII", adjustment=True, k_folds=5, sampling_weights=size
        ),
        "ProxySPEX": partial(a.ProxySPEX, n=n, index="FBII"),
        "SPEX": partial(a.SPEX, n=n, index="FBII"),
        "SHAP-IQ, binomial sizes, paired": partial(
            a.SHAPIQ, n, 2, "BII", sampling_weights=size, pairing_trick=True
        ),
        "SVARM-IQ, binomial sizes, paired": partial(
            a.SVARMIQ, n, 2, "BII", sampling_weights=size, pairing_trick=True
        ),
        "RegressionMSR": partial(a.RegressionMSR, n, "BV"),
        "SVARM": partial(a.SVARM, n, "BV"),
    }
    found = {f"shapiq, {name}": partial(peer, make) for name, make in made.items()}
    return found | {"split, ProxySHAP for image pairs": split_proxy}


def peer(
    make: Callable, image: Counted, text: Counted, budget: int, p: float, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Run an approximator with the largest budget of its own that stays within the passes."""
    game = Game(image, text)

    def ask(coalitions: np.ndarray) -> np.ndarray:
        masks = torch.from_numpy(np.asarray(coalitions, dtype=bool))
        image.count(masks[:, : image.n])
        text.count(masks[:, image.n :])
        if len(image.seen) + len(text.seen) > budget:
            raise OverBudgetError
        return game(masks).numpy()

    own = budget
    while True:
        try:
            found = make(random_state=seed).approximate(own, ask)
            break
        except OverBudgetError:
            own -= math.ceil((len(image.seen) + len(text.seen) - budget) / 2)
            image.seen.clear()
            text.seen.clear()
    first, pairs = _read(found, game.n)
    return first, None if found.index == "BV" else pairs


def split_proxy(
    image: Counted, text: Counted, budget: int, p: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The split fit, except that the pairs within the image are those of ProxySHAP.

    ProxySHAP draws the image masks and explains the scalar game <E(z), mean of F>.
    """
    from shapiq import ProxySHAP

    image_masks, text_masks = side_masks(image, text, budget, p, seed, "antithetic")
    text_sweep = sweep(text, masks=text_masks)
    mean = text_sweep.weights @ text_sweep.embeddings.double()  # (D,)
    asked = []

    def ask(coalitions: np.ndarray) -> np.ndarray:
        asked.append(torch.from_numpy(np.asarray(coalitions, dtype=bool)))
        return (image.embed(asked[-1]).double() @ mean).numpy()

    size = binom.pmf(np.arange(image.n + 1), image.n, p)
    proxy = ProxySHAP(image.n, index="BII", sampling_weights=size, random_state=seed)
    _, pairs = _read(proxy.approximate(image_masks.m + 2, ask), image.n)
    masks = torch.cat(asked)
    masks = masks[masks.any(1) & ~masks.all(1)]  # both ends are always asked, not drawn
    sample = MaskSample(masks, torch.ones(len(masks)), p)
    fit = solve(sweep(image, masks=sample), text_sweep, errors=False)
    e2 = fit.e2.copy()
    e2[: image.n, : image.n] = Game(image, text).scale * pairs
    return fit.attributions(), e2


def _read(found: object, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Banzhaf values (n,) and pairs (n, n) of shapiq's InteractionValues."""
    first, pairs = np.zeros(n), np.zeros((n, n))
    for players, value in found.dict_values.items():
        if len(players) == 1:
            first[players[0]] = value
        elif len(players) == 2:
            pairs[players] = pairs[players[::-1]] = value
    return first + (pairs.sum(1) / 2 if found.index == "FBII" else 0), pairs

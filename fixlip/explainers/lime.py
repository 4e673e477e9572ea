"""InteractionLIME: a bilinear surrogate of the similarity, fitted to drop-outs of both sides.

phi(z_a, z_b) = z_a' W z_b + c on masks z_a (n_I,) and z_b (n_T,), and W is the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fixlip.checks import integer, number, one_of, warn
from fixlip.explanation import Explanation
from fixlip.sampler import Side, Sweep, bernoulli, side_seeds, sweep
from fixlip.solver import Factor, pair, pair_scale
from fixlip.solver.leastsquares import Columns, LeastSquares

Samples = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # z_a, z_b, score, weight


def explain(
    image_side: Side,
    text_side: Side,
    *,
    samples: int = 1000,
    drop: float = 0.3,
    fit: str = "exact",
    weight_decay: float = 1e-3,
    learning_rate: float = 1e-2,
    epochs: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    scale: float | None = None,
    bias: float | None = None,
) -> Explanation:
    """Fit the bilinear surrogate of a pair's cosine.

    Minimises mean_i pi_i (cos_i - phi_i)^2 + weight_decay / 2 |V|^2, where pi_i is the mean of both
    masked inputs' cosines with their originals (never below 0) and V = W sqrt(n_I n_T): the masks
    are divided by the roots of the counts for the sake of gradient descent, and the penalty acts on
    that scale. There the published penalty is strong: it shrinks what tells single pairs apart more
    than whole rows and columns of W.

    The explanation has W as image-text interactions, and nothing else; the surrogate's constant is
    in ``info``. W belongs to the pair: no factors pair with other inputs. Raises ValueError for
    impossible options, sides of different models, or a descent that diverges.

    Parameters
    ----------
    image_side, text_side : Side
        Both of the same model, of any kind. A player is removed as the side does it: a patch
        becomes the model's mean colour, a token is hidden from attention. The paper fills in the
        image's own mean colour, and padding tokens.
    samples, drop : int, float
        Pairs of masks, and the probability of removing a player, on both sides.
    fit : {"exact", "sgd"}
        The minimum itself, or stochastic gradient descent towards it from zero, as published: at
        the published rate it takes some thousand epochs to come near.
    weight_decay : float
        Not for c.
    learning_rate, epochs, batch_size
        Of "sgd". The paper does not say how many epochs, nor the size of a batch: ours.
    seed, scale, bias : int, float
        Of the masks and of the order of the samples; of the game, as in `fixlip.pair`.

    References
    ----------
    Joukovsky et al., 2023, as described in appendix H of the exCLIP paper (TMLR 2025), which says
    "scaling with" the roots of the counts. Dividing by them is meant here: multiplied, a step of
    the published length diverges.

    Examples
    --------
    >>> class Toy:
    ...     n, names = 2, ("a", "b")
    ...     def embed(self, masks): return masks.double()
    >>> found = explain(Toy(), Toy(), weight_decay=1e-9)  # <z, y> = sum of z_i y_i
    >>> found.cross.round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    one_of("fit", fit, ("exact", "sgd"))
    if not 0 < number("drop", drop) < 1:
        raise ValueError(f"drop is a probability between 0 and 1, got {drop!r}")
    number("weight_decay", weight_decay, at_least=0)
    number("learning_rate", learning_rate, above=0)
    for name, count in (("samples", samples), ("epochs", epochs), ("batch_size", batch_size)):
        integer(name, count)
    sides = (image_side, text_side)
    scale, bias = pair_scale(*(getattr(s, "info", {}) for s in sides), scale=scale, bias=bias)
    draws = [
        bernoulli(side.n, samples, p=1 - drop, seed=own, antithetic=False)
        for side, own in zip(sides, side_seeds(seed), strict=True)
    ]
    swept = [sweep(side, masks=drawn) for side, drawn in zip(sides, draws, strict=True)]
    roots = [math.sqrt(side.n) for side in sides]
    z_a, z_b = (s.masks.double() / root for s, root in zip(swept, roots, strict=True))
    data = (z_a, z_b, *_neighbourhood(swept))
    options = {"samples": samples, "drop": drop, "fit": fit, "weight_decay": weight_decay}
    options["seed"] = seed
    if fit == "exact":
        V, constant = fit_exactly(data, weight_decay)
    else:
        how = {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size}
        V, constant = descend(data, weight_decay, seed=seed, **how)
        options |= how
    options["constant"] = scale * constant + bias
    # W as a pair of factors: the image's vectors are its rows, the text's are unit vectors
    vectors = V / (roots[0] * roots[1]), torch.eye(text_side.n)
    image, text = (
        Factor(rows, s.names, kind, "lime", options, s.info, s.picture, ends=s.ends)
        for rows, s, kind in zip(vectors, swept, ("image", "text"), strict=True)
    )
    return pair(image, text, scale=scale, bias=bias)


def _neighbourhood(swept: Sequence[Sweep]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and weights (samples,) of the masked pairs."""
    E, F = (s.embeddings.cpu().double() for s in swept)  # (samples, D)
    near = [
        torch.cosine_similarity(rows, s.ends[1:].cpu().double())
        for rows, s in zip((E, F), swept, strict=True)
    ]
    weight = ((near[0] + near[1]) / 2).clamp(min=0)
    if not weight.any():
        raise ValueError(
            "every masked input is unlike its original (cosine 0 or less), so no sample counts: "
            "drop fewer players"
        )
    return (E * F).sum(1), weight


def fit_exactly(data: Samples, weight_decay: float) -> tuple[torch.Tensor, float]:
    """The minimum of mean_i pi_i (s_i - z_a' V z_b - c)^2 + weight_decay / 2 |V|^2: V and c."""
    z_a, z_b, score, weight = data
    design = (z_a[:, :, None] * z_b[:, None, :]).flatten(1)  # (samples, n_I * n_T)
    one, none = torch.ones_like(design[:, :1]), design[:, :0]
    problem = LeastSquares(one, Columns(design, none), weight / weight.sum())
    if weight_decay == 0 and problem.undetermined:
        warn(
            f"{len(design)} samples leave {problem.undetermined} of {design.shape[1]} interactions "
            "undetermined; the smallest of many solutions is taken. Use more samples, or a "
            "weight_decay above 0."
        )
    # the mean over samples, as a sum with weights of sum 1
    c, V = problem.solve(score[:, None], weight_decay / 2 / float(weight.mean()))
    return V.reshape(z_a.shape[1], z_b.shape[1]), float(c)


def descend(
    data: Samples,
    weight_decay: float,
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
) -> tuple[torch.Tensor, float]:
    """The same minimum by stochastic gradient descent from zero: V and c after the last epoch."""
    z_a, z_b, score, weight = data
    rng = torch.Generator().manual_seed(seed)
    V, c = z_a.new_zeros(z_a.shape[1], z_b.shape[1]), 0.0
    for _ in range(epochs):
        for rows in torch.randperm(len(score), generator=rng).split(batch_size):
            a, b = z_a[rows], z_b[rows]
            error = ((a @ V) * b).sum(1) + c - score[rows]  # (b,)
            slope = 2 * weight[rows] * error / len(rows)
            V -= learning_rate * (a.T @ (slope[:, None] * b) + weight_decay * V)
            c -= learning_rate * float(slope.sum())
    left = (weight * (((z_a @ V) * z_b).sum(1) + c - score).square()).sum()
    if not left <= (weight * score.square()).sum():  # also where it is NaN
        raise ValueError(
            f"gradient descent diverged with learning_rate={learning_rate}: use a smaller one, or "
            'fit="exact"'
        )
    return V, c

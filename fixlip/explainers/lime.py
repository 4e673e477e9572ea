"""InteractionLIME: a bilinear surrogate of the similarity, fitted to drop-outs of both sides.

phi(z_a, z_b) = z_a' W z_b + c on masks z_a (n_I,) and z_b (n_T,), and W is the map.
"""

from __future__ import annotations

import math
import warnings

import torch

from fixlip.explainers.maps import Factor, FactorPair
from fixlip.sampler import Side, bernoulli, embed_masks, pair_scale, side_seeds
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
    scale: float = 1.0,
) -> FactorPair:
    """Fit the bilinear surrogate of a pair's cosine.

    Minimises mean_i pi_i (cos_i - phi_i)^2 + weight_decay / 2 |V|^2, where pi_i is the mean of both
    masked inputs' cosines with their originals (never below 0) and V = W sqrt(n_I n_T): the masks
    are divided by the roots of the counts for the sake of gradient descent, and the penalty acts on
    that scale. There the published penalty is strong: it shrinks what tells single pairs apart more
    than whole rows and columns of W.

    Parameters
    ----------
    image_side, text_side : Side
        Both of the same model, of any kind. A player is removed as the side does it: a patch
        becomes the model's mean colour, a token is hidden from attention. The paper fills in the
        image's own mean colour, and padding tokens.
    samples : int
        Pairs of masks.
    drop : float
        Probability of removing a player, on both sides.
    fit : {"exact", "sgd"}
        The minimum itself, or stochastic gradient descent towards it from zero, as published: at
        the published rate it takes some thousand epochs to come near.
    weight_decay : float
        Not for c.
    learning_rate, epochs, batch_size
        Of "sgd". The paper does not say how many epochs, nor the size of a batch: ours.
    seed : int
        Of the masks, and of the order of the samples.
    scale : float
        Of the map: 1 explains the cosine.

    Returns
    -------
    FactorPair
        Of its ``full``, the constant is the entry [0, 0]. W belongs to the pair: the factors do
        not pair with those of other inputs.

    Raises
    ------
    ValueError
        For impossible options, sides of different models, or a descent that diverges.

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
    >>> pair = explain(Toy(), Toy(), weight_decay=1e-9)  # <z, y> = sum of z_i y_i
    >>> pair.cross.round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    _check(fit, samples, drop, weight_decay, learning_rate, epochs, batch_size)
    sides = (image_side, text_side)
    infos = [dict(getattr(side, "info", {})) for side in sides]
    pair_scale(*infos)  # raises where the models differ
    data, (empty_value, grand_value) = _sample(sides, samples, drop, seed)
    z_a, z_b, score, weight = data
    roots = math.sqrt(image_side.n), math.sqrt(text_side.n)
    data = (z_a / roots[0], z_b / roots[1], score, weight)
    if fit == "exact":
        V, constant = fit_exactly(data, weight_decay)
    else:
        V, constant = descend(
            data,
            weight_decay,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
        )
    W = V / (roots[0] * roots[1])
    options = {
        "samples": samples,
        "drop": drop,
        "fit": fit,
        "weight_decay": weight_decay,
        "seed": seed,
    }
    if fit == "sgd":
        options |= {"learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size}
    # W = W I, and the constant in a dimension of its own: width n_T + 1
    vectors = (
        torch.nn.functional.pad(W, (1, 0)),
        torch.nn.functional.pad(torch.eye(text_side.n, dtype=W.dtype), (1, 0)),
    )
    special = torch.eye(1, 1 + text_side.n, dtype=W.dtype)
    image, text = (
        Factor(
            part.numpy(),
            tuple(map(str, side.names)),
            info.get("kind", kind),
            first.numpy(),
            ("constant",),
            {**info, "method": "lime", "options": options},
            getattr(side, "picture", None),
        )
        for side, info, kind, part, first in zip(
            sides, infos, ("image", "text"), vectors, (constant * special, special), strict=True
        )
    )
    return FactorPair(image, text, scale, scale * empty_value, scale * grand_value)


def _sample(
    sides: tuple[Side, Side], samples: int, drop: float, seed: int
) -> tuple[Samples, list[float]]:
    """Masks, cosines and weights of the neighbourhood; the cosine of nothing and of everything."""
    masks, embeddings, ends = [], [], []
    for side, own in zip(sides, side_seeds(seed), strict=True):
        drawn = bernoulli(side.n, samples, p=1 - drop, seed=own, antithetic=False).masks
        both = torch.tensor([[False], [True]]).expand(2, side.n)  # nothing and everything kept
        rows = embed_masks(side, torch.cat([drawn, both])).cpu().double()  # (samples + 2, D)
        masks.append(drawn.double())
        embeddings.append(rows[:-2])
        ends.append(rows[-2:])
    score = (embeddings[0] * embeddings[1]).sum(1)  # (samples,)
    near = [torch.cosine_similarity(E, end[1:]) for E, end in zip(embeddings, ends, strict=True)]
    weight = ((near[0] + near[1]) / 2).clamp(min=0)
    if not weight.any():
        raise ValueError(
            "every masked input is unlike its original (cosine 0 or less), so no sample counts: "
            "drop fewer players"
        )
    return (*masks, score, weight), (ends[0] * ends[1]).sum(1).tolist()


def fit_exactly(data: Samples, weight_decay: float) -> tuple[torch.Tensor, float]:
    """The minimum of mean_i pi_i (s_i - z_a' V z_b - c)^2 + weight_decay / 2 |V|^2: V and c."""
    z_a, z_b, score, weight = data
    design = (z_a[:, :, None] * z_b[:, None, :]).flatten(1)  # (samples, n_I * n_T)
    one, none = torch.ones_like(design[:, :1]), design[:, :0]
    problem = LeastSquares(one, Columns(design, none), weight / weight.sum())
    if weight_decay == 0 and problem.undetermined:
        warnings.warn(
            f"{len(design)} samples leave {problem.undetermined} of {design.shape[1]} interactions "
            "undetermined; the smallest of many solutions is taken. Use more samples, or a "
            "weight_decay above 0.",
            stacklevel=3,
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


def _check(
    fit: str,
    samples: int,
    drop: float,
    weight_decay: float,
    learning_rate: float,
    epochs: int,
    batch_size: int,
) -> None:
    if fit not in ("exact", "sgd"):
        raise ValueError(f'fit must be "exact" or "sgd", got {fit!r}')
    if not 0 < drop < 1:
        raise ValueError(f"drop is a probability between 0 and 1, got {drop!r}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be a number of 0 or more, got {weight_decay!r}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a number above 0, got {learning_rate!r}")
    for name, count in (("samples", samples), ("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of 1 or more, got {count!r}")

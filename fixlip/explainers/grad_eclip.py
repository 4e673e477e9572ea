"""Grad-ECLIP: value vectors weighted by gradient and by key similarity (Zhao et al., ICML 2024)."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity

from fixlip.checks import integer, one_of
from fixlip.encoders.attention import Attention, embed, readout
from fixlip.encoders.sides import EncoderSide, TextSide
from fixlip.explainers.results import from_units
from fixlip.explanation import Explanation
from fixlip.solver import pair_scale


@torch.inference_mode(False)
@torch.enable_grad()
def explain(
    image_side: EncoderSide,
    text_side: EncoderSide,
    *,
    heads: str = "one",
    text_blocks: int = 8,
    text_normalised: bool = False,
    text_keys: str = "projected",
) -> Explanation:
    """Attribute the cosine to patches and tokens through the values that attention mixes.

    Of an attention layer that the embedding is read from at one query (CLS, or the end token):
    term_i = lambda_i sum_d G_d v_id, where G is the gradient of the cosine by the layer's output at
    that query, before the output projection, v_i the value vector of position i, and lambda_i the
    cosine between the projected query and the projected key of i, stretched to [0, 1]. An image's
    map is ReLU(term) of the last layer, lambda stretched over the patches; a caption's is the ReLU
    of the sum of the terms of the last layers, lambda stretched over all positions.

    SigLIP's image tower has no CLS token; the paper does not cover it. Here its attention pool
    is the last layer, read at its one query. Its text tower is read at its last position.

    No term is negative; those of the image and of the caption have unrelated scales. Raises
    TypeError for sides of no encoder; ValueError for sides of different models, a tower without CLS
    token or attention pool, half precision, or an unknown option.

    Parameters
    ----------
    image_side, text_side : ImageSide or TextSide
        Of the same model; two images or two captions will do. Each is explained towards the
        other's embedding.
    heads : {"one", "own"}
        "one", as published: the layers explained attend with a single head over their full width,
        so that the embedding explained is not the model's. "own": with the model's own heads.
    text_blocks, text_normalised : int, bool
        How many of the last layers of the text tower count; whether to divide the caption's map by
        its sum, as the authors' code does and the copy in the FIxLIP experiments does not.
    text_keys : {"projected", "raw"}
        Whether a caption's lambda compares query and key behind the layer's output projection, as
        the authors' program does, or before it, as their notebook on captions does.

    References
    ----------
    Zhao, Wang, Zeng, Zhao and Chan, "Gradient-based Visual Explanation for Transformer-based
    CLIP", ICML 2024; for captions the authors' later paper, arXiv 2502.18816, and its code.

    Examples
    --------
    >>> import fixlip, numpy as np
    >>> encoder = fixlip.load("demo-clip", device="cpu")
    >>> image = encoder.image(np.zeros((48, 48, 3), np.uint8))
    >>> explain(image, encoder.text("a red star")).e1.shape
    (39,)
    """
    sides = image_side, text_side
    reads = [readout(side, method="Grad-ECLIP") for side in sides]
    scale, bias = pair_scale(image_side.info, text_side.info)
    integer("text_blocks", text_blocks)
    one_of("text_keys", text_keys, ("projected", "raw"))
    ends = [side.embed(torch.ones(1, side.n, dtype=torch.bool))[0] for side in sides]  # (D,) each
    units = []
    for side, read, other in zip(sides, reads, reversed(ends), strict=True):
        text = isinstance(side, TextSide)
        layers = read.layers[-text_blocks if text else -1 :]
        embedding, attentions = embed(side, layers, heads=heads)
        outputs = [attention.output for attention in attentions]
        gradients = torch.autograd.grad(embedding @ other, outputs)
        over = slice(None) if text else read.units
        terms = sum(
            _term(attention, gradient, read.query, over, raw=text and text_keys == "raw")
            for attention, gradient in zip(attentions, gradients, strict=True)
        )  # (positions,)
        terms = terms[read.units] if text else terms  # (units,)
        units.append(terms.relu().numpy())
    return from_units(
        sides,
        units,
        fit={
            **{"method": "Grad-ECLIP", "heads": heads, "text_blocks": text_blocks},
            **({} if text_keys == "projected" else {"text_keys": text_keys}),
        },
        text_normalised=text_normalised,
        grand_value=scale * (ends[0] @ ends[1]).item() + bias,
    )


@torch.no_grad()
def _term(
    attention: Attention, gradient: torch.Tensor, query: int, over: slice, *, raw: bool
) -> torch.Tensor:
    """lambda_i sum_d G_d v_id of the positions i in ``over``, (positions,), float64."""
    # on the CPU, because not every device has float64
    values, gradient = attention.v[over].cpu().double(), gradient[query].cpu().double()
    both = attention.q[query], attention.k[over]
    q, k = ((x if raw else attention.project(x)).cpu().double() for x in both)
    similar = cosine_similarity(q[None], k)  # (positions,)
    low, high = similar.min(), similar.max()
    # where all keys are alike there is nothing to stretch, and no position counts less
    loosened = (similar - low) / (high - low) if high > low else torch.ones_like(similar)
    return values @ gradient * loosened

"""GAME: relevance from attention and its gradient (Chefer, Gur and Wolf, ICCV 2021), for CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fixlip.encoders.attention import Attention, Readout, embed, readout
from fixlip.encoders.sides import EncoderSide
from fixlip.explainers.results import from_units
from fixlip.explanation import Explanation
from fixlip.solver import pair_scale


@torch.inference_mode(False)
@torch.enable_grad()
def explain(
    image_side: EncoderSide,
    text_side: EncoderSide,
    *,
    start_layer: int = -1,
    text_normalised: bool = False,
    scale: float | None = None,
) -> Explanation:
    """Attribute the score to the players that attention reads, where more attention raises it.

    With cam = the mean over heads of ReLU(attention x its gradient), R grows from the identity by
    R <- R + cam R, layer by layer. The map is the row of R of the token that the embedding is read
    from: CLS over the patches, the end token over the caption.

    SigLIP's image tower has no such token; the paper does not cover it. Here its attention pool
    counts as the last layer, whose one query is that token: the map is cam of the pool times R. Its
    text tower is read at its last position.

    No term is negative; those of the image and of the caption have unrelated scales. Raises
    TypeError for sides of no encoder; ValueError for sides of different models, a tower without CLS
    token or attention pool, half precision, or an unknown option.

    Parameters
    ----------
    image_side, text_side : ImageSide or TextSide
        Of the same model; two images or two captions will do.
    start_layer : int
        The first layer that counts, in both towers: -1, as published for CLIP, is the last one
        alone, 0 is all.
    text_normalised, scale : bool, float
        Whether to divide the caption's map by its sum, as the authors do for display; the scale of
        the cosine, by default the model's own. With the last layer alone the maps go with it.

    References
    ----------
    Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", ICCV 2021, the rules for self-attention; for CLIP, and the single
    layer, the authors' code.

    Examples
    --------
    >>> import fixlip, numpy as np
    >>> encoder = fixlip.load("demo-clip", device="cpu")
    >>> image = encoder.image(np.zeros((48, 48, 3), np.uint8))
    >>> explain(image, encoder.text("a red star")).e1.shape
    (39,)
    """
    sides = image_side, text_side
    reads = [readout(side, method="GAME") for side in sides]
    scale, bias = pair_scale(image_side.info, text_side.info, scale=scale)
    shortest = min(len(read.layers) for read in reads)
    if not -shortest <= start_layer < shortest:
        raise ValueError(
            f"start_layer must be from {-shortest} to {shortest - 1}, as the towers have "
            f"{' and '.join(str(len(read.layers)) for read in reads)} layers; got {start_layer}"
        )
    runs = [embed(side, read.layers[start_layer:]) for side, read in zip(sides, reads, strict=True)]
    logit = scale * (runs[0][0] @ runs[1][0])
    units = []
    for read, (_, attentions) in zip(reads, runs, strict=True):
        probabilities = [attention.probabilities for attention in attentions]
        gradients = torch.autograd.grad(logit, probabilities, retain_graph=True)
        units.append(_relevance(read, attentions, gradients))
    return from_units(
        sides,
        units,
        fit={"method": "GAME", "scale": scale, "start_layer": start_layer},
        text_normalised=text_normalised,
        grand_value=logit.item() + bias,
    )


def _relevance(
    read: Readout, attentions: Sequence[Attention], gradients: Sequence[torch.Tensor]
) -> np.ndarray:
    """Relevance of the side's patches or tokens to what the embedding is read from, (units,)."""
    R = torch.eye(attentions[0].k.shape[0], dtype=torch.float64)  # (positions, positions)
    for i, (attention, gradient) in enumerate(zip(attentions, gradients, strict=True), start=1):
        weighted = gradient * attention.probabilities.detach()  # (heads, queries, keys)
        cam = weighted.relu().mean(0).to("cpu", torch.float64)  # (queries, keys)
        if read.pool and i == len(attentions):  # one query, and CLS and its like may be left out
            R = cam @ R[-cam.shape[1] :]  # (1, positions)
        else:
            R = R + cam @ R
    return R[read.query, read.units].numpy()

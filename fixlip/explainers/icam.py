"""InteractionCAM: activations times gradients on both sides, exCLIP's simplest case."""

from __future__ import annotations

from fixlip.explainers.integrated import Path, Side
from fixlip.explainers.maps import Factor, FactorPair


def explain(
    image_side: Side,
    text_side: Side,
    *,
    layer: int = -1,
    normalise: bool = True,
    scale: float = 1.0,
    method: str = "auto",
    memory: float = 0.25,
) -> FactorPair:
    """Interactions of the players of two sides, image and caption or any two of one encoder.

    Parameters
    ----------
    image_side, text_side : ImageSide or TextSide
    scale : float
        Multiplies the map.
    layer, normalise, method, memory
        As in `factor`.
    """
    image, text = (
        factor(side, layer=layer, normalise=normalise, method=method, memory=memory)
        for side in (image_side, text_side)
    )
    return FactorPair(image, text, scale)


def factor(
    side: Side,
    *,
    layer: int = -1,
    normalise: bool = True,
    method: str = "auto",
    memory: float = 0.25,
) -> Factor:
    """One side's half: sum over d of a[s, d] dg/da[s, d], a vector of width D for every token s.

    That is exCLIP in one step (N = 1) from a reference of zero *hidden states*, not from the
    hidden states of a blank input. Neither the ReLU nor the pooled gradients of Grad-CAM are
    taken. The map does not sum to the similarity.

    Parameters
    ----------
    side : ImageSide or TextSide
    layer : int
        Hidden states at the input of this block, from 0; by default the last block's.
    normalise : bool
        Divide by the length of the input's embedding.
    method, memory
        As in `fixlip.explainers.exclip.factor`.

    References
    ----------
    Sammani, Joukovsky and Deligiannis, Visualizing and Understanding Contrastive Learning, IEEE
    TIP 2023, in the form of the exCLIP paper (TMLR 2025), eq. 16.
    """
    path = Path(side, layer, "vectors", normalise=normalise)
    return path.factor("icam", steps=1, method=method, memory=memory)

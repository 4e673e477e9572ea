"""InteractionCAM: activations times gradients on both sides, exCLIP's simplest case."""

from __future__ import annotations

from fixlip import renamed
from fixlip.encoders.sides import EncoderSide
from fixlip.explainers.integrated import Line
from fixlip.solver import Factor


@renamed.keywords(method="mode")
def factor(
    side: EncoderSide,
    *,
    layer: int = -1,
    normalise: bool = True,
    mode: str = "auto",
    memory: float = 0.25,
) -> Factor:
    """One side's half: sum over d of a[s, d] dg/da[s, d], a vector of width D for every token s.

    That is exCLIP in one step (N = 1) from a reference of zero *hidden states*, not from the
    hidden states of a blank input. Neither the ReLU nor the pooled gradients of Grad-CAM are
    taken. The map does not sum to the similarity.

    Parameters as in `fixlip.explainers.exclip.factor`.

    References
    ----------
    Sammani, Joukovsky and Deligiannis, Visualizing and Understanding Contrastive Learning, IEEE
    TIP 2023, in the form of the exCLIP paper (TMLR 2025), eq. 16.
    """
    line = Line(side, layer, "vectors", normalise=normalise)
    return line.factor("icam", steps=1, mode=mode, memory=memory)


renamed.watch(__name__)

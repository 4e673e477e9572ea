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

    Blocks that normalise what they read are blind to the length of a hidden state, and this is the
    derivative along it: only the epsilon of that normalisation and a state's way past the block
    leave something. Of image patches in the last block it was 2e-6 of the embedding (demo-clip),
    and a hundredth of that was rounding in float32.

    Parameters as in `fixlip.explainers.exclip.factor`.

    References
    ----------
    Sammani, Joukovsky and Deligiannis, Visualizing and Understanding Contrastive Learning, IEEE
    TIP 2023, in the form of the exCLIP paper (TMLR 2025), eq. 16.
    """
    line = Line(side, layer, "vectors", normalise=normalise)
    return line.factor("icam", steps=1, mode=mode, memory=memory)


renamed.watch(__name__)

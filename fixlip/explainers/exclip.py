"""exCLIP: interactions of patches and words by integrated Jacobians, without the Jacobians.

Each input moves on a straight line from a reference to itself, at the hidden states of one layer.
The interaction of patch s and token t is the inner product of what their moves add to the image's
embedding g and to the caption's h (exCLIP paper, eq. 9 and 10):

    A[s, t] = <V_g[s], V_h[t]> / (|g(a)| |h(b)|),
    V_g[s] = 1/N sum_n J_g(x_n)[:, s] (a - r)[s],   x_n = r + n/N (a - r),   n = 1..N.

V_g[s], of width D, is a derivative along one direction: one pass per token and step in forward
mode, or one per embedding dimension in reverse mode. The Jacobian, D x tokens x width numbers in
each step, is never formed. Summed over all tokens, V_g tends to g(a) - g(r), and so A to
f(a,b) - f(r_a,b) - f(a,r_b) + f(r_a,r_b), with f(a,b) = <g(a), h(b)> / (|g(a)| |h(b)|) (eq. 2).
"""

from __future__ import annotations

from typing import NamedTuple

from fixlip import renamed
from fixlip.encoders.sides import EncoderSide
from fixlip.explainers.integrated import VARIANTS, Line
from fixlip.solver import Factor

References = tuple[str | None, str | None]


class Corners(NamedTuple):
    """The similarities f of both inputs, and with one or both of them at the reference."""

    inputs: float
    image_reference: float
    text_reference: float
    references: float

    @property
    def total(self) -> float:
        """f(a,b) - f(r_a,b) - f(a,r_b) + f(r_a,r_b)."""
        return self.inputs - self.image_reference - self.text_reference + self.references


@renamed.keywords(method="mode")
def factor(
    side: EncoderSide,
    *,
    layer: int = -1,
    steps: int | None = None,
    rule: str = "right",
    reference: str | None = None,
    variant: str = "tmlr",
    normalise: bool = True,
    seed: int = 0,
    mode: str = "auto",
    memory: float = 0.25,
) -> Factor:
    """One side's half of the interactions: what each player's move adds to the embedding.

    Pair it with another side's, of an image and a caption or of any two of one encoder, by
    `fixlip.pair`: in units of the logit, or with scale=1 of the cosine. The factor's ``special``
    holds CLS, start, end and padding tokens: completeness needs them. Raises TypeError or
    ValueError for an unknown option, half precision, or an embedding of length zero.

    Parameters
    ----------
    side : ImageSide or TextSide
    layer : int
        Hidden states at the input of this block, from 0. The last block's is the published choice.
    steps : int, optional
        N; by default 50 ("tmlr") or 20 ("fixlip"). (The published code makes its points by adding
        1/N up to 1, and by rounding takes N + 1 of them for some N, such as 49, 98 and 196.)
    rule : {"right", "midpoint"}
        Where a step is evaluated: at its end, as published, with an error that falls as 1/N; or in
        its middle, with an error that falls as 1/N^2 for the same passes.
    reference : str, optional
        Of an image "zero", the mean colour, or "gaussian", normal noise in normalised pixels; of a
        caption "padding", padding tokens between start and end, or "empty", no tokens there; of
        both "vectors", zeros in place of the hidden states. By default "zero" and "padding".
    variant : {"tmlr", "fixlip"}
        As published in TMLR, or the earlier form that the FIxLIP experiments use: the embeddings
        are shifted by the reference's own embedding before their lengths are taken.
    normalise, seed : bool, int
        Divide by the length of the input's embedding, so that maps are shares of a cosine; seed of
        "gaussian".
    mode, memory : {"auto", "forward", "reverse"}, float
        Differentiate along each token and special row, or for each embedding dimension, or what
        needs fewer passes: the numbers are the same. GiB for the hidden states of one pass.

    Examples
    --------
    >>> import numpy as np
    >>> import fixlip
    >>> encoder = fixlip.load("demo-clip", device="cpu")
    >>> sides = encoder.image(np.zeros((48, 48, 3), np.uint8)), encoder.text("a red star")
    >>> image, text = (factor(side, steps=2) for side in sides)
    >>> fixlip.pair(image, text, scale=1).cross.shape
    (36, 3)
    >>> fixlip.pair(image.with_special(), text.with_special(), scale=1).cross.shape
    (37, 5)

    References
    ----------
    Möller, Tilli, Vu and Padó, Explaining Caption-Image Interactions in CLIP Models with
    Second-Order Attributions, TMLR 2025, eq. 6 to 11.
    """
    line = Line(side, layer, reference, variant=variant, normalise=normalise, seed=seed)
    if steps is None:
        steps = VARIANTS[variant][0]
    return line.factor("exclip", steps=steps, rule=rule, mode=mode, memory=memory)


def corners(
    image_side: EncoderSide,
    text_side: EncoderSide,
    *,
    layer: int = -1,
    references: References = (None, None),
    variant: str = "tmlr",
    normalise: bool = True,
    scale: float = 1.0,
    seed: int = 0,
) -> Corners:
    """The four scores of eq. 2; their ``total`` is the limit of the map with all special tokens.

    Inner products, all divided by the lengths of the inputs' embeddings, so no cosines where a
    reference takes part; a reference caption is pooled at the input's own end token, as the
    interpolated hidden states are. Parameters as in `factor`; the scale is 1 for the cosine.
    """
    (r_a, a), (r_b, b) = (
        Line(side, layer, reference, variant=variant, normalise=normalise, seed=seed).ends()
        for side, reference in zip((image_side, text_side), references, strict=True)
    )
    return Corners(*(scale * float(x @ y) for x, y in ((a, b), (r_a, b), (a, r_b), (r_a, r_b))))


renamed.watch(__name__)

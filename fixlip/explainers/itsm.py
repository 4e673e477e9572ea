"""ITSM: the similarities of single patches and single tokens, each embedded by itself."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from fixlip.encoders.opened import Tower
from fixlip.encoders.sides import ImageSide, TextSide
from fixlip.explainers.maps import Factor, FactorPair

Side = ImageSide | TextSide
VARIANTS = {"output": "itsm-o", "hidden": "itsm-h"}


def explain(
    image_side: Side,
    text_side: Side,
    *,
    variant: str = "output",
    layer: int = -1,
    normalise: bool = True,
    scale: float = 1.0,
) -> FactorPair:
    """Similarities of the players of two sides, image and caption or any two of one encoder.

    Parameters
    ----------
    image_side, text_side : ImageSide or TextSide
    scale : float
        Multiplies the map.
    variant, layer, normalise
        As in `factor`.

    Examples
    --------
    >>> import numpy as np
    >>> from fixlip import load
    >>> encoder = load("demo-clip", device="cpu")
    >>> picture = np.zeros((48, 48, 3), np.uint8)
    >>> explain(encoder.image(picture), encoder.text("a red star")).cross.shape
    (36, 3)
    """
    image, text = (
        factor(side, variant=variant, layer=layer, normalise=normalise)
        for side in (image_side, text_side)
    )
    return FactorPair(image, text, scale)


@torch.no_grad()
def factor(
    side: Side, *, variant: str = "output", layer: int = -1, normalise: bool = True
) -> Factor:
    """One side's half: every token taken to the embedding space by itself.

    Each token passes the final normalisation and projection, which the model applies to one token
    only. Towers that pool by attention (SigLIP's image tower) have no projection of single tokens:
    there, the pooling is applied to each token as if it were the only one, which leaves its value
    and output layers. That reading is ours, and so is the normalisation before the projection,
    where the paper leaves the details open.

    Parameters
    ----------
    side : ImageSide or TextSide
    variant : {"output", "hidden"}
        ITSM-O, of the last block's outputs, or ITSM-H, of the hidden states that exCLIP explains.
    layer : int
        "hidden" takes the states at the input of this block, from 0; by default the last block's.
    normalise : bool
        Cosines of single tokens (a player's vector is the sum over its tokens); else dot products.

    Raises
    ------
    ValueError
        For an unknown variant, or a tower that pools in a way without a reading for one token.

    References
    ----------
    Sammani, Joukovsky and Deligiannis, Visualizing and Understanding Contrastive Learning, IEEE
    TIP 2023; both variants as in section 4.2 of the exCLIP paper (TMLR 2025).
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is unknown; expected one of {tuple(VARIANTS)}")
    tower = Tower(side, layer)
    states = tower.run(tower.hidden) if variant == "output" else tower.hidden
    tokens = tower.project(states)[0]  # (T, D)
    if normalise:
        tokens = normalize(tokens, dim=-1)
    vectors = (tower.rows.double() @ tokens.cpu().double()).numpy()  # (k + n, D)
    k = len(tower.special_names)
    options = {"normalise": normalise}
    if variant == "hidden":
        options["layer"] = tower.layer
    return Factor(
        vectors[k:],
        side.names,
        side.info["kind"],
        vectors[:k],
        tower.special_names,
        {**side.info, "method": VARIANTS[variant], "options": options},
        getattr(side, "picture", None),
    )

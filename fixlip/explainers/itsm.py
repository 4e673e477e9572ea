"""ITSM: the similarities of single patches and single tokens, each embedded by itself."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from fixlip import renamed
from fixlip.checks import one_of
from fixlip.encoders.opened import OpenTower
from fixlip.encoders.sides import EncoderSide
from fixlip.explainers.results import from_rows
from fixlip.solver import Factor

VARIANTS = {"output": "itsm-o", "hidden": "itsm-h"}


@torch.no_grad()
def factor(
    side: EncoderSide, *, variant: str = "output", layer: int = -1, normalise: bool = True
) -> Factor:
    """One side's half: every token taken to the embedding space by itself.

    Each token passes the final normalisation and projection, which the model applies to one token
    only. Towers that pool by attention (SigLIP's image tower) have no projection of single tokens:
    there, the pooling is applied to each token as if it were the only one, which leaves its value
    and output layers. That reading is ours, and so is the normalisation before the projection,
    where the paper leaves the details open. Raises ValueError for a tower without such a reading.

    Parameters
    ----------
    side : ImageSide or TextSide
    variant : {"output", "hidden"}
        ITSM-O, of the last block's outputs, or ITSM-H, of the hidden states that exCLIP explains.
    layer : int
        "hidden" takes the states at the input of this block, from 0; by default the last block's.
    normalise : bool
        Cosines of single tokens (a player's vector is the sum over its tokens); else dot products.

    References
    ----------
    Sammani, Joukovsky and Deligiannis, Visualizing and Understanding Contrastive Learning, IEEE
    TIP 2023; both variants as in section 4.2 of the exCLIP paper (TMLR 2025).
    """
    one_of("variant", variant, VARIANTS)
    tower = OpenTower(side, layer)
    states = tower.run(tower.hidden) if variant == "output" else tower.hidden
    tokens = tower.project(states)[0]  # (T, D)
    if normalise:
        tokens = normalize(tokens, dim=-1)
    vectors = tower.rows.double() @ tokens.cpu().double()  # (k + n, D)
    layer = {"layer": tower.layer} if variant == "hidden" else {}
    return from_rows(tower, vectors, VARIANTS[variant], {"normalise": normalise, **layer})


renamed.watch(__name__)

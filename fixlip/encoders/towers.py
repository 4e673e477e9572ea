"""How towers end: pooling and projection of each kind of image and text tower."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers import AttentionPoolLatent
from torch import nn

from fixlip.encoders.sides import TextSide, text_tower


class Parts(NamedTuple):
    """A tower's blocks, and what comes after them.

    Attributes
    ----------
    blocks : torch.nn.ModuleList or torch.nn.Sequential
    pooled : int or None
        The token whose output becomes the embedding; None where several are pooled.
    length : int or None
        The tokens that can matter; None: all.
    head : callable
        From outputs (B, T, width), or (B, 1, width) of the pooled token, to embeddings (B, D).
    project : callable
        From outputs (B, T, width) to an embedding of every token, (B, T, D).
    """

    blocks: nn.ModuleList | nn.Sequential
    pooled: int | None
    length: int | None
    head: Callable[[torch.Tensor], torch.Tensor]
    project: Callable[[torch.Tensor], torch.Tensor]


def image_parts(visual: nn.Module) -> Parts:
    """The parts of an image tower; ValueError where it is no sequence of transformer blocks."""
    return _timm(visual) if isinstance(visual, TimmModel) else _native(visual)


def _native(visual: nn.Module) -> Parts:
    """open_clip's own vision transformer."""
    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            f"the image tower is {type(visual).__name__}, which has no transformer blocks to open; "
            "choose a ViT, SigLIP or EVA model"
        )
    single = visual.attn_pool is None and visual.pool_type == "tok"

    def head(hidden: torch.Tensor) -> torch.Tensor:
        pooled, _ = visual._pool(hidden)
        return pooled @ visual.proj

    def project(hidden: torch.Tensor) -> torch.Tensor:
        if visual.attn_pool is not None:
            raise ValueError(
                "this image tower pools its tokens with several queries, which has no reading for "
                "single tokens; choose a method other than ITSM"
            )
        return visual.ln_post(hidden) @ visual.proj

    return Parts(visual.transformer.resblocks, 0 if single else None, None, head, project)


def _timm(visual: TimmModel) -> Parts:
    """A vision transformer of timm, as SigLIP's and EVA's."""
    trunk = visual.trunk
    if not isinstance(getattr(trunk, "blocks", None), nn.Sequential | nn.ModuleList):
        raise ValueError(
            f"the image tower is timm's {type(trunk).__name__}, which has no plain sequence of "
            "transformer blocks to open; choose a ViT, SigLIP or EVA model"
        )

    def head(hidden: torch.Tensor) -> torch.Tensor:
        return visual.head(trunk.forward_head(trunk.norm(hidden)))

    def project(hidden: torch.Tensor) -> torch.Tensor:
        B, T, _ = hidden.shape
        tokens = trunk.norm(hidden)
        if trunk.attn_pool is not None:
            if (
                type(trunk.attn_pool) is not AttentionPoolLatent
                or trunk.attn_pool.pos_embed is not None
            ):
                raise ValueError(
                    f"this image tower pools its tokens with {type(trunk.attn_pool).__name__} at "
                    "fixed positions, which has no reading for single tokens; choose a method "
                    "other than ITSM"
                )
            tokens = trunk.attn_pool(tokens.flatten(0, 1)[:, None])  # (B T, 1, width) -> (B T, w)
            tokens = tokens.unflatten(0, (B, T))
        return visual.head(trunk.head(trunk.fc_norm(tokens)))

    return Parts(trunk.blocks, None, None, head, project)


def text_parts(side: TextSide) -> Parts:
    """open_clip's text transformer, in a model of its own or as a part of CLIP."""
    text, pooled = text_tower(side.encoder.model), side._pooled

    def project(hidden: torch.Tensor) -> torch.Tensor:
        hidden, matrix = text.ln_final(hidden), text.text_projection
        if matrix is None:
            return hidden
        return matrix(hidden) if isinstance(matrix, nn.Linear) else hidden @ matrix

    length = None if text.attn_mask is None else pooled + 1
    return Parts(text.transformer.resblocks, pooled, length, lambda x: project(x)[:, 0], project)

"""The anatomy of image and text towers: blocks, patches, pooling and projection of every kind.

How open_clip and timm name the parts of a tower stands here; what is inside a block stands in
``attention`` and ``opened``. To support another kind of tower, add a function that fills in an
`ImageTower` or a `TextTower` for it, and let `image_tower` or `text_tower` call it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import (
    ResidualAttentionBlock,
    TextTransformer,
    Transformer,
    VisionTransformer,
)
from timm.layers import AttentionPoolLatent, PatchEmbed, to_2tuple
from torch import nn

from fixlip.checks import one_of


class ImageTower(NamedTuple):
    """The parts of a vision transformer.

    ``head`` goes from outputs of the last block (B, T, width), or (B, 1, width) of the pooled
    token, to embeddings (B, D), not normalised; ``project`` to an embedding of every token
    (B, T, D). ``patch`` and ``embedding`` are None where overlapping convolutions embed patches.
    """

    blocks: nn.ModuleList | nn.Sequential  # the transformer blocks, first to last
    width: int  # of the hidden states
    grid: tuple[int, int]  # rows and columns of patches
    patch: tuple[int, int] | None  # height and width in pixels
    embedding: nn.Module | None  # the layer that embeds every patch by itself
    pooled: int | None  # the token whose output becomes the embedding (CLS); None: several do
    pool: nn.Module | None  # an attention pool with one learned query
    pooling: str  # how the tower itself calls its way of pooling
    head: Callable[[torch.Tensor], torch.Tensor]
    project: Callable[[torch.Tensor], torch.Tensor]

    @property
    def attention(self) -> list[nn.Module]:
        """The attention layers, first to last; an attention pool is the last of them."""
        layers = [getattr(block, "attn", block) for block in self.blocks]
        return layers if self.pool is None else [*layers, self.pool]


class TextTower(NamedTuple):
    """The parts of open_clip's text transformer; ``project`` as in `ImageTower`."""

    transformer: Transformer  # runs all blocks, with the attention mask as an argument
    causal: torch.Tensor | None  # (L, L), added where tokens see only what stands before them
    pooling: str  # at which token the embedding is read: "first", "last", "argmax" or "eos"
    end: int  # the id of the end token, for "eos"
    project: Callable[[torch.Tensor], torch.Tensor]

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.transformer.resblocks

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.transformer.width

    @property
    def attention(self) -> list[nn.Module]:
        """The attention layers, first to last."""
        return [block.attn for block in self.blocks]

    def pooled(self, ids: torch.Tensor) -> int:
        """Return the position whose output is the embedding of the token ids (1, L)."""
        ways = {
            "first": 0,
            "last": ids.shape[1] - 1,
            "argmax": int(ids[0].argmax()),
            "eos": int((ids[0] == self.end).int().argmax()),
        }
        return ways[one_of("the text tower's pooling", self.pooling, ways)]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D), not normalised, for outputs (B, 1, width) of the pooled token."""
        return self.project(hidden)[:, 0]


def is_plain(block: nn.Module) -> bool:
    """Whether a block is open_clip's plain one, in which a single token can be computed alone."""
    return type(block) is ResidualAttentionBlock


def image_tower(model: nn.Module, name: str) -> ImageTower:
    """Find the parts of a model's image tower; ``name`` is what the model is called in messages.

    Raises ValueError if the tower is no plain vision transformer, so that masked patches are not
    well defined.
    """
    visual = model.visual
    if not getattr(visual, "output_tokens", False):
        if isinstance(visual, VisionTransformer):
            return _open_clip_image(visual)
        if isinstance(visual, TimmModel) and _is_plain_trunk(visual.trunk):
            return _timm_image(visual)
    kind = type(getattr(visual, "trunk", visual)).__name__
    raise ValueError(
        f"the image tower of {name!r} is no plain vision transformer ({kind}), and only these have "
        "patches to remove; choose a ViT, SigLIP or EVA model"
    )


def text_tower(model: nn.Module, name: str) -> TextTower:
    """Find the parts of a model's text tower, a module of its own or, in CLIP, the model itself.

    Raises ValueError if the tower is not open_clip's text transformer, or has CoCa's class token.
    """
    text = getattr(model, "text", model)
    own = text is model or isinstance(text, TextTransformer)
    if not own or getattr(text, "cls_emb", None) is not None or getattr(text, "output_tokens", 0):
        raise ValueError(
            f"the text tower of {name!r} is not open_clip's plain text transformer (CoCa and "
            "Hugging Face text encoders are not supported); choose a CLIP or SigLIP model"
        )

    pooling, end = (
        (text.text_pool_type, text.text_eos_id) if text is model else (text.pool_type, text.eos_id)
    )
    return TextTower(text.transformer, text.attn_mask, pooling, end, partial(_project_text, text))


# The functions of towers are no closures, so that encoders and sides can be pickled.
def _project_text(text: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    hidden, matrix = text.ln_final(hidden), text.text_projection
    if matrix is None:
        return hidden
    return matrix(hidden) if isinstance(matrix, nn.Linear) else hidden @ matrix


def refuse_family(config: dict[str, Any], name: str) -> None:
    """Raise for families that cannot be masked, before anything large is built or fetched.

    `image_tower` and `text_tower` refuse built models; this reads open_clip's configuration alone,
    and says what the model has, and what to choose instead.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    trunk = _trunk(vision.get("timm_model_name"))
    if isinstance(vision.get("layers"), list | tuple):
        kind = "a ResNet image tower, which has no patches to remove"
    elif trunk and not _is_plain_trunk(trunk):
        kind = f"a {type(trunk).__name__} image tower, which is no plain vision transformer"
    elif text.get("hf_model_name"):
        kind = "a Hugging Face text encoder, whose masks differ from open_clip's"
    elif "multimodal_cfg" in config or text.get("embed_cls"):
        kind = "the class token of CoCa in its text tower, whose masks differ from CLIP's"
    elif "none" in (text.get("pool_type"), vision.get("pool_type")):
        kind = "a tower without pooling"
    elif trunk and trunk.patch_embed.img_size != to_2tuple(vision.get("image_size", 224)):
        own, prepared = trunk.patch_embed.img_size[0], vision.get("image_size", 224)
        kind = f"an image tower for {own} pixels, but prepares images of {prepared}"
    else:
        return
    raise ValueError(f"{name!r} has {kind}; choose a CLIP or SigLIP model with a ViT")


def _trunk(tower: str | None) -> nn.Module | None:
    """Return timm's model of a name without memory for its weights, if timm knows the name."""
    if not tower or not timm.is_model(tower):
        return None
    with torch.device("meta"):
        return timm.create_model(tower)


def _is_plain_trunk(trunk: nn.Module) -> bool:
    return isinstance(trunk, timm.models.VisionTransformer | timm.models.Eva)


def _open_clip_image(visual: VisionTransformer) -> ImageTower:
    """open_clip's own vision transformer."""
    single = visual.attn_pool is None and visual.pool_type == "tok"
    return ImageTower(
        blocks=visual.transformer.resblocks,
        width=visual.conv1.out_channels,
        grid=visual.grid_size,
        patch=visual.patch_size,
        embedding=visual.conv1,
        pooled=0 if single else None,
        pool=None,
        pooling=visual.pool_type,
        head=partial(_open_clip_head, visual),
        project=partial(_project_open_clip, visual),
    )


def _open_clip_head(visual: VisionTransformer, hidden: torch.Tensor) -> torch.Tensor:
    pooled, _ = visual._pool(hidden)
    return pooled @ visual.proj


def _project_open_clip(visual: VisionTransformer, hidden: torch.Tensor) -> torch.Tensor:
    if visual.attn_pool is not None:
        raise ValueError(
            "this image tower pools its tokens with several queries, which has no reading for "
            "single tokens; choose a method other than ITSM"
        )
    return visual.ln_post(hidden) @ visual.proj


def _timm_image(visual: TimmModel) -> ImageTower:
    """A vision transformer of timm behind open_clip's adaptor, as SigLIP's and EVA's."""
    trunk, pool = visual.trunk, visual.trunk.attn_pool
    patches = trunk.patch_embed
    by_itself = type(patches) is PatchEmbed
    one_query = type(pool) is AttentionPoolLatent and pool.latent_len == 1
    return ImageTower(
        blocks=trunk.blocks,
        width=trunk.embed_dim,
        grid=tuple(patches.grid_size),
        patch=tuple(patches.patch_size) if by_itself else None,
        embedding=patches if by_itself else None,
        pooled=0 if pool is None and trunk.global_pool == "token" else None,
        pool=pool if one_query else None,
        pooling=trunk.global_pool,
        head=partial(_timm_head, visual),
        project=partial(_project_timm, visual),
    )


def _timm_head(visual: TimmModel, hidden: torch.Tensor) -> torch.Tensor:
    return visual.head(visual.trunk.forward_head(visual.trunk.norm(hidden)))


def _project_timm(visual: TimmModel, hidden: torch.Tensor) -> torch.Tensor:
    trunk, pool = visual.trunk, visual.trunk.attn_pool
    B, T, _ = hidden.shape
    tokens = trunk.norm(hidden)
    if pool is not None:
        if type(pool) is not AttentionPoolLatent or pool.pos_embed is not None:
            raise ValueError(
                f"this image tower pools its tokens with {type(pool).__name__} at fixed "
                "positions, which has no reading for single tokens; choose a method other than ITSM"
            )
        tokens = pool(tokens.flatten(0, 1)[:, None])  # (B, T, width) -> (B T, width)
        tokens = tokens.unflatten(0, (B, T))
    return visual.head(trunk.head(trunk.fc_norm(tokens)))

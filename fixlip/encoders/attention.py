"""The attention of a model's layers, recomputed so that gradients reach its probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import open_clip
import torch
from timm.layers import Attention as TimmAttention
from timm.layers import AttentionPoolLatent
from torch import nn
from torch.nn.functional import linear, normalize

from fixlip.checks import one_of
from fixlip.encoders.hooks import hooks, keep_states
from fixlip.encoders.sides import EncoderSide, ImageSide, TextSide


@dataclass(frozen=True)
class Attention:
    """The arrays inside one attention layer, for one input, as parts of the embedding's graph.

    In q, k, v and output, the heads' vectors stand one after the other.
    """

    q: torch.Tensor  # (queries, width)
    k: torch.Tensor  # (keys, width)
    v: torch.Tensor  # (keys, width)
    probabilities: torch.Tensor  # (heads, queries, keys)
    output: torch.Tensor  # (queries, width): probabilities @ v, before the output projection
    project: Callable[[torch.Tensor], torch.Tensor]  # the output projection, bias included


class Readout(NamedTuple):
    """The attention layers of a tower, and where its last one is read."""

    layers: list[nn.Module]  # first to last; in SigLIP's image tower the attention pool is the last
    query: int  # that the embedding is made from: CLS, the end token, the pool's own
    units: slice  # the patches, or the caption's tokens, among the keys
    pool: bool  # whether the last layer is an attention pool, whose one query is no token


def readout(side: EncoderSide, *, method: str) -> Readout:
    """Find the attention layers of a side's tower, and where the last one is read.

    ``method`` is the explainer's name in messages. Raises TypeError if the side was not made by an
    encoder; ValueError if the embedding is not read at one query of the last layer, as with average
    pooling.
    """
    if isinstance(side, TextSide):
        return Readout(side.tower.attention, side.pooled, side.span, False)
    if not isinstance(side, ImageSide):
        raise TypeError(
            f"{method} looks into the model and needs sides from encoder.image(...) and "
            f"encoder.text(...), got {type(side).__name__}"
        )
    units = slice(-len(side.players.owner), None)  # CLS and registers come first
    if side.tower.pool is not None:
        return Readout(side.tower.attention, 0, units, True)
    if side.pooled is not None:
        return Readout(side.tower.attention, side.pooled, units, False)
    raise ValueError(
        f"{method} follows the attention of the CLS token, or of an attention pool with one query; "
        f"the image tower of {side.encoder.name!r} has neither (it pools by "
        f"{side.tower.pooling!r}): use a method that needs no such token, such as fixlip.explain"
    )


def embed(
    side: EncoderSide, layers: Sequence[nn.Module], *, heads: str = "own"
) -> tuple[torch.Tensor, list[Attention]]:
    """Embed the whole input, and keep the attention of some layers as parts of the graph.

    Call it where gradients are enabled.

    Raises ValueError if ``heads`` is unknown, a layer's attention is of an unknown kind, or the
    model computes in half precision, which is too coarse for gradients.

    Parameters
    ----------
    side : ImageSide or TextSide
    layers : sequence of torch.nn.Module
        Attention layers of `readout`, in their order.
    heads : {"own", "one"}
        With "own" the embedding is the model's. With "one", those layers attend with a single
        head over their full width, at scale 1 / sqrt(width), and the embedding changes.

    Returns
    -------
    torch.Tensor, (D,)
        The embedding, of length 1, with a graph back to the first of the layers.
    list of Attention
        One per layer.
    """
    encoder = side.encoder
    one_of("heads", heads, ("own", "one"))
    if encoder.half:
        raise ValueError(
            f"gradients need single precision, and the model computes in {encoder.dtype}: load it "
            "with dtype=torch.float32"
        )
    for layer in layers:
        if type(layer) not in _PARTS:
            known = ", ".join(f"{kind.__module__}.{kind.__name__}" for kind in _PARTS)
            raise ValueError(
                f"{encoder.name!r} has attention of the kind {type(layer).__name__}, which cannot "
                f"be recomputed here; known are {known}"
            )
    keep_states(encoder.model)  # the user may have switched it on since
    found: list[Attention] = []

    def recompute(layer, args, kwargs, output):
        """Replace the layer's output by one that is computed from explicit probabilities."""
        q, k, v, project, finish = _PARTS[type(layer)](layer, args[0][0])
        if heads == "one":
            q, k, v = (_split(_merge(x), 1) for x in (q, k, v))
        scores = q @ k.mT / q.shape[-1] ** 0.5  # (heads, queries, keys)
        if (mask := kwargs.get("attn_mask")) is not None:
            scores = scores + (mask if mask.ndim == 2 else mask[: len(q)])
        probabilities = scores.softmax(-1)
        if not probabilities.requires_grad:  # the graph starts at the first layer
            probabilities.requires_grad_()
        mixed = _merge(probabilities @ v)  # (queries, width)
        found.append(Attention(_merge(q), _merge(k), _merge(v), probabilities, mixed, project))
        return finish(mixed)

    with hooks() as add:
        for layer in layers:
            add(layer.register_forward_hook, recompute, with_kwargs=True)
        if isinstance(side, TextSide):
            features = encoder.model.encode_text(side.ids)  # (1, D)
        else:
            features = encoder.model.encode_image(side.pixels)  # (1, D)
    return normalize(features, dim=-1)[0], found


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(positions, width) -> (heads, positions, width / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(0, 1)


def _merge(x: torch.Tensor) -> torch.Tensor:
    """(heads, positions, width / heads) -> (positions, width)."""
    return x.transpose(0, 1).flatten(1)


# One function per kind of layer. From the layer's input x (positions, width) it returns q, k and v,
# each (heads, positions, width / heads), the output projection, and a function that turns the
# values, mixed by the attention, (queries, width), into the layer's own output.


def _multihead(layer: nn.MultiheadAttention, x: torch.Tensor) -> tuple:
    qkv = linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
    q, k, v = (_split(part, layer.num_heads) for part in qkv)
    return q, k, v, layer.out_proj, lambda mixed: (layer.out_proj(mixed)[None], None)


def _open_clip(layer: open_clip.transformer.Attention, x: torch.Tensor) -> tuple:
    qkv = linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)
    q, k, v = (_split(part, layer.num_heads) for part in qkv)

    def finish(mixed):
        if layer.head_scale is not None:
            mixed = mixed * layer.head_scale.flatten().repeat_interleave(layer.head_dim)
        return layer.out_proj(layer.ln_inner(mixed))[None]

    return layer.ln_q(q), layer.ln_k(k), v, layer.out_proj, finish


def _timm(layer: TimmAttention, x: torch.Tensor) -> tuple:
    q, k, v = (_split(part, layer.num_heads) for part in layer.qkv(x).chunk(3, -1))

    def finish(mixed):
        mixed = layer.norm(mixed)
        if getattr(layer, "gate", None) is not None:  # newer versions of timm have it
            mixed = mixed * layer.gate(x).sigmoid()
        return layer.proj(mixed)[None]

    return layer.q_norm(q), layer.k_norm(k), v, layer.proj, finish


def _pool(layer: AttentionPoolLatent, x: torch.Tensor) -> tuple:
    if layer.pos_embed is not None:
        x = x + layer.pos_embed
    k, v = (_split(part, layer.num_heads) for part in layer.kv(x).chunk(2, -1))
    q = _split(layer.q(layer.latent[0]), layer.num_heads)

    def finish(mixed):
        pooled = layer.proj(mixed)  # (1, width): the pool's one query is the batch of one
        return pooled if layer.mlp is None else pooled + layer.mlp(layer.norm(pooled))

    return layer.q_norm(q), layer.k_norm(k), v, layer.proj, finish


_PARTS = {
    nn.MultiheadAttention: _multihead,
    open_clip.transformer.Attention: _open_clip,
    TimmAttention: _timm,
    AttentionPoolLatent: _pool,
}

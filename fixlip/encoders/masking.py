"""Masked passes through open_clip's towers: tokens to hide, work to leave out, rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from open_clip.transformer import ResidualAttentionBlock, Transformer

from fixlip.sampler import LAST_BATCH


@contextmanager
def hidden_tokens(
    transformer: Transformer, hidden: torch.Tensor, causal: torch.Tensor | None
) -> Iterator[None]:
    """Repeat the one row that enters a transformer, each time with other tokens hidden.

    Parameters
    ----------
    transformer : open_clip.transformer.Transformer
    hidden : torch.Tensor of bool, shape (m, L)
        True = no other token attends to it. Tokens after the L-th are cut off.
    causal : torch.Tensor, shape (at least L, at least L), optional
        The tower's own additive mask.
    """
    m, length = hidden.shape
    blocks = transformer.resblocks
    by_key = causal is None and all(type(block) is ResidualAttentionBlock for block in blocks)

    def repeat(module, args, kwargs):
        rows = args[0][:, :length].expand(m, -1, -1)  # (1, all, width) -> (m, L, width)
        mask = None
        if not by_key:
            mask = _additive(hidden, causal, rows.dtype)
            mask = mask.repeat_interleave(blocks[0].attn.num_heads, dim=0)  # (m * heads, L, L)
        return (rows,), {**kwargs, "attn_mask": mask}

    def hide_keys(module, args, kwargs):
        return args, {**kwargs, "key_padding_mask": hidden}

    with ExitStack() as hooks:
        hooks.enter_context(transformer.register_forward_pre_hook(repeat, with_kwargs=True))
        if by_key:  # needs no (m * heads, L, L) numbers, and takes torch's fused attention
            for block in blocks:
                hooks.enter_context(
                    block.attn.register_forward_pre_hook(hide_keys, with_kwargs=True)
                )
        yield


def _additive(
    hidden: torch.Tensor, causal: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Return what is added to the attention scores, (m, L) -> (m, L, L): -inf for hidden keys."""
    length = hidden.shape[1]
    keys = hidden[:, None].repeat(1, length, 1)  # (m, queries, keys)
    # A hidden token may see itself: nobody sees its row, and a row without keys would be NaN.
    keys.diagonal(dim1=1, dim2=2).fill_(False)
    mask = torch.zeros(keys.shape, dtype=dtype, device=keys.device)
    mask.masked_fill_(keys, -math.inf)  # additive, as a boolean mask would be added as 1
    return mask if causal is None else mask + causal[:length, :length]


@contextmanager
def last_row_only(transformer: Transformer, position: int) -> Iterator[None]:
    """Let the last block answer for one position only, (m, L, width) -> (m, 1, width).

    That token attends to all others as before, so its row is what it was; what falls away is the
    query, the output projection and the MLP of rows that nothing reads. Blocks of another kind
    than open_clip's plain one run whole.

    Parameters
    ----------
    transformer : open_clip.transformer.Transformer
    position : int
        The token at which the tower reads its embedding.
    """
    block = transformer.resblocks[-1]
    if type(block) is not ResidualAttentionBlock:
        yield
        return
    row = slice(position, position + 1)
    waiting: list[torch.Tensor] = []

    def one_query(module, args, kwargs):
        waiting.append(args[0])
        mask = kwargs.get("attn_mask")
        if mask is not None:  # (..., L, L) -> (..., 1, L)
            kwargs = {**kwargs, "attn_mask": mask[..., row, :]}
        return (args[0][:, row],), kwargs

    def all_keys(module, args, kwargs):
        rows = block.ln_1(waiting.pop())  # as the block itself normalises its one row
        return (args[0], rows, rows), kwargs

    with (
        block.register_forward_pre_hook(one_query, with_kwargs=True),
        # prepended: hooks that are there for good see the rows that attention gets
        block.attn.register_forward_pre_hook(all_keys, with_kwargs=True, prepend=True),
    ):
        yield


@contextmanager
def blocks_in(tower: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let matrix products and attention in an image tower's blocks compute in half precision.

    What comes before and after stays in the weights' type, and so does the sum that runs through
    the blocks. To round the embedding itself, in the last projection, would cost more accuracy than
    all blocks do, and to round the sum at every block as well.

    Parameters
    ----------
    tower : torch.nn.Module
        ``model.visual``.
    dtype : torch.dtype
    """
    blocks = tower.transformer.resblocks if hasattr(tower, "transformer") else tower.trunk.blocks
    context = torch.autocast(next(tower.parameters()).device.type, dtype)

    def enter(module, args):
        context.__enter__()

    def leave(module, args, output):
        context.__exit__(None, None, None)

    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(block.register_forward_pre_hook(enter))
            hooks.enter_context(block.register_forward_hook(leave, always_call=True))
        yield


def lay_rows_by_position(tower: torch.nn.Module) -> None:
    """Hand rows to attention in the order in memory in which it multiplies them, from now on.

    torch's attention multiplies a transposed view of its rows. In half precision, where its fused
    path is off, every such product on a CPU copied the weight once per position: ViT-B-32 spent two
    thirds of its time on that.
    """

    def lay(module, args):
        rows = {id(x): x.transpose(0, 1).contiguous().transpose(0, 1) for x in args}
        return tuple(rows[id(x)] for x in args)  # what was one tensor stays one

    for module in tower.modules():
        if isinstance(module, torch.nn.MultiheadAttention) and module.batch_first:
            module.register_forward_pre_hook(lay)


def fitting_rows(device: torch.device, tokens: int, width: int) -> int:
    """How many inputs a tower should take in one pass.

    On a CPU few enough for the hidden states to stay in its caches, as 16 images of ViT-B-16 or 27
    of ViT-B-32: larger batches were 5 to 10 % slower. On a CUDA GPU as many as an eighth of its
    memory holds, at 64 bytes for every hidden number (14 copies of it live at once in float32). The
    GPU's whole memory counts, not what is free, so that the same work gives the same bits.

    Parameters
    ----------
    device : torch.device
    tokens, width : int
        Shape of the hidden states of one input.
    """
    if device.type == "cuda":
        numbers = torch.cuda.get_device_properties(device).total_memory // 8 // 64
    else:
        numbers = 2**20 if device.type == "cpu" else 2**22
    return max(2 * LAST_BATCH, numbers // (tokens * width))

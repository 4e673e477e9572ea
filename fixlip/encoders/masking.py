"""Masked passes through towers: hiding tokens, leaving out work, and how many rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from fixlip.encoders.hooks import hooks
from fixlip.encoders.towers import TextTower, is_plain
from fixlip.sampler.sweep import MIN_BATCH


@contextmanager
def hidden_tokens(tower: TextTower, hidden: torch.Tensor) -> Iterator[None]:
    """Repeat the one row that enters a text tower, each time with other tokens hidden.

    Where ``hidden``, (m, L), bool, is True, no other token attends to it. Tokens after the L-th are
    cut off.
    """
    m, length = hidden.shape
    by_key = tower.causal is None and all(is_plain(block) for block in tower.blocks)

    def repeat(module, args, kwargs):
        rows = args[0][:, :length].expand(m, -1, -1)  # (1, all, width) -> (m, L, width)
        mask = None
        if not by_key:
            mask = _additive(hidden, tower.causal, rows.dtype)
            heads = tower.attention[0].num_heads
            mask = mask.repeat_interleave(heads, dim=0)  # (m * heads, L, L)
        return (rows,), {**kwargs, "attn_mask": mask}

    def hide_keys(module, args, kwargs):
        return args, {**kwargs, "key_padding_mask": hidden}

    with hooks() as add:
        add(tower.transformer.register_forward_pre_hook, repeat, with_kwargs=True)
        if by_key:  # needs no (m * heads, L, L) numbers, and takes torch's fused attention
            for layer in tower.attention:
                add(layer.register_forward_pre_hook, hide_keys, with_kwargs=True)
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
def one_row_only(block: torch.nn.Module, position: int | None) -> Iterator[None]:
    """Let a tower's last block compute one token only, (m, L, width) -> (m, 1, width).

    That token attends to all others as before, so its row does not change. What is saved is the
    query, the output projection and the MLP of the rows that nothing reads. Blocks of another kind
    than open_clip's plain one compute all rows, and so do all where ``position`` is None.
    """
    if position is None or not is_plain(block):
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
        rows = block.ln_1(waiting.pop())  # as the block itself normalises the one row
        return (args[0], rows, rows), kwargs

    with hooks() as add:
        add(block.register_forward_pre_hook, one_query, with_kwargs=True)
        # prepended, so that permanent hooks see the rows that attention is given
        add(block.attn.register_forward_pre_hook, all_keys, with_kwargs=True, prepend=True)
        yield


@contextmanager
def blocks_in(
    blocks: Sequence[torch.nn.Module], device: torch.device, dtype: torch.dtype
) -> Iterator[None]:
    """Compute the matrix products and the attention of an image tower's blocks in half precision.

    The layers before and after the blocks stay in the weights' type, and so does the sum (the
    residual stream) that runs through them. Rounding the embedding itself, in the last projection,
    would cost more accuracy than all blocks together, and so would rounding the sum at every block.
    """
    running = ExitStack()  # holds the autocast context of the block that runs now

    def enter(module, args):
        running.enter_context(torch.autocast(device.type, dtype))

    def leave(module, args, output):
        running.close()

    with hooks() as add:
        for block in blocks:
            add(block.register_forward_pre_hook, enter)
            add(block.register_forward_hook, leave, always_call=True)
        yield


def lay_rows_by_position(tower: torch.nn.Module) -> None:
    """Hand rows to torch's attention in the memory order in which it multiplies them, from now on.

    torch's attention multiplies a transposed view of its rows. In half precision, where its fused
    path is off, every such product on a CPU copied the weight once per position: ViT-B-32 spent two
    thirds of its time on these copies. The tower gets hooks that stay.
    """

    def lay(module, args):
        rows = {id(x): x.transpose(0, 1).contiguous().transpose(0, 1) for x in args}
        # a tensor that is given twice stays one tensor, which torch then projects only once
        return tuple(rows[id(x)] for x in args)

    for module in tower.modules():
        if isinstance(module, torch.nn.MultiheadAttention) and module.batch_first:
            module.register_forward_pre_hook(lay)


def fitting_rows(device: torch.device, tokens: int, width: int) -> int:
    """How many inputs with hidden states (tokens, width) a tower should take in one pass.

    On a CPU, few enough for the hidden states to stay in its caches, such as 16 images of ViT-B-16
    or 27 of ViT-B-32: larger batches were 5 to 10 % slower. On a CUDA GPU, as many as fit an eighth
    of its memory, at 64 bytes per number of the hidden states (14 copies of them exist at the same
    time in float32). The GPU's whole memory counts, not what is free, so that the same work gives
    the same bits.
    """
    if device.type == "cuda":
        numbers = torch.cuda.get_device_properties(device).total_memory // 8 // 64
    else:
        numbers = 2**20 if device.type == "cpu" else 2**22
    return max(2 * MIN_BATCH, numbers // (tokens * width))

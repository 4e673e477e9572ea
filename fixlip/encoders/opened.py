"""A side's tower, opened at the input of one of its blocks: from hidden states to embeddings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear

from fixlip.encoders.hooks import hooks
from fixlip.encoders.sides import EncoderSide, ImageSide, TextSide
from fixlip.encoders.towers import is_plain

_FORWARD_MODE = threading.RLock()


class OpenTower:
    """A side's tower from one block on: hidden states in, the embedding out.

    The model is only called, never changed: hooks are removed when a method returns or fails.

    Raises TypeError for anything but a side of an encoder; ValueError for a layer that the tower
    does not have.

    Parameters
    ----------
    side : ImageSide or TextSide
        From `Encoder.image` or `Encoder.text`.
    layer : int
        The block at whose input the tower is opened, from 0; -1 is the last block.

    Attributes
    ----------
    side, layer : ImageSide or TextSide, int
        As given, the layer counted from 0.
    encode, blocks : callable, list of torch.nn.Module
        The model's own way from pixels or ids to embeddings, not normalised; all its blocks.
    hidden : torch.Tensor, (1, T, width)
        The block's input for the side's own image (CLS and patches) or caption (its tokens with
        start, end and padding). In a causal text tower it ends at the pooled token, because later
        tokens do not influence the embedding.
    pooled : int or None
        The token whose output becomes the embedding; None where several are pooled.
    rows : torch.Tensor of bool, (k + n, T)
        Which tokens belong to each special row, then to each player. Every token is in exactly one
        row.
    special_names : tuple of str, length k
        "CLS", or "BOS", "EOS" and "pads" (all padding together), as far as the input has them.
    """

    @torch.inference_mode(False)  # whose tensors have no derivatives
    def __init__(self, side: EncoderSide, layer: int = -1) -> None:
        if isinstance(side, ImageSide):
            own, self.encode, self._length = side.pixels, side.encoder.model.encode_image, None
        elif isinstance(side, TextSide):
            own, self.encode, self._length = side.ids, side.encoder.model.encode_text, side.length
        else:
            raise TypeError(
                "expected a side made with encoder.image(...) or encoder.text(...), got "
                f"{type(side).__name__}"
            )
        self.side = side
        self.blocks = list(side.tower.blocks)
        self.pooled = side.pooled
        self.layer = _check_layer(layer, len(self.blocks))
        self.hidden, self._options = self._open(own)
        self.rows, self.special_names = _rows(side, self.hidden)

    def read(self, inputs: torch.Tensor) -> torch.Tensor:
        """Hidden states (1, T, width) of another input: pixels (1, 3, H, W) or ids (1, L)."""
        return self._open(inputs)[0]

    def run(self, hidden: torch.Tensor) -> torch.Tensor:
        """Outputs of the last block, (B, T, width), for hidden states (B, T, width)."""
        for block, options in zip(self.blocks[self.layer :], self._options, strict=True):
            hidden = block(hidden, **options)
        return hidden

    def embed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D), not normalised, for hidden states (B, T, width); differentiable.

        Where one token is pooled, open_clip's last block computes this token only, which is exact
        and saves five sixths of the block's work.
        """
        if not self._one_query:
            hidden = self.run(hidden)  # (B, T, width)
            return self.side.tower.head(hidden if self.pooled is None else hidden[:, [self.pooled]])
        last = self.blocks[-1]
        for block, options in zip(self.blocks[self.layer : -1], self._options[:-1], strict=True):
            hidden = block(hidden, **options)
        token = _one_token(last, hidden[:, [self.pooled]], *_keys_and_values(last, hidden))
        return self.side.tower.head(token)  # (B, 1, width) -> (B, D)

    def gated(
        self, hidden: torch.Tensor, move: torch.Tensor
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """``embed(hidden + gates * move)`` as a function of the gates, for derivatives at zero.

        From hidden (B, T, width) and move (1, T, width) a function of gates (T,) to embeddings
        (B, D), whose value and first derivatives are exact at zero. In open_clip's last block, each
        key and value depends on one token only. Their derivatives along the move are therefore
        computed once for all gates, and each gate costs only the pooled token's way through it.
        """
        if not self.direct:
            return lambda gates: self.embed(hidden + gates[:, None] * move)
        last, at = self.blocks[-1], self.pooled
        there, moves = torch.func.jvp(
            partial(_keys_and_values, last), (hidden,), (move.expand_as(hidden),)
        )

        def embed(gates: torch.Tensor) -> torch.Tensor:
            token = hidden[:, [at]] + gates[at] * move[:, [at]]  # (B, 1, width)
            return self.side.tower.head(_one_token(last, token, *there, gates, *moves))

        return embed

    @property
    def direct(self) -> bool:
        """Whether the tower is opened at its last block and pools one token: `gated` is cheap."""
        return self._one_query and self.layer == len(self.blocks) - 1

    @property
    def _one_query(self) -> bool:
        return self.pooled is not None and is_plain(self.blocks[-1])

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Bring each token to the embedding space by itself, (B, T, width) -> (B, T, D).

        Every token passes the final normalisation and projection, which the model applies to the
        pooled token only. Attention pooling is applied to each token as if it were the only one:
        its attention is then 1, and only the value and output layers act. This choice is ours.

        Raises ValueError where the tower pools in a way that is not defined for a single token.
        """
        return self.side.tower.project(hidden)

    @torch.no_grad()
    def _open(self, inputs: torch.Tensor) -> tuple[torch.Tensor, list[dict]]:
        """Return the input of the first opened block, and the keyword options of each of them.

        The options are the attention mask or the rotary positions, the same for every input.
        """
        given: list[tuple[tuple, dict]] = []

        def note(module, args, options):
            given.append((args, options))

        with hooks() as add:
            for block in self.blocks[self.layer :]:
                add(block.register_forward_pre_hook, note, with_kwargs=True)
            self.encode(inputs)
        hidden, length = given[0][0][0], self._length
        options = []
        for _, own in given:
            mask = own.get("attn_mask")  # (L, L)
            options.append(own if mask is None else {**own, "attn_mask": mask[:length, :length]})
        return hidden[:, :length], options  # (1, L, width) -> (1, T, width)


@contextmanager
def forward_mode() -> Iterator[None]:
    """A context in which attention runs in kernels that support forward-mode differentiation.

    One thread at a time: torch's levels of forward mode and its choice of kernels are global.
    """
    with _FORWARD_MODE, sdpa_kernel(SDPBackend.MATH):
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _keys_and_values(
    block: ResidualAttentionBlock, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A block's keys and values, (B, heads, T, width / heads) each."""
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    width = hidden.shape[2]  # queries, keys and values lie one after the other
    both = linear(block.ln_1(hidden), weight[width:], bias[width:])  # (B, T, 2 width)
    return _heads(block, both[..., :width]), _heads(block, both[..., width:])


def _one_token(
    block: ResidualAttentionBlock,
    token: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    gates: torch.Tensor | None = None,
    key_moves: torch.Tensor | None = None,
    value_moves: torch.Tensor | None = None,
) -> torch.Tensor:
    """A block's output (B, 1, width) of the one token that sees all others.

    No mask is needed: a causal tower is cut after its pooled token.
    """
    attn, width = block.attn, token.shape[2]
    query = linear(block.ln_1(token), attn.in_proj_weight[:width], attn.in_proj_bias[:width])
    query = _heads(block, query) * (width // attn.num_heads) ** -0.5  # (B, heads, 1, w / heads)
    scores = query @ keys.mT  # (B, heads, 1, T)
    if gates is not None:
        scores = scores + gates * (query @ key_moves.mT)
    weights = scores.softmax(-1)
    attended = weights @ values
    if gates is not None:
        attended = attended + (weights * gates) @ value_moves
    attended = attended.transpose(1, 2).flatten(2)  # (B, heads, 1, w / heads) -> (B, 1, width)
    token = token + block.ls_1(attn.out_proj(attended))
    return token + block.ls_2(block.mlp(block.ln_2(token)))


def _heads(block: ResidualAttentionBlock, x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(2, (block.attn.num_heads, -1)).transpose(1, 2)  # (B, heads, T, w / heads)


def _check_layer(layer: int, depth: int) -> int:
    if isinstance(layer, bool) or not isinstance(layer, int) or not -depth <= layer < depth:
        raise ValueError(
            f"layer {layer!r} does not exist: the tower has {depth} blocks, so expected 0 to "
            f"{depth - 1}, or -{depth} to -1 from the end"
        )
    return layer % depth


def _rows(side: EncoderSide, hidden: torch.Tensor) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Which tokens belong to each special row and to each player, (k + n, T), and the names."""
    T, owner = hidden.shape[1], torch.tensor(side.players.owner.tolist())
    if isinstance(side, ImageSide):
        start = T - len(owner)
        stop = T
        ends = {"CLS" if i == 0 else f"register {i}": [i] for i in range(start)}
    else:
        start, stop = side.span.start, side.span.stop
        ends = {"BOS": range(start), "EOS": range(stop, stop + 1), "pads": range(stop + 1, T)}
    ends = {name: [i for i in tokens if i < T] for name, tokens in ends.items()}
    ends = {name: tokens for name, tokens in ends.items() if tokens}
    rows = torch.zeros(len(ends) + side.n, T, dtype=torch.bool)
    for row, tokens in enumerate(ends.values()):
        rows[row, tokens] = True
    kept = owner[: max(0, min(stop, T) - start)]  # a causal tower may end within the caption
    rows[len(ends) + kept, start + torch.arange(len(kept))] = True
    return rows, tuple(ends)

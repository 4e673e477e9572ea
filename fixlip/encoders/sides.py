"""The two sides of a pair, as games need them: masked images and captions, embedded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from timm.layers import PatchEmbed
from torch.nn.functional import interpolate, normalize

from fixlip import images
from fixlip.checks import boolean_masks
from fixlip.encoders.masking import fitting_rows, hidden_tokens, last_row_only
from fixlip.encoders.players import Players, blocks, patches, regions, tokens, words

if TYPE_CHECKING:
    from fixlip.encoders import Encoder


class _Side:
    """What the image and the text side have in common: players, and their masked embeddings."""

    def __init__(self, encoder: Encoder, players: Players, hidden: tuple[int, int]) -> None:
        self.encoder = encoder
        self.players = players
        self._hidden = hidden  # tokens and width of the tower's hidden states

    @property
    def n(self) -> int:
        """The number of players."""
        return self.players.n

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the players, in playing order."""
        return self.players.names

    @property
    def batch_size(self) -> int:
        """Masks per forward pass, as many as suit the device."""
        return fitting_rows(self.encoder.device, *self._hidden)

    @torch.no_grad()
    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        """Embed the input once for every mask, in one forward pass.

        Parameters
        ----------
        masks : torch.Tensor of bool, shape (m, n)
            True = kept.

        Returns
        -------
        torch.Tensor, shape (m, D)
            Embeddings of length 1, on the encoder's device, at least in float32.

        Raises
        ------
        TypeError, ValueError
            If the masks have another type or shape, or an embedding is not finite.
        """
        masks = boolean_masks(torch.as_tensor(masks), self.n)
        if not len(masks):
            raise ValueError("got no masks: give at least one row")
        features = self._features(self.players.units(masks.to(self.encoder.device)))
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        if not features.isfinite().all():
            raise ValueError(
                f"the model gives embeddings that are not finite in {self.encoder.dtype}; load it "
                "with dtype=torch.float32 or torch.bfloat16, or check its weights"
            )
        return normalize(features, dim=-1)


class ImageSide(_Side):
    """An image; a removed patch is zero after normalisation, the mean colour, in its place.

    Attributes
    ----------
    picture : numpy.ndarray of uint8, shape (H, W, 3)
        The image as the model sees it.
    pixels : torch.Tensor, shape (1, 3, H, W)
        The same, normalised, on the encoder's device.
    grid : tuple of int
        Rows and columns of patches.
    """

    def __init__(self, encoder: Encoder, image: object, players: object) -> None:
        self._source = _source(image)
        image = images.open_image(image)
        self._size = image.size
        seen = images.frame(image, encoder._geometry, crops=encoder._crops)
        to_tensor, normalise = encoder._normalise
        self.picture = np.array(seen)
        self.pixels = normalise(to_tensor(seen))[None].to(encoder.device, encoder.stored)
        self.grid, self._patch = _grid(encoder.model.visual, seen.size)
        visual = encoder.model.visual
        width = visual.conv1.out_channels if hasattr(visual, "conv1") else visual.trunk.embed_dim
        super().__init__(encoder, self._group(encoder, players), (math.prod(self.grid), width))

    def _group(self, encoder: Encoder, players: object) -> Players:
        if isinstance(players, str):
            if players == "patches":
                return patches(*self.grid)
            size = re.fullmatch(r"(\d+)x\1", players)
            if not size:
                raise ValueError(
                    f"image players {players!r} are unknown; expected 'patches', square blocks of "
                    "patches such as '2x2', or boolean masks of regions"
                )
            return blocks(*self.grid, int(size[1]))
        if not isinstance(players, Mapping):
            players = {f"region {i}": mask for i, mask in enumerate(players, start=1)}
        whole = tuple(slice(n * size) for n, size in zip(self.grid, self._patch, strict=True))
        masks = {}
        for name, mask in players.items():
            seen = images.coverage(mask, encoder._geometry, size=self._size, crops=encoder._crops)
            masks[name] = seen[whole]  # pixels beyond the last whole patch play no part
        return regions(masks, *self.grid)

    @cached_property
    def info(self) -> dict:
        """Everything that determines the side, JSON-able."""
        return {
            "kind": "image",
            "model": self.encoder.info,
            "players": self.players.kind,
            "grid": list(self.grid),
            "owner": self.players.owner.tolist(),
            "source": self._source,
            "size": list(self._size),
        }

    def _features(self, units: torch.Tensor) -> torch.Tensor:
        model, grid = self.encoder.model, self.grid
        visual = model.visual
        keep = units.reshape(-1, 1, *grid)  # (m, patches) -> (m, 1, rows, cols)
        embedding = _patch_embedding(visual)
        if embedding is None:  # patches are not embedded one by one: mask the pixels
            keep = interpolate(keep.to(self.pixels.dtype), self.pixels.shape[2:])  # (m, 1, H, W)
            with self.encoder.precision():
                return model.encode_image(self.pixels * keep)

        def remove_patches(module, args, output):
            """Repeat the one row of patch embeddings, with that of a zero patch where removed."""
            blank = module.forward(torch.zeros_like(args[0]))
            if output.ndim == 3:
                rows = keep.flatten(1)[:, :, None]  # (m, patches, 1), for (1, patches, width)
            elif output.shape[2:] == grid:
                rows = keep  # (m, 1, rows, cols), for (1, width, rows, cols)
            else:
                rows = keep.movedim(1, 3)  # (m, rows, cols, 1), for (1, rows, cols, width)
            # timm hands over a transposed view, and sums keep its layout through all blocks
            return torch.where(rows, output, blank).contiguous()

        by_class_token = getattr(visual, "pool_type", None) == "tok" and visual.attn_pool is None
        with (
            self.encoder.precision(),
            embedding.register_forward_hook(remove_patches),
            last_row_only(visual.transformer, 0) if by_class_token else nullcontext(),
        ):
            return model.encode_image(self.pixels)  # (m, D)


class TextSide(_Side):
    """A caption; a removed token is hidden from attention, positions and ids stay.

    Attributes
    ----------
    ids : torch.Tensor of int64, shape (1, L)
        All token ids, on the encoder's device.
    span : slice
        The positions of the caption's own tokens; start, end and padding tokens always stay.
    """

    def __init__(self, encoder: Encoder, caption: str, players: str) -> None:
        groupings = {"tokens": tokens, "words": words}
        if players not in groupings:
            raise ValueError(f"text players {players!r} are unknown; expected 'tokens' or 'words'")
        self._caption = caption
        self._read = encoder._reader.read(caption)
        self.ids = torch.tensor([self._read.ids], device=encoder.device)
        self.span = slice(self._read.start, self._read.stop)
        self._pooled = _pooled_position(encoder.model, self.ids)
        if self.span.start <= self._pooled < self.span.stop:
            raise ValueError(
                f"the model reads the caption's meaning at its token {self._pooled}, which is no "
                "end token; pass the tokenizer that the model was made with, and leave special "
                "tokens out of the caption"
            )
        text = text_tower(encoder.model)
        # In a causal tower nothing after the pooled position reaches it: leave that out, exactly.
        length = self._pooled + 1 if text.attn_mask is not None else self.ids.shape[1]
        grouped = groupings[players](self._read.pieces)
        super().__init__(encoder, grouped, (length, text.transformer.width))

    @cached_property
    def info(self) -> dict:
        """Everything that determines the side, JSON-able."""
        return {
            "kind": "text",
            "model": self.encoder.info,
            "players": self.players.kind,
            "caption": self._caption,
            "tokens": list(tokens(self._read.pieces).names),
            "token_ids": list(self._read.ids[self.span]),
            "owner": self.players.owner.tolist(),
            "cut": self._read.cut,
        }

    def _features(self, units: torch.Tensor) -> torch.Tensor:
        model, pooled = self.encoder.model, self._pooled
        text, length = text_tower(model), self._hidden[0]
        hidden = units.new_zeros(len(units), self.ids.shape[1])  # (m, all positions)
        hidden[:, self.span] = ~units

        def put_back(module, args, output):
            """Show the one row, (m, 1, width), at the position where the tower looks for it."""
            return output[:, -1:].expand(-1, pooled + 1, -1) if output.shape[1] == 1 else output

        with (
            hidden_tokens(text.transformer, hidden[:, :length], text.attn_mask),
            last_row_only(text.transformer, pooled),
            text.transformer.register_forward_hook(put_back),
        ):
            return model.encode_text(self.ids)  # (m, D)


def _source(image: object) -> str:
    """Return the name of the file that an image came from, or "array"."""
    path = image if isinstance(image, str | Path) else getattr(image, "filename", "")
    return Path(path).name or "array"


def text_tower(model: torch.nn.Module) -> torch.nn.Module:
    """Return what has the text tower's `transformer` and `attn_mask`: in CLIP, the model itself."""
    return model.text if hasattr(model, "text") else model


def _pooled_position(model: torch.nn.Module, ids: torch.Tensor) -> int:
    """Return the position whose output is the embedding of the caption."""
    text = text_tower(model)
    kind = text.text_pool_type if text is model else text.pool_type
    if kind == "eos":
        end = model.text_eos_id if text is model else text.eos_id
        return int((ids[0] == end).int().argmax())
    return {"first": 0, "last": ids.shape[1] - 1, "argmax": int(ids[0].argmax())}[kind]


def _patch_embedding(visual: torch.nn.Module) -> torch.nn.Module | None:
    """Return the module that embeds every patch by itself, if the tower has one."""
    if hasattr(visual, "conv1"):  # open_clip's own
        return visual.conv1
    embedding = visual.trunk.patch_embed  # timm's
    return embedding if type(embedding) is PatchEmbed else None


def _grid(visual: torch.nn.Module, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the rows and columns of patches, and the height and width of a patch in pixels."""
    tower = visual if hasattr(visual, "conv1") else visual.trunk.patch_embed
    rows, cols = tower.grid_size
    if _patch_embedding(visual) is None:
        return (rows, cols), (size[1] // rows, size[0] // cols)
    return (rows, cols), tuple(tower.patch_size)

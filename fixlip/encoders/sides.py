"""The two sides of a pair, as games need them: masked images and captions, embedded."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn.functional import interpolate, normalize

from fixlip.checks import boolean_masks, integer, one_of
from fixlip.encoders.captions import CaptionReader
from fixlip.encoders.hooks import hooks
from fixlip.encoders.masking import fitting_rows, hidden_tokens, one_row_only
from fixlip.encoders.players import Players, blocks, patches, regions, tokens, words
from fixlip.encoders.towers import ImageTower, TextTower
from fixlip.encoders.view import View
from fixlip.images import open_image


class Model(Protocol):
    """What a side, and an explainer that looks into the model, need of the encoder."""

    model: torch.nn.Module
    tokenizer: Any
    name: str
    device: torch.device
    dtype: torch.dtype

    @property
    def half(self) -> bool: ...

    @property
    def info(self) -> dict[str, Any]: ...

    def precision(self) -> AbstractContextManager[None]: ...


class _Side:
    """What the image and the text side have in common: players, and their masked embeddings."""

    def __init__(self, encoder: Model, players: Players, hidden: tuple[int, int]) -> None:
        self.encoder: Model = encoder
        self.players: Players = players
        self._hidden = hidden  # tokens and width of the tower's hidden states

    @property
    def n(self) -> int:
        """The number of players."""
        return self.players.n

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the players."""
        return self.players.names

    @property
    def _info(self) -> dict:
        owner = self.players.owner.tolist()
        return {"model": self.encoder.info, "players": self.players.kind, "owner": owner}

    @property
    def batch_size(self) -> int:
        """Masks per forward pass, as many as suit the device."""
        return fitting_rows(self.encoder.device, *self._hidden)

    @torch.no_grad()
    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        """Embed the input once for every mask (m, n), bool, True = kept, in one forward pass.

        Returns (m, D), of length 1, on the encoder's device, at least in float32. Raises TypeError
        or ValueError if the masks have another type or shape, or an embedding is not finite.
        """
        masks = boolean_masks(masks, self.n)
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

    `Encoder.image` makes one.

    Attributes
    ----------
    encoder, tower, view : Encoder, ImageTower, View
        What made the side, the parts of its image tower, and how the model sees an image.
    picture, pixels : numpy.ndarray, (H, W, 3), uint8; torch.Tensor, (1, 3, H, W)
        The image as the model sees it; the same normalised, on the encoder's device.
    grid, patch : (rows, columns), (height, width)
        Of the patches, and of one patch in pixels of the picture.
    pooled : int or None
        The token whose output becomes the embedding; None where several are pooled.
    """

    @torch.inference_mode(False)  # whose tensors have no derivatives
    def __init__(
        self, encoder: Model, tower: ImageTower, view: View, image: object, players: object
    ) -> None:
        self.tower: ImageTower = tower
        self.view: View = view
        self._source = _source(image)
        image = open_image(image)
        self._size = image.size
        seen = view.picture(image)
        self.picture: np.ndarray = np.array(seen)
        self.pixels: torch.Tensor = view.pixels(seen)
        self.grid: tuple[int, int] = tower.grid
        rows, columns = self.grid
        self.patch: tuple[int, int] = tower.patch or (seen.height // rows, seen.width // columns)
        self.pooled: int | None = tower.pooled
        super().__init__(encoder, self._group(players), (math.prod(self.grid), tower.width))

    def _group(self, players: object) -> Players:
        if isinstance(players, str):
            if players == "patches":
                return patches(*self.grid)
            size = re.fullmatch(r"(\d+)x\1", players)
            if not size:
                raise ValueError(
                    f"image players {players!r} are unknown; expected 'patches', square blocks of "
                    "patches such as '2x2', or regions as boolean arrays of the image's height and "
                    "width"
                )
            return blocks(*self.grid, int(size[1]))
        if not isinstance(players, Mapping):
            if not isinstance(players, Iterable):
                raise TypeError(
                    f"image players of type {type(players).__name__} were given; expected "
                    "'patches', blocks such as '2x2', or regions by name or in a list"
                )
            players = [players] if getattr(players, "ndim", 3) == 2 else players  # one region
            players = {f"region {i}": region for i, region in enumerate(players, start=1)}
        whole = tuple(slice(n * size) for n, size in zip(self.grid, self.patch, strict=True))
        coverages = {}
        for name, region in players.items():
            coverage = self.view.coverage(region, self._size)
            coverages[name] = coverage[whole]  # pixels beyond the last whole patch play no part
        return regions(coverages, *self.grid)

    @cached_property
    def info(self) -> dict[str, Any]:
        """Everything that determines the side, JSON-able."""
        own = {"grid": list(self.grid), "source": self._source, "size": list(self._size)}
        return {"kind": "image", **self._info, **own}

    def _features(self, units: torch.Tensor) -> torch.Tensor:
        model, grid = self.encoder.model, self.grid
        keep = units.reshape(-1, 1, *grid)  # (m, patches) -> (m, 1, rows, cols)
        if self.tower.embedding is None:  # patches are not embedded one by one: mask the pixels
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

        with (
            self.encoder.precision(),
            hooks() as add,
            one_row_only(self.tower.blocks[-1], self.pooled),
        ):
            add(self.tower.embedding.register_forward_hook, remove_patches)
            return model.encode_image(self.pixels)  # (m, D)


class TextSide(_Side):
    """A caption; a removed token is hidden from attention, or another stands in its place.

    `Encoder.text` makes one.

    Attributes
    ----------
    encoder, tower : Encoder, TextTower
        What made the side, and the parts of its text tower.
    ids, span : torch.Tensor, (1, L), int64; slice
        All token ids, on the encoder's device, and the positions of the caption's own; start, end
        and padding tokens always stay.
    pieces : tuple of str
        The text of each of the caption's own tokens, with a leading space where a word starts, and
        surrogate escapes for bytes that are no whole character.
    pooled : int
        The position whose output becomes the embedding.
    stand_in : int or None
        The token in a removed one's place; None: removed tokens are hidden from attention.
    length : int
        How many of the L positions the embedding depends on: in a causal tower those up to the
        pooled one, else all.
    """

    @torch.inference_mode(False)  # whose tensors have no derivatives
    def __init__(
        self,
        encoder: Model,
        tower: TextTower,
        reader: CaptionReader,
        caption: str,
        players: str,
        stand_in: int | None = None,
    ) -> None:
        groupings = {"tokens": tokens, "words": words}
        group = groupings[one_of("text players", players, groupings)]
        if stand_in is not None and integer("stand_in", stand_in, at_least=0) >= reader.vocabulary:
            raise ValueError(
                f"stand_in is the id of a token, below {reader.vocabulary}, got {stand_in}"
            )
        self.tower: TextTower = tower
        self.stand_in: int | None = stand_in
        self._read = reader.read(caption)
        self._caption = str(caption)  # numpy has strings of its own
        self.ids: torch.Tensor = torch.tensor([self._read.ids], device=encoder.device)
        self.span: slice = slice(self._read.start, self._read.stop)
        self.pieces: tuple[str, ...] = self._read.pieces
        self.pooled: int = tower.pooled(self.ids)
        if self.span.start <= self.pooled < self.span.stop:
            raise ValueError(
                f"the model reads the caption's meaning at its token {self.pooled}, which is no "
                "end token; pass the tokenizer that the model was made with, and leave special "
                "tokens out of the caption"
            )
        if stand_in is not None and tower.pooled(self._replaced(True)) != self.pooled:
            raise ValueError(
                f"with the token {stand_in} as stand_in the model would read the meaning there, as "
                "if the caption ended; give another token"
            )
        self.length: int = self.ids.shape[1] if tower.causal is None else self.pooled + 1
        super().__init__(encoder, group(self.pieces), (self.length, tower.width))

    @cached_property
    def info(self) -> dict[str, Any]:
        """Everything that determines the side, JSON-able."""
        return {
            "kind": "text",
            **self._info,
            "caption": self._caption,
            "tokens": list(tokens(self.pieces).names),
            "token_ids": list(self._read.ids[self.span]),
            "cut": self._read.cut,
            **({} if self.stand_in is None else {"stand_in": self.stand_in}),
        }

    def _replaced(self, removed: torch.Tensor | bool) -> torch.Tensor:
        """Token ids (m, L), with the stand-in where ``removed``: (m, L), or the whole caption."""
        if removed is True:
            removed = torch.zeros_like(self.ids, dtype=torch.bool)
            removed[:, self.span] = True
        return torch.where(removed, self.stand_in, self.ids)

    def _features(self, units: torch.Tensor) -> torch.Tensor:
        hidden = units.new_zeros(len(units), self.ids.shape[1])  # (m, all positions)
        hidden[:, self.span] = ~units
        if self.stand_in is not None:
            return self.encoder.model.encode_text(self._replaced(hidden))  # (m, D)

        def put_back(module, args, output):
            """Show the one row, (m, 1, width), at the position where the model looks for it."""
            if output.shape[1] > 1:
                return output
            return output[:, -1:].expand(-1, self.pooled + 1, -1)

        with (
            hidden_tokens(self.tower, hidden[:, : self.length]),
            one_row_only(self.tower.blocks[-1], self.pooled),
            hooks() as add,
        ):
            add(self.tower.transformer.register_forward_hook, put_back)
            return self.encoder.model.encode_text(self.ids)  # (m, D)


EncoderSide = ImageSide | TextSide


def _source(image: object) -> str:
    """Return the name of the file that an image came from, or "array"."""
    path = image if isinstance(image, str | os.PathLike) else getattr(image, "filename", "")
    return Path(path).name or "array"

"""A frozen model of open_clip, which makes sides of images and captions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import timm
import torch

from fixlip.checks import one_of, warn
from fixlip.encoders.captions import CaptionReader
from fixlip.encoders.hooks import keep_states
from fixlip.encoders.masking import blocks_in, lay_rows_by_position
from fixlip.encoders.sides import ImageSide, TextSide
from fixlip.encoders.towers import image_tower, text_tower
from fixlip.encoders.view import View

if TYPE_CHECKING:
    from fixlip.images import Picture

LARGEST_SCALE = 1e6  # of a logit; trained ones are about 100


class Encoder:
    """A CLIP-like model of open_clip, frozen, whose inputs can be masked.

    `fixlip.load` makes one; the constructor wraps a model that is at hand already.

    Raises TypeError for another kind of model; ValueError if the towers are of a kind that cannot
    be masked, a part of them is compiled, or a weight is NaN or infinite.

    Parameters
    ----------
    model : open_clip.CLIP or open_clip.CustomTextCLIP
        From `open_clip.create_model`, with a vision transformer and open_clip's own text
        transformer. It is frozen, put in evaluation mode, and moved to the device and type. The
        wrappers of `torch.nn.DataParallel` and `torch.compile` are left out.
    tokenizer : callable
        From a list of one string to token ids of shape (1, L).
    name, pretrained : str
        What the model and its weights are called in results.
    device, dtype, gelu : torch.device or str, torch.dtype, str
        As in `fixlip.load`. Embeddings are returned in the type, but at least in float32.

    Attributes
    ----------
    model, tokenizer, name, pretrained, device, dtype, gelu
        As given, the model frozen and without a wrapper.
    stored : torch.dtype
        Of the model's weights: the type it computes in, but at least float32.
    logit_scale, logit_bias : float
        Of the model's logit: scale times cosine, plus bias.
    """

    @torch.inference_mode(False)  # whose tensors have no derivatives
    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Callable[..., Any],
        *,
        name: str,
        pretrained: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        gelu: str | None = None,
    ) -> None:
        model = _unwrapped(model)
        self.gelu: str | None = one_of("gelu", gelu, (None, "tanh"))
        if gelu:
            _approximate_gelu(model, name)
        self.stored: torch.dtype = torch.promote_types(dtype, torch.float32)
        _make_plain(model)
        model.eval().requires_grad_(False)
        self.model: torch.nn.Module = model.to(device=device, dtype=self.stored)
        _refuse_infinite(model, name)
        self.logit_scale: float = float(model.logit_scale.cpu().double().exp())
        self.logit_bias: float = float(model.logit_bias) if model.logit_bias is not None else 0.0
        if self.logit_scale > LARGEST_SCALE:
            warn(
                f"the logit_scale of {name!r} is a logarithm, and exp({float(model.logit_scale):g})"
                f" = {self.logit_scale:.0e} is no plausible scale; save the logarithm of the scale"
            )
        self.tokenizer: Callable[..., Any] = tokenizer
        self.name: str = name
        self.pretrained: str | None = pretrained
        self.device: torch.device = model.logit_scale.device
        self.dtype: torch.dtype = dtype
        # after the move to the device, which replaces the text tower's causal mask
        self._image_tower, self._text_tower = image_tower(model, name), text_tower(model, name)
        self._view = View.of(model.visual.preprocess_cfg, self.device, self.stored)
        limits = {"length": model.context_length, "vocabulary": model.vocab_size}
        self._reader = CaptionReader(tokenizer, **limits)
        if self.half:
            lay_rows_by_position(self.model.visual)

    @property
    def half(self) -> bool:
        """Whether the image tower computes in half precision, which is too coarse for gradients."""
        return self.dtype.itemsize < 4

    def precision(self) -> AbstractContextManager[None]:
        """Return a context for calls of ``model.encode_image``: inside, it computes in ``dtype``.

        ``model.encode_text`` needs none, because captions are always embedded in float32 or more.
        They take little of the time, and a short caption has few masks, too few for rounding errors
        to average out: with captions in half precision, interactions left their error bars
        (benchmarks/precision.py).
        """
        if not self.half:
            return nullcontext()
        return blocks_in(self._image_tower.blocks, self.device, self.dtype)

    def __repr__(self) -> str:
        weights = f", pretrained={self.pretrained!r}" if self.pretrained else ""
        return f"Encoder({self.name!r}{weights}, device='{self.device}', dtype={self.dtype})"

    @cached_property
    def info(self) -> dict[str, Any]:
        """What determines the embeddings, JSON-able; the fingerprint is a hash of the weights."""
        return {
            "name": self.name,
            "pretrained": self.pretrained,
            "fingerprint": _fingerprint(self.model),
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
            "dtype": str(self.dtype).removeprefix("torch."),
            "open_clip": open_clip.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            **({"gelu": self.gelu} if self.gelu else {}),
        }

    def image(
        self,
        image: Picture,
        *,
        players: str | Mapping[str, np.ndarray] | Sequence[np.ndarray] = "patches",
    ) -> ImageSide:
        """Return an image, as `fixlip.images.open_image` takes it, as a side of the game.

        Its players are "patches"; square blocks of patches such as "2x2"; or regions, as boolean
        arrays (H, W), one value per pixel of the original image, by name or in a sequence.
        """
        return ImageSide(self, self._image_tower, self._view, image, players)

    def text(
        self, caption: str, *, players: str = "tokens", stand_in: int | None = None
    ) -> TextSide:
        """Return a caption as a side of the game.

        Its players are single tokens, or "words" with all their tokens. A removed token is hidden
        from the attention of all others; or, given the id of a token as ``stand_in``, it is
        replaced by that one. The FIxLIP experiments judge GAME, Grad-ECLIP and exCLIP on OpenAI's
        CLIP with 289 in its place, which stands for no text that the tokenizer reads.

        For SigLIP and SigLIP 2 open_clip removes capitals and punctuation first; the papers'
        transformers 4.51 kept them for SigLIP 2, where a caption such as "A dog." has other
        players: to have those, give `fixlip.load` a tokenizer that keeps them.
        """
        return TextSide(self, self._text_tower, self._reader, caption, players, stand_in)

    @torch.no_grad()
    def logit(self, image: Picture, caption: str) -> float:
        """Return open_clip's own logit of the whole image and the whole caption, as a check."""
        pixels, ids = self.image(image).pixels, self.text(caption).ids
        with self.precision():
            image = self.model.encode_image(pixels, normalize=True)  # (1, D)
        text = self.model.encode_text(ids, normalize=True)  # (1, D)
        cosine = float((image.cpu().double() * text.cpu().double()).sum())
        return self.logit_scale * cosine + self.logit_bias


def _approximate_gelu(model: torch.nn.Module, name: str) -> None:
    """Compute every GELU by the tanh approximation."""
    found = [module for module in model.modules() if isinstance(module, torch.nn.GELU)]
    if not found:
        raise ValueError(f"{name!r} has another activation than GELU; leave gelu='tanh' out")
    for module in found:
        module.approximate = "tanh"


def _make_plain(model: torch.nn.Module) -> None:
    """Let every weight have derivatives, and every block keep what these need."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.is_inference():  # made in inference mode
                setattr(module, name, torch.nn.Parameter(weight.clone(), requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_inference():
                setattr(module, name, buffer.clone())
    keep_states(model)


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model itself; refuse other models, and compiled parts, which pass masks by."""
    while isinstance(model, torch.nn.Module):
        parts = dict(model.named_children())
        if list(parts) not in (["module"], ["_orig_mod"]):  # DataParallel's, and torch.compile's
            break
        (model,) = parts.values()
    if not isinstance(model, open_clip.CLIP | open_clip.CustomTextCLIP | open_clip.CoCa):
        kind = type(model)
        raise TypeError(
            f"expected a model from open_clip.create_model, got {kind.__module__}.{kind.__name__}; "
            "fixlip.load finds models by name"
        )
    for name, part in list(model.named_modules())[1:]:  # the model itself is not called
        if getattr(part, "_compiled_call_impl", None) is not None:
            # compiled code ignores hooks that are set later, without a word
            raise ValueError(
                f"the model's part {name!r} is compiled in place, which hides it from "
                "masks; give copy.deepcopy(model), which is not compiled"
            )
        if name.rpartition(".")[2] in ("_orig_mod", "module"):
            raise ValueError(
                f"the model's part {name.rpartition('.')[0]!r} is wrapped by torch.compile or "
                "DataParallel, which hides it from masks; put the part that was wrapped back"
            )
    return model


def _refuse_infinite(model: torch.nn.Module, name: str) -> None:
    """Raise if a weight is NaN or infinite, in the type that the model computes in."""
    weights = model.state_dict()
    for key in sorted(weights, key=lambda key: key != "logit_scale"):  # the likeliest first
        if not torch.isfinite(weights[key]).all():
            count = int((~torch.isfinite(weights[key])).sum())
            raise ValueError(
                f"{count} of {weights[key].numel()} values of {key!r} in {name!r} are NaN or "
                "infinite; give weights from before training failed"
            )


def _fingerprint(model: torch.nn.Module) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of all weights, with their names."""
    digest = hashlib.sha256()
    for name, weights in sorted(model.state_dict().items()):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}\n".encode())
        # as bytes, because numpy has no bfloat16; a 0-d tensor has no bytes view
        digest.update(weights.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]

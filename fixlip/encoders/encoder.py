"""open_clip's image and text towers as two sides that embed masked inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from fixlip.encoders.captions import CaptionReader
from fixlip.encoders.loading import find_model
from fixlip.encoders.masking import blocks_in, lay_rows_by_position
from fixlip.encoders.sides import ImageSide, TextSide, text_tower


def load(
    name: str,
    *,
    pretrained: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    tokenizer: Callable | str | Path | None = None,
) -> Encoder:
    """Load a model whose two inputs can be masked.

    Parameters
    ----------
    name : str
        "demo-clip", "demo-siglip" or "demo-siglip-fine", which come with fixlip; the name of an
        open_clip architecture; "local-dir:" and the path of a folder that open_clip saved; or
        "hf-hub:" and a repository.
    pretrained : str or pathlib.Path, optional
        For an architecture: a tag of open_clip, the path of a checkpoint file (.safetensors, or
        .pt, .pth, .bin without code), or "random", with the same random weights each time.
    device : torch.device or str, optional
        By default CUDA, else MPS, else the CPU.
    dtype : torch.dtype or str, optional
        The towers compute in it; by default float32. "bfloat16" is faster on GPUs and newer CPUs,
        "float16" on GPUs. Then matrix products and attention in the image tower's blocks are in
        half precision: weights are kept, and all else is done, in float32.
    tokenizer : callable, str or pathlib.Path, optional
        In place of the model's own: a function from a list of strings to padded token ids, or a
        folder with the files of a Hugging Face tokenizer.

    Raises
    ------
    ValueError
        If the name, the tag, the device or the type is unknown, the checkpoint is broken or
        belongs to another architecture, or the architecture cannot be masked.
    FileNotFoundError
        If a checkpoint, a model folder or a tokenizer folder does not exist.
    ConnectionError
        If something must be fetched and is out of reach.

    Examples
    --------
    >>> encoder = load("ViT-B-32", pretrained="openai")  # doctest: +SKIP
    """
    dtype = _dtype(dtype)
    device = _device(device)
    model, tokenizer, label, weights = find_model(name, pretrained, tokenizer)
    return Encoder(
        model,
        tokenizer,
        name=label,
        pretrained=weights,
        device=device,
        dtype=dtype,
    )


class Encoder:
    """A CLIP-like model of open_clip, frozen, whose inputs can be masked.

    `fixlip.load` makes one; the constructor wraps a model that is at hand already.

    Parameters
    ----------
    model : open_clip.CLIP or open_clip.CustomTextCLIP
        From `open_clip.create_model`, with a vision transformer and open_clip's own text
        transformer. It is frozen, put in evaluation mode, moved and cast.
    tokenizer : callable
        From a list of one string to token ids of shape (1, L).
    name : str
        What the model is called in results.
    pretrained : str, optional
        What its weights are called in results.
    device : torch.device or str
    dtype : torch.dtype
        The towers compute in it, as in `fixlip.load`. Embeddings are returned in it, but at least
        in float32.

    Raises
    ------
    ValueError
        If the towers are of a kind that cannot be masked.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Callable,
        *,
        name: str,
        pretrained: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        _refuse_unknown_towers(model, name)
        self.logit_scale = float(model.logit_scale.detach().double().exp())
        self.logit_bias = float(model.logit_bias.detach()) if model.logit_bias is not None else 0.0
        self.stored = torch.promote_types(dtype, torch.float32)  # the weights' type
        self.model = model.eval().requires_grad_(False).to(device=device, dtype=self.stored)
        self.tokenizer = tokenizer
        self.name = name
        self.pretrained = pretrained
        self.device = model.logit_scale.device
        self.dtype = dtype
        if self.half:
            lay_rows_by_position(self.model.visual)
        self._reader = CaptionReader(
            tokenizer, length=model.context_length, vocabulary=model.vocab_size
        )
        config = PreprocessCfg(**model.visual.preprocess_cfg)
        steps = image_transform_v2(config, is_train=False).transforms
        # the last three steps make the mode RGB, make a tensor and normalise it
        self._geometry, self._normalise = steps[:-3], steps[-2:]
        self._crops = config.resize_mode == "shortest"

    @property
    def half(self) -> bool:
        """Whether the image tower computes in half precision, too coarse for gradients."""
        return self.dtype.itemsize < 4

    def precision(self) -> AbstractContextManager:
        """The context in which the image tower, called directly, computes in this encoder's dtype.

        Captions need none: they are done in float32 at least. They take little of the time, and a
        short one is seen in few masks, too few for rounding to average out: it was what moved
        interactions beyond their error bars (benchmarks/precision.py).
        """
        return blocks_in(self.model.visual, self.dtype) if self.half else nullcontext()

    def __repr__(self) -> str:
        weights = f", pretrained={self.pretrained!r}" if self.pretrained else ""
        return f"Encoder({self.name!r}{weights}, device='{self.device}', dtype={self.dtype})"

    @cached_property
    def info(self) -> dict:
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
        }

    def image(
        self,
        image: Image.Image | np.ndarray | str | Path,
        *,
        players: str | Mapping[str, np.ndarray] | Sequence[np.ndarray] = "patches",
    ) -> ImageSide:
        """Return an image as a side of the game.

        Parameters
        ----------
        image : PIL.Image.Image, numpy.ndarray, str or pathlib.Path
            See `fixlip.images.open_image`.
        players : str, mapping or sequence
            "patches"; square blocks of patches such as "2x2"; or regions, as boolean masks of
            shape (H, W) over the original image, by name or in a sequence.
        """
        return ImageSide(self, image, players)

    def text(self, caption: str, *, players: str = "tokens") -> TextSide:
        """Return a caption as a side of the game.

        Parameters
        ----------
        caption : str
        players : {"tokens", "words"}
            Single tokens, or words with all their tokens.
        """
        return TextSide(self, caption, players)

    @torch.no_grad()
    def logit(self, image: Image.Image | np.ndarray | str | Path, caption: str) -> float:
        """Return open_clip's own logit of the whole image and the whole caption, as a check."""
        pixels, ids = self.image(image).pixels, self.text(caption).ids
        with self.precision():
            image_embedding = self.model.encode_image(pixels, normalize=True).double()  # (1, D)
        text_embedding = self.model.encode_text(ids, normalize=True).double()  # (1, D)
        cosine = float((image_embedding * text_embedding).sum())
        return self.logit_scale * cosine + self.logit_bias


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the device {str(device)!r} cannot be used here: {reason}; leave device out to use "
            "the best there is"
        ) from None
    return torch.device(device)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    known["float64"] = torch.float64
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in known:
        raise ValueError(f"dtype {name!r} is unknown; expected one of {', '.join(known)}")
    return known[name]


def _refuse_unknown_towers(model: torch.nn.Module, name: str) -> None:
    """Raise unless both towers are of a kind whose masked inputs are well defined."""
    visual, text = model.visual, text_tower(model)
    if isinstance(visual, TimmModel):
        plain = isinstance(visual.trunk, timm.models.VisionTransformer | timm.models.Eva)
    else:
        plain = isinstance(visual, open_clip.transformer.VisionTransformer)
    if not plain or getattr(visual, "output_tokens", False):
        raise ValueError(
            f"the image tower of {name!r} is no plain vision transformer, and only these have "
            "patches to remove; choose a ViT, SigLIP or EVA model"
        )
    own = text is model or isinstance(text, open_clip.transformer.TextTransformer)
    if (
        not own
        or getattr(text, "cls_emb", None) is not None
        or getattr(text, "output_tokens", False)
    ):
        raise ValueError(
            f"the text tower of {name!r} is not open_clip's plain text transformer (CoCa and "
            "Hugging Face text encoders are not supported); choose a CLIP or SigLIP model"
        )


def _fingerprint(model: torch.nn.Module) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of all weights, with their names."""
    digest = hashlib.sha256()
    for name, weights in sorted(model.state_dict().items()):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}\n".encode())
        # as bytes, because numpy has no bfloat16; a 0-d tensor has no bytes view
        digest.update(weights.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]

"""Loading a model: its weights and tokenizer found, or refused in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

from fixlip.checks import warn
from fixlip.encoders.architectures import build
from fixlip.encoders.checkpoint import PART, first_line, read_tensors
from fixlip.encoders.demo_towers import register_towers
from fixlip.encoders.device import choose_device, choose_type
from fixlip.encoders.encoder import Encoder
from fixlip.encoders.hub import from_hub
from fixlip.encoders.names import DOWNLOAD, FOLDER, HUB, describe, known_names
from fixlip.encoders.towers import refuse_family
from fixlip.encoders.weights import put_weights

RANDOM = "random"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
PREFERRED = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")  # in a folder


def load(
    name: str | Path,
    *,
    pretrained: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    tokenizer: Callable | str | Path | None = None,
    gelu: str | None = None,
) -> Encoder:
    """Load a model whose two inputs can be masked.

    Raises ValueError for an unknown name, tag, device or type, a checkpoint that is broken, of
    another architecture or size, or that holds NaN, and an architecture that cannot be masked;
    FileNotFoundError where a checkpoint or folder does not exist; ConnectionError where something
    to be fetched is out of reach. Warns where the GPU is not one that torch is built for, and where
    the checkpoint does not say all that matters.

    Parameters
    ----------
    name : str or pathlib.Path
        "demo-clip", "demo-siglip" or "demo-siglip-fine", which come with fixlip; the name of an
        open_clip architecture; the path of a folder that open_clip saved, with or without
        "local-dir:" before it; or "hf-hub:" and a repository.
    pretrained : str or pathlib.Path, optional
        For an architecture: a tag of open_clip, the path of a checkpoint file (safetensors, or
        of torch, whose code is never run; of several files, their index), or "random", with the
        same random weights each time. In a training checkpoint the model's weights are found by
        their names.
    device : torch.device or str, optional
        By default CUDA if the installed torch is built for the GPU, else MPS, else the CPU.
    dtype : torch.dtype or str, optional
        The towers compute in it; by default float32. "bfloat16" is faster on GPUs and newer CPUs,
        "float16" on GPUs. Then matrix products and attention in the image tower's blocks are in
        half precision: weights are kept, and all else is done, in float32.
    tokenizer : callable, str or pathlib.Path, optional
        In place of the model's own: a function from a list of strings to padded token ids, or a
        folder with the files of a Hugging Face tokenizer.
    gelu : "tanh", optional
        All GELUs of the towers by the tanh approximation, with which transformers (and so the
        papers' experiments) computes SigLIP; by default as open_clip has them, some of them exact
        (docs/models.md).

    Examples
    --------
    >>> encoder = load("ViT-B-32", pretrained="openai")  # doctest: +SKIP
    """
    dtype, device = choose_type(dtype), choose_device(device)
    model, tokenizer, label, weights = _find_model(name, pretrained, tokenizer)
    names = {"name": label, "pretrained": weights}
    return Encoder(model, tokenizer, **names, device=device, dtype=dtype, gelu=gelu)


def _find_model(
    name: str | Path, pretrained: str | Path | None, tokenizer: Callable | str | Path | None
) -> tuple[torch.nn.Module, Callable, str, str | None]:
    """Return a model on the CPU, its tokenizer, and the names of it and its weights."""
    register_towers()
    name, label = known_names(name)
    described = describe(name)
    config, prepared = described["model_cfg"], described.get("preprocess_cfg") or {}
    refuse_family(config, label)
    source = _source(name, label, pretrained)
    tensors = read_tensors(source) if isinstance(source, Path) else None  # before what is fetched
    tokenizer = find_tokenizer(name, config, tokenizer)
    own_weights = name.startswith((FOLDER, HUB))
    if not own_weights:
        how = preparation_of(name, str(source))
        prepared = how.preprocess
        if how.quick_gelu is not None:
            config["quick_gelu"] = how.quick_gelu
    if tensors is None and source != RANDOM:
        tensors = read_tensors(Path(_fetch(name, source)))
    try:
        model = build(config, prepared)
    except Exception as error:
        reason = first_line(error)
        raise ValueError(f"the configuration of {label!r} makes no model: {reason}") from None
    if tensors is not None:
        put_weights(model, tensors, label, f"the weights {str(source)!r}")
    return model, tokenizer, label, None if own_weights else Path(source).name


def _source(name: str, label: str, pretrained: str | Path | None) -> Path | str:
    """Return where weights are: in a file, in a repository of the Hub, under a tag, or "random"."""
    if name.startswith((FOLDER, HUB)):
        if pretrained is not None:
            raise ValueError(
                f"{label!r} brings its own weights; leave pretrained={pretrained!r} out"
            )
        return name if name.startswith(HUB) else _checkpoint_in(name.removeprefix(FOLDER))
    tags = open_clip.list_pretrained_tags_by_model(name)
    offers = f"one of the tags {', '.join(map(repr, tags))}, " if tags else ""
    offers += "the path of a checkpoint file, or 'random' for random weights"
    if pretrained is None:
        raise ValueError(f"which weights of {name!r}? Give pretrained= {offers}")
    text = str(pretrained)
    if text == RANDOM or open_clip.pretrained.is_pretrained_cfg(name, text):
        return text
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        raise ValueError(
            f"{text!r} is a folder; give the checkpoint file in it, or load '{FOLDER}{text}' if "
            f"open_clip saved it"
        )
    if "://" in text:
        raise ValueError(f"{text!r} is not fetched; download it, and give the path of the file")
    if not path.is_file():
        if path.suffix in SUFFIXES or len(path.parts) > 1:
            raise FileNotFoundError(f"there is no checkpoint file at {text!r}; check the path")
        raise ValueError(f"{name!r} has no weights called {text!r}; expected {offers}")
    return path


def _checkpoint_in(folder: str) -> Path:
    """Return the file of weights in a folder that open_clip saved."""
    suffixes = (*SUFFIXES, *(f"{suffix}.index.json" for suffix in SUFFIXES))
    files = [path for suffix in suffixes for path in sorted(Path(folder).glob(f"[!.]*{suffix}"))]
    parts = [path for path in files if PART.search(path.name)]
    files = [path for path in files if path not in parts]  # their index stands for them
    if parts and not files:
        raise ValueError(
            f"the folder {folder!r} holds parts of a checkpoint ({parts[0].name!r}) without their "
            "index, a file such as 'model.safetensors.index.json'; put it there"
        )
    if not files:
        raise ValueError(
            f"the folder {folder!r} holds no weights: expected a file such as "
            f"{PREFERRED[0]}{SUFFIXES[0]}"
        )
    for name in PREFERRED:
        for path in files:
            if path.name in (f"{name}{suffix}" for suffix in suffixes):
                return path
    if len(files) > 1:
        listed = ", ".join(repr(path.name) for path in files[:4])
        raise ValueError(
            f"the folder {folder!r} holds several checkpoints ({listed}); rename the one that "
            f"is meant to {PREFERRED[0]}{files[0].suffix}"
        )
    return files[0]


@dataclass(frozen=True)
class Preparation:
    """The activation and the image preprocessing that weights were trained with."""

    quick_gelu: bool | None  # whether the activation is QuickGELU; None: as the architecture says
    preprocess: dict  # mean, standard deviation and resizing; empty: open_clip's defaults


def preparation_of(name: str, weights: str) -> Preparation:
    """Look weights up in open_clip's table, or the architecture's tags where they are not in it.

    A tag's own activation is used whatever name was typed: open_clip would build 'ViT-B-32' with
    GELU for OpenAI's weights, which were trained with QuickGELU, and only warn. For a file or
    random weights the table says how the architecture's images are prepared (SigLIP: mean and
    standard deviation 0.5, squashed), which open_clip would take for CLIP's.
    """
    keys = ("mean", "std", "interpolation", "resize_mode")
    tag = open_clip.get_pretrained_cfg(name, weights)
    if tag:
        return Preparation(bool(tag.get("quick_gelu")), {key: tag[key] for key in keys})
    tags = open_clip.list_pretrained_tags_by_model(name)
    prepared = [{key: open_clip.get_pretrained_cfg(name, tag)[key] for key in keys} for tag in tags]
    if not prepared:
        return Preparation(None, {})
    quick = [tag for tag in tags if open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")]
    if weights != RANDOM and quick and _quick(name) != name:
        warn(
            f"a checkpoint file does not say its activation, and {name!r} uses GELU; if these are "
            f"weights such as {', '.join(quick)}, load {_quick(name)!r} instead"
        )
    if any(other != prepared[0] for other in prepared):
        warn(
            f"the known weights of {name!r} prepare images in different ways; those of "
            f"{tags[0]!r} are assumed for {Path(weights).name!r}"
        )
    return Preparation(None, prepared[0])


def _quick(name: str) -> str:
    """Return the name of an architecture with QuickGELU."""
    other = name.removesuffix("-quickgelu") + "-quickgelu"
    return other if other in open_clip.list_models() else name


def _fetch(name: str, source: str) -> str:
    """Return the path of a tag's or a repository's weights, fetched where they are not cached."""
    if name.startswith(HUB):
        with from_hub(f"the weights of {name!r}", DOWNLOAD):
            return download_pretrained_from_hf(name.removeprefix(HUB))
    tag = open_clip.get_pretrained_cfg(name, source)
    as_name = _quick(name) if tag.get("quick_gelu") else name
    with from_hub(
        f"the weights {source!r} of {name!r}",
        f"download them elsewhere, and load {as_name!r} with pretrained= the path of the file",
    ):
        return download_pretrained(tag)


def find_tokenizer(name: str, config: dict, tokenizer: Callable | str | Path | None) -> Callable:
    """Return a given tokenizer as in `load`, one from a folder, or the model's own."""
    if callable(tokenizer):
        return tokenizer
    text = config["text_cfg"]
    if tokenizer is not None:
        folder = Path(os.path.expanduser(tokenizer))
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no tokenizer folder at {str(tokenizer)!r}; give tokenizer= a folder "
                "with the files of a Hugging Face tokenizer, or a function"
            )
        try:
            return open_clip.tokenizer.HFTokenizer(
                str(folder),
                context_length=text.get("context_length", 77),
                tokenizer_mode=text.get("tokenizer_mode"),
                **text.get("tokenizer_kwargs", {}),
            )
        except Exception as error:
            reason = first_line(error)
            raise ValueError(
                f"the folder {str(tokenizer)!r} holds no tokenizer that can be read: {reason}"
            ) from None
    advice = (
        "give tokenizer= the path of a folder with the tokenizer's files, or a function from a "
        "list of strings to token ids"
    )
    comes_with_open_clip = not name.startswith(HUB) and not text.get("hf_tokenizer_name")
    if name.startswith(FOLDER) or comes_with_open_clip:
        try:
            return open_clip.get_tokenizer(name)
        except Exception as error:
            raise ValueError(f"{name!r} has no tokenizer: {first_line(error)}; {advice}") from None
    with from_hub(f"the tokenizer of {name!r}", advice):
        return open_clip.get_tokenizer(name)

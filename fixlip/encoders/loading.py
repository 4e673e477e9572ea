"""Loading a model: its name, weights and tokenizer found, or refused in one line."""

from __future__ import annotations

import contextlib
import difflib
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import open_clip
import safetensors
import torch
from huggingface_hub import constants as hub
from open_clip.factory import get_model_config
from open_clip.pretrained import download_pretrained

from fixlip.checks import one_of, warn
from fixlip.encoders.demo_towers import register_towers
from fixlip.encoders.encoder import Encoder
from fixlip.encoders.towers import refuse_family

DEMOS = ("demo-clip", "demo-siglip", "demo-siglip-fine")
FOLDER, HUB = "local-dir:", "hf-hub:"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
DOWNLOAD = "download the repository, and load 'local-dir:' and the folder's path"


def load(
    name: str,
    *,
    pretrained: str | Path | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    tokenizer: Callable | str | Path | None = None,
) -> Encoder:
    """Load a model whose two inputs can be masked.

    Raises ValueError for an unknown name, tag, device or type, a checkpoint that is broken or of
    another architecture, and an architecture that cannot be masked; FileNotFoundError where a
    checkpoint or folder does not exist; ConnectionError where something to be fetched is out of
    reach.

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

    Examples
    --------
    >>> encoder = load("ViT-B-32", pretrained="openai")  # doctest: +SKIP
    """
    dtype, device = _dtype(dtype), _device(device)
    model, tokenizer, label, weights = _find_model(name, pretrained, tokenizer)
    return Encoder(model, tokenizer, name=label, pretrained=weights, device=device, dtype=dtype)


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
    return known[one_of("dtype", name, known)]


def _find_model(
    name: str, pretrained: str | Path | None, tokenizer: Callable | str | Path | None
) -> tuple[torch.nn.Module, Callable, str, str | None]:
    """Return a model on the CPU in float32, its tokenizer, and the names of it and its weights."""
    register_towers()
    label = name
    if name in DEMOS:
        folder = Path(__file__).parents[1] / "demo" / "models" / name
        if not folder.is_dir():
            raise FileNotFoundError(f"the model {name!r} is not part of this copy of fixlip")
        name = f"{FOLDER}{folder}"
    elif name.startswith(FOLDER):
        # the folder's own name only, so that results do not depend on where it lies
        label = f"{FOLDER}{Path(name.removeprefix(FOLDER)).name}"
    elif not name.startswith(HUB):
        name = label = name.replace("/", "-")  # OpenAI's "ViT-B/32"
    config = _config(name)
    refuse_family(config, label)
    own_weights = name.startswith((FOLDER, HUB))
    if own_weights and pretrained is not None:
        raise ValueError(f"{label!r} brings its own weights; leave pretrained={pretrained!r} out")
    weights = None if own_weights else _weights(name, pretrained)
    tokenizer = find_tokenizer(name, config, tokenizer)
    return _model(name, weights), tokenizer, label, weights and Path(weights).name


def _config(name: str) -> dict:
    """Return the configuration of an architecture."""
    if name.startswith(FOLDER):
        path = Path(name.removeprefix(FOLDER)) / "open_clip_config.json"
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}; give a folder that open_clip saved")
        try:
            return json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no open_clip configuration: {error!r}") from None
    if name.startswith(HUB):
        with _from_hub(f"the configuration of {name!r}", DOWNLOAD):
            return get_model_config(name)
    known = open_clip.list_models()
    if name not in known:
        close = difflib.get_close_matches(name, [*DEMOS, *known], n=4, cutoff=0.5)
        raise ValueError(
            f"no model is called {name!r}; did you mean {' or '.join(map(repr, close))}?"
            if close
            else f"no model is called {name!r}; expected one of {', '.join(map(repr, DEMOS))}, a "
            "name from open_clip.list_models(), 'local-dir:<folder>' or 'hf-hub:<repository>'"
        )
    return get_model_config(name)


def _weights(name: str, pretrained: str | Path | None) -> str:
    """Return a known tag, the path of a readable checkpoint file, or "random"."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    offers = f"one of the tags {', '.join(map(repr, tags))}, " if tags else ""
    offers += "the path of a checkpoint file, or 'random' for random weights"
    if pretrained is None:
        raise ValueError(f"which weights of {name!r}? Give pretrained= {offers}")
    text = str(pretrained)
    if text == "random" or open_clip.pretrained.is_pretrained_cfg(name, text):
        return text
    path = Path(text).expanduser()
    if not (path.is_file() or path.suffix in SUFFIXES or len(path.parts) > 1):
        raise ValueError(f"{name!r} has no weights called {text!r}; expected {offers}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint file at {text!r}; check the path")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"the checkpoint {text!r} must end in {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt"):
                pass
        else:  # pickled code is never run
            torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise ValueError(f"the checkpoint {text!r} cannot be read: {_line(error)}") from None
    return str(path)


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
    if weights != "random" and quick and _quick(name) != name:
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


def _model(name: str, weights: str | None) -> torch.nn.Module:
    """Build a model and read its weights."""
    if weights is None:
        if name.startswith(FOLDER):
            return _create(name, require_pretrained=True)
        with _from_hub(f"{name!r}", DOWNLOAD):
            return _create(name, require_pretrained=True)
    how = preparation_of(name, weights)
    options: dict = {"force_preprocess_cfg": how.preprocess}
    if how.quick_gelu is not None:
        options["quick_gelu"] = how.quick_gelu
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return open_clip.create_model(name, **options)
    tag = open_clip.get_pretrained_cfg(name, weights)
    if tag:
        as_name = _quick(name) if how.quick_gelu else name
        with _from_hub(
            f"the weights {weights!r} of {name!r}",
            f"download them elsewhere, and load {as_name!r} with pretrained= the path of the file",
        ):
            weights = download_pretrained(tag)
    return _create(name, pretrained=weights, **options)


def _create(name: str, **options: object) -> torch.nn.Module:
    try:
        return open_clip.create_model(name, **options)
    except Exception as error:
        where = options.get("pretrained", name)
        text = str(error)
        if any(hint in text for hint in ("size mismatch", "Missing key", "Unexpected key")):
            first = text.splitlines()[1].strip()[:120] if "\n" in text else text[:120]
            reason = f"its weights are those of another architecture ({first} ...)"
        else:
            reason = _line(error)
        raise ValueError(f"the weights {where!r} do not load into {name!r}: {reason}") from None


def find_tokenizer(name: str, config: dict, tokenizer: Callable | str | Path | None) -> Callable:
    """Return a given tokenizer as in `load`, one from a folder, or the model's own."""
    if callable(tokenizer):
        return tokenizer
    text = config["text_cfg"]
    if tokenizer is not None:
        folder = Path(tokenizer).expanduser()
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
            raise ValueError(
                f"the folder {str(tokenizer)!r} holds no tokenizer that can be read: {_line(error)}"
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
            raise ValueError(f"{name!r} has no tokenizer: {_line(error)}; {advice}") from None
    with _from_hub(f"the tokenizer of {name!r}", advice):
        return open_clip.get_tokenizer(name)


@contextlib.contextmanager
def _from_hub(what: str, advice: str) -> Iterator[None]:
    """Fetch from the Hugging Face Hub, or from its cache at once where the Hub is out of reach.

    The Hub's own client repeats every request with growing pauses, minutes in all, before it gives
    up, and then says little; what is cached is found without it. While the block runs, the client's
    global switch HF_HUB_OFFLINE is set to whether the Hub is out of reach.
    """
    before, offline = hub.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE or not _reachable(hub.ENDPOINT)
    hub.HF_HUB_OFFLINE = offline
    try:
        yield
    except Exception as error:
        if type(error) is ValueError:  # ours: what was fetched is of another architecture
            raise
        reason = "the Hugging Face Hub cannot be reached" if offline else _line(error)
        raise ConnectionError(f"{what} could not be fetched: {reason}; {advice}") from None
    finally:
        hub.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=3):
            return True
    except urllib.error.HTTPError:  # an answer, of whatever kind
        return True
    except (OSError, ValueError):
        return False


def _line(error: Exception) -> str:
    """Return the first line of an error's message, not too long."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]

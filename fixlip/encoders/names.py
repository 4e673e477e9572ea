"""What the name of a model stands for, and its configuration; or what was meant, in one line."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path

import open_clip
from open_clip.pretrained import download_pretrained_from_hf

from fixlip.encoders.checkpoint import first_line
from fixlip.encoders.hub import from_hub

DEMOS = ("demo-clip", "demo-siglip", "demo-siglip-fine")
FOLDER, HUB, CONFIG = "local-dir:", "hf-hub:", "open_clip_config.json"
REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?(@\S+)?")  # some of the oldest have no owner
DOWNLOAD = "download the repository, and load 'local-dir:' and the folder's path"


def known_names(name: str | Path) -> tuple[str, str]:
    """Return a model's name as open_clip knows it, and what it is called in results.

    Raises TypeError for what is neither text nor a path; FileNotFoundError for a folder that does
    not exist; ValueError for a name that no model has.
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"expected the name of a model, or the path of a folder, got {name!r}")
    text = os.fspath(name)
    if text in DEMOS:
        folder = Path(__file__).parents[1] / "demo" / "models" / text
        if not folder.is_dir():
            raise FileNotFoundError(f"the model {text!r} is not part of this copy of fixlip")
        return f"{FOLDER}{folder}", text
    if text.startswith(HUB):
        if not REPOSITORY.fullmatch(text.removeprefix(HUB)):
            raise ValueError(
                f"{text!r} names no repository; give '{HUB}', its owner and its name, as in "
                f"'{HUB}timm/ViT-B-16-SigLIP'"
            )
        return text, text
    if text.strip() == FOLDER:
        raise ValueError(f"{text!r} names no folder; give its path after '{FOLDER}'")
    known = text.replace("/", "-")  # OpenAI's "ViT-B/32"
    if known in open_clip.list_models():
        return known, known
    folder = Path(os.path.expanduser(text.removeprefix(FOLDER)))
    if text.startswith(FOLDER) or (text and folder.is_dir()):
        # the folder's own name only, so that results do not depend on where it lies
        return f"{FOLDER}{folder}", f"{FOLDER}{Path(os.path.abspath(folder)).name}"
    raise _unknown(text)


def _unknown(name: str) -> Exception:
    """Return the error for a name that is none: a file, an absent folder, or a misspelt name."""
    if os.path.isfile(os.path.expanduser(name)):
        return ValueError(
            f"{name!r} is a file; give the name of its architecture, and the file as pretrained="
        )
    if name.startswith(("/", "~", ".")) or name.count("/") > 1:
        hint = f"folder at {name!r}; check the path"
        if "://" in name:
            hint = f"folder at {name!r}, and addresses are not fetched; {DOWNLOAD}"
        return FileNotFoundError(f"there is no {hint}")
    known = {known.lower(): known for known in (*DEMOS, *open_clip.list_models())}
    repository = "/" in name.strip("/")
    close = difflib.get_close_matches(
        name.lower().replace("/", "-"), known, n=4, cutoff=0.8 if repository else 0.5
    )
    offers = " or ".join(repr(known[lower]) for lower in close)
    if repository:
        offers += f"{', or ' if close else ''}the repository '{HUB}{name}' of the Hugging Face Hub"
    return ValueError(
        f"no model is called {name!r}; did you mean {offers}?"
        if offers
        else f"no model is called {name!r}; expected one of {', '.join(map(repr, DEMOS))}, a "
        "name from open_clip.list_models(), 'local-dir:<folder>' or 'hf-hub:<repository>'"
    )


def describe(name: str) -> dict:
    """Return what a configuration file holds: "model_cfg" and, beside it, "preprocess_cfg".

    Raises FileNotFoundError where there is none; ValueError where it lacks what a model needs.
    """
    if name.startswith(FOLDER):
        path = Path(name.removeprefix(FOLDER)) / CONFIG
        if not path.is_file():
            hint = "give a folder that open_clip saved"
            if not path.parent.is_dir():
                hint = "the folder does not exist"
            elif (path.parent / "config.json").is_file():
                hint = "the folder's model is in the format of transformers: " + hint
            raise FileNotFoundError(f"there is no {path}; {hint}")
    elif name.startswith(HUB):
        with from_hub(f"the configuration of {name!r}", DOWNLOAD):
            path = Path(download_pretrained_from_hf(name.removeprefix(HUB), filename=CONFIG))
    else:
        return {"model_cfg": open_clip.get_model_config(name)}
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        reason = _lack(described)
    except ValueError as error:
        reason = first_line(error)
    if reason:
        raise ValueError(f"{path} is no open_clip configuration: {reason}")
    return described


def _lack(described: object) -> str | None:
    """Return what is missing in the content of a configuration file."""
    for keys in (("model_cfg",), ("model_cfg", "vision_cfg"), ("model_cfg", "text_cfg")):
        part = described
        for key in keys:
            part = part.get(key) if isinstance(part, dict) else None
        if not isinstance(part, dict):
            return f"it has no {'.'.join(keys)!r} with settings"
    return None if "embed_dim" in described["model_cfg"] else "it has no 'model_cfg.embed_dim'"

"""open_clip's architectures: models built from their configurations, and those that weights fit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict


def build(config: Mapping[str, Any], preprocess: Mapping[str, Any]) -> torch.nn.Module:
    """Return a model with the same random weights each time, on the CPU in float32.

    ``config`` is one of open_clip's configurations, ``preprocess`` what is known of how images are
    prepared: mean, standard deviation, and resizing. torch's global generator is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _build(config)
    prepared = asdict(PreprocessCfg())
    prepared |= merge_preprocess_dict(prepared, preprocess) | {"size": model.visual.image_size}
    set_model_preprocess_cfg(model, prepared)
    return model


def _build(config: Mapping) -> torch.nn.Module:
    config = copy.deepcopy(dict(config))
    config["vision_cfg"]["timm_model_pretrained"] = False  # fetches nothing
    custom = config.pop("custom_text", False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)


def without_text(name: str) -> str:
    """Return a weight's name as `open_clip.CLIP` has it: `CustomTextCLIP` puts "text." before."""
    return name.removeprefix("text.")


def architectures_of(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the names of the architectures that have weights of these names and shapes.

    Names are as from `without_text`. Models with the same text tower are built without memory and
    compared, which takes seconds.
    """
    found = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if "multimodal_cfg" in config or not _may_fit(config, shapes):
            continue
        with torch.device("meta"):
            own = _build(config).state_dict()
        if {without_text(key): tuple(own[key].shape) for key in own if not _scalar(key)} == {
            key: shape for key, shape in shapes.items() if not _scalar(key)
        }:
            found.append(name)
    return found


def _scalar(name: str) -> bool:
    return name in ("logit_scale", "logit_bias")


def _may_fit(config: Mapping, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a configuration's sizes, as far as it states them, are those of the weights."""
    if config["text_cfg"].get("hf_model_name"):
        return False
    fields = CLIPTextCfg.__dataclass_fields__, CLIPVisionCfg.__dataclass_fields__
    text, vision = (
        {key: given.get(key, known[key].default) for key in known}
        for given, known in zip((config["text_cfg"], config["vision_cfg"]), fields, strict=True)
    )
    wanted = {
        "positional_embedding": (text["context_length"], text["width"]),
        "token_embedding.weight": (text["vocab_size"], text["width"]),
    }
    if not vision["timm_model_name"]:
        patch = vision["patch_size"]
        wanted["visual.conv1.weight"] = (vision["width"], 3, patch, patch)
    return all(shapes.get(key) == shape for key, shape in wanted.items())

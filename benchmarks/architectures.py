"""Every architecture that open_clip lists, and the demo models: masked as defined, or refused.

    python benchmarks/architectures.py [NAME ...]

open_clip's have random weights, two narrow blocks per tower, and few words where the tokenizer lies
on the Hub; size of image and patch, pooling, kind of block and length of text are the real ones.
Masked embeddings are compared with the raw towers on images whose removed patches are zero and on
captions without the removed tokens, in float64, where only rounding may differ. Without names: all
of them, and results/architectures.json with a row per family and, under "architectures" and
"demos", one for each.
"""

import argparse
import contextlib
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import open_clip
import timm
import torch
from machine import RESULTS, describe
from timm.models.vitamin import VitCfg, VitConvCfg
from torch.nn.functional import normalize

import fixlip
from fixlip.encoders.names import DEMOS
from fixlip.encoders.sides import ImageSide, TextSide

CAPTION = "a black dog next to a yellow hydrant"
BLOCKS, WIDTH, HEADS, VOCABULARY = 2, 128, 2, 1000
DEMO = "demo models"
FAMILIES = {  # by the first pattern that a name begins with
    "Hugging Face text encoders": r"nllb|mt5|(xlm-|coca_)?roberta",
    "CoCa": r"coca_",
    "ResNet": r"RN",
    "ConvNeXt": r"convnext",
    "Swin": r"swin",
    "MobileCLIP, FastViT": r"MobileCLIP2?-S",
    "MobileCLIP, ViT": r"MobileCLIP",
    "relative positions": r"vit_relpos",
    "mean pooling": r"vit_medium",
    "EVA": r"EVA",
    "Perception Encoder": r"PE-Core",
    "ViTamin": r"ViTamin",
    "SigLIP 2": r"ViT-.*-SigLIP2",
    "SigLIP": r"ViT-.*-SigLIP",
    "CLIPA": r"ViT-.*-CLIPA",
    "MetaCLIP 2": r"ViT-.*-worldwide",
    "CLIP": r"ViT-",
    DEMO: r"demo-",
}
FRAMES = {  # tokens before and after the caption's own, and padding, of tokenizers on the Hub
    "bert-base": ((101,), (0,), 0),  # open_clip puts 0 in the place of the separator
    "xlm-v": ((0,), (2,), 1),
    "mt5": ((), (1,), 0),
    "SigLIP2": ((), (1,), 0),
    "SigLIP": ((), (1,), 1),
}


def tokenizer(config: dict) -> Callable | None:
    """A tokenizer with the frame of the real one and an id for every word; None: the real one."""
    text = config["text_cfg"]
    if "hf_tokenizer_name" not in text or "hf_model_name" in text:
        return None
    kind = next(kind for kind in FRAMES if kind in text["hf_tokenizer_name"])
    (start, end, pad), length = FRAMES[kind], text["context_length"]

    def tokenize(texts: list[str]) -> torch.Tensor:
        rows = [(*start, *(200 + sum(map(ord, w)) % 700 for w in t.split()), *end) for t in texts]
        return torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])

    return tokenize


def build(tower: str, **options: object) -> torch.nn.Module:
    """timm's image tower with few blocks, and narrow where its patches allow that."""
    narrow = {"embed_dim": WIDTH, "num_heads": HEADS, "depth": BLOCKS}
    if "_mci_" in tower:  # the convolutions before it have a width of their own
        narrow = {"depth": BLOCKS}
    if tower.startswith("vitamin"):
        convolutions = VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6)
        sizes = {"embed_dim": (WIDTH // 4, WIDTH // 2, WIDTH), "depths": (1, 1, 1)}
        narrow["embed_cfg"] = VitCfg(**sizes, stem_width=WIDTH // 4, conv_cfg=convolutions)
    return timm.create_model(tower, **narrow, **options)


@contextlib.contextmanager
def small(name: str) -> Iterator[dict]:
    """Let open_clip build an architecture small; yields its configuration."""
    if name in DEMOS:  # small as they are
        yield {"text_cfg": {}}
        return
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    config["embed_dim"] = WIDTH
    text |= {"layers": BLOCKS, "width": WIDTH, "heads": HEADS}
    if "hf_tokenizer_name" in text:
        text["vocab_size"] = VOCABULARY
    if isinstance(vision.get("layers"), int):
        vision |= {"layers": BLOCKS, "width": WIDTH, "head_width": WIDTH // HEADS}
    with (
        mock.patch.dict(open_clip.factory._MODEL_CONFIGS, {name: config}),
        mock.patch("open_clip.timm_model.timm", mock.Mock(create_model=build)),
    ):
        yield config


def masked_images(side: ImageSide, masks: torch.Tensor) -> torch.Tensor:
    """The raw tower's embeddings (m, D) of images whose removed patches are zero."""
    rows, cols = side.grid
    high, wide = side.pixels.shape[2] // rows, side.pixels.shape[3] // cols
    pixels = side.pixels.repeat(len(masks), 1, 1, 1)
    for row, mask in zip(pixels, masks, strict=True):
        for patch in (~mask).nonzero()[:, 0].tolist():
            top, left = patch // cols * high, patch % cols * wide
            row[:, top : top + high, left : left + wide] = 0
    return side.encoder.model.encode_image(pixels, normalize=True)


def masked_texts(side: TextSide, masks: torch.Tensor) -> torch.Tensor:
    """The raw blocks' embeddings (m, D) of captions without the removed tokens.

    The tokens that are left keep their positions and what they may attend to.
    """
    text = getattr(side.encoder.model, "text", side.encoder.model)
    own = text is side.encoder.model
    pool, eos = (text.text_pool_type, text.text_eos_id) if own else (text.pool_type, text.eos_id)
    embeddings = []
    for mask in masks:
        keep = torch.ones(side.ids.shape[1], dtype=torch.bool)
        keep[side.span] = mask
        x = (text.token_embedding(side.ids) + text.positional_embedding)[:, keep]
        causal = None if text.attn_mask is None else text.attn_mask[keep][:, keep]
        x = text.ln_final(text.transformer(x, attn_mask=causal))  # (1, kept, width)
        x = open_clip.transformer.text_global_pool(x, side.ids[:, keep], pool, eos)
        linear, projection = isinstance(text.text_projection, torch.nn.Linear), text.text_projection
        if projection is not None:
            x = projection(x) if linear else x @ projection
        embeddings.append(normalize(x, dim=-1))
    return torch.cat(embeddings)


def differences(encoder: fixlip.Encoder, picture: np.ndarray) -> dict[str, float]:
    """Largest differences from the raw towers, of all masked embeddings and of the whole pair."""
    sides = encoder.image(picture), encoder.text(CAPTION)
    found = {}
    for side, literal in zip(sides, (masked_images, masked_texts), strict=True):
        masks = torch.rand(3, side.n, generator=torch.Generator().manual_seed(0)) < 0.5
        masks[0], masks[1] = True, False
        embedded = side.embed(masks)
        kind = side.info["kind"]
        found[kind] = float((embedded - literal(side, masks)).abs().max())
        found[f"{kind}, by masks"] = float((embedded[1:] - embedded[0]).abs().max())
    explanation = fixlip.explain(encoder, picture, CAPTION, masks=(4, 4), progress=False)
    finite = np.isfinite(explanation.e1).all() and np.isfinite(explanation.e2).all()
    score = encoder.logit(picture, CAPTION)
    found["score"] = abs(explanation.grand_value - score) if finite else np.nan
    return found


@torch.no_grad()
def examine(name: str) -> dict:
    """Load an architecture as a user would, and compare; or say how it is refused."""
    picture = np.random.default_rng(0).integers(0, 256, size=(300, 400, 3), dtype=np.uint8)
    family = next(family for family, start in FAMILIES.items() if re.match(start, name))
    own = {"pretrained": "random"} if family != DEMO else {}
    row = {"architecture": name, "family": family, "patches": None, "positions": None}
    with small(name) as config, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of too few masks
        options = {"tokenizer": tokenizer(config), "device": "cpu", "dtype": "float64"}
        try:
            encoder = fixlip.load(name, **own, **options)
        except ValueError as error:
            reason = str(error).removeprefix(f"{name!r} has ").partition(";")[0]
            return row | {"result": f"refused: {reason}"}
        found = differences(encoder, picture)
    row["patches"] = encoder.image(picture).n
    row["positions"] = encoder.model.context_length
    exact = all(found[key] < 1e-12 for key in ("image", "text", "score"))  # False for NaN
    seen = all(found[f"{kind}, by masks"] > 1e-6 for kind in ("image", "text"))
    row["result"] = "exact" if exact and seen else "WRONG"
    return row | {key: f"{value:.0e}" for key, value in found.items()}


def summary(rows: list[dict]) -> list[dict]:
    """One row per family and result: what works before what is refused, large families first."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["family"], row["result"]), []).append(row)
    ranked = sorted(groups.items(), key=lambda item: (item[0][1] != "exact", -len(item[1])))
    return [
        {
            "family": family,
            "for example": group[0]["architecture"],
            "architectures": len(group),
            "patches": span([row["patches"] for row in group]),
            "text positions": span([row["positions"] for row in group]),
            "masks": result,
        }
        for (family, result), group in ranked
    ]


def span(numbers: list[int | None]) -> str:
    """The smallest and the largest, where there are any."""
    known = sorted({number for number in numbers if number})
    return " to ".join(map(str, dict.fromkeys((known[0], known[-1])))) if known else "-"


def main() -> int:
    """Command line; the status says whether every architecture works or is refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights
    rows = []
    for name in names or [*DEMOS, *open_clip.list_models()]:
        rows.append(examine(name))
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items() if value), flush=True)
    if not names:
        machine = {**describe(), "open_clip": open_clip.__version__, "timm": timm.__version__}
        demos = [row for row in rows if row["family"] == DEMO]
        every = [row for row in rows if row["family"] != DEMO]
        content = {"machine": machine, "rows": summary(every), "architectures": every}
        content["demos"] = demos
        (RESULTS / "architectures.json").write_text(json.dumps(content, indent=1) + "\n")
        for row in content["rows"]:
            print("| " + " | ".join(map(str, row.values())) + " |")
    return int(any(row["result"] == "WRONG" for row in rows))


if __name__ == "__main__":
    sys.exit(main())

"""Fixtures that several test files share: tiny tokenizers of every kind, and tiny models."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import wheels
from safetensors.torch import save_file
from tiny import tiny_config
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from fixlip.demo.tokenizers import write_tokenizer
from fixlip.encoders.demo_towers import register_towers

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("a", "red", "star", "starfish", "dog", "and", "ball", "on", "the", "left", "of", "cross")


def _merges(words):
    """Merges that build each word from its letters, left to right."""
    merges = []
    for word in words:
        symbols = list(word)
        while len(symbols) > 1:
            merge = (symbols[0], symbols[1])
            if merge not in merges:
                merges.append(merge)
            symbols[:2] = ["".join(merge)]
    return merges


def _vocabulary(*groups):
    """Ids in order of appearance."""
    return {text: i for i, text in enumerate(dict.fromkeys(t for group in groups for t in group))}


def _siglip1():
    """T5 style: unigrams, words start with U+2581, the end token is the padding, both id 1."""
    letters = [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    pieces = [("▁" + w, -2.0) for w in WORDS if w != "starfish"] + [("fish", -3.0), ("▁", -4.0)]
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = Tokenizer(models.Unigram([*specials, *pieces, *letters], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return tokenizer, names


def _siglip2():
    """Gemma style: byte pairs with single bytes as a fallback; padding 0, end token 1."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    merges = _merges([*("▁" + w for w in WORDS if w != "starfish"), *WORDS[:3], "fish"])
    letters = list("▁abcdefghijklmnopqrstuvwxyz,.!'-")
    vocabulary = _vocabulary(specials, single, letters, ["".join(m) for m in merges])
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    names = {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<bos>"}
    return tokenizer, names


def _clip():
    """CLIP style from Hugging Face: bytes as letters, words end in "</w>", padded with the end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges([[*w[:-1], w[-1] + "</w>"] for w in WORDS if w != "starfish" and len(w) > 1])
    merges += _merges(["star", [*"fis", "h</w>"]])
    merges = list(dict.fromkeys(merges))
    ends = ["<start>", "<end>"]
    joined = ["".join(m) for m in merges]
    vocabulary = _vocabulary(letters, [x + "</w>" for x in letters], joined, ends)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern=" ", behavior="removed"),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    special = [(token, vocabulary[token]) for token in ends]
    tokenizer.post_processor = TemplateProcessing(single="<start> $A <end>", special_tokens=special)
    return tokenizer, {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>"}


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """Write the files of a tiny tokenizer: clip, siglip1, siglip2, demo-clip or demo-siglip."""
    made = {}

    def write(kind, length):
        if (kind, length) not in made:
            folder = made[kind, length] = tmp_path_factory.mktemp(kind)
            if kind.startswith("demo-"):
                write_tokenizer(folder, kind.removeprefix("demo-"), length=length)
            else:
                build = {"siglip1": _siglip1, "siglip2": _siglip2, "clip": _clip}[kind]
                tokenizer, names = build()
                for token in set(names.values()):
                    tokenizer.add_special_tokens([AddedToken(token, special=True)])
                PreTrainedTokenizerFast(
                    tokenizer_object=tokenizer, padding_side="right", **names
                ).save_pretrained(folder)
        return made[kind, length]

    return write


@pytest.fixture(scope="session")
def tiny_model():
    """Build a tiny open_clip model with weights large enough for masks to matter."""

    def build(kind, config=None):
        register_towers()
        config = config or tiny_config(kind)
        custom = config.pop("custom_text", False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
            for weights in model.parameters():
                if weights.ndim >= 2:
                    weights.data.normal_(0, 0.3)
        open_clip.model.set_model_preprocess_cfg(
            model,
            {"size": model.visual.image_size, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
        )
        return model.eval()

    return build


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, tiny_model, tokenizer_folder):
    """Write a "local-dir:" folder of open_clip with a tiny model, "clip" or "siglip"."""

    def write(kind):
        config = tiny_config(kind)
        model = tiny_model(kind)
        folder = tmp_path_factory.mktemp(f"tiny-{kind}")
        length = config["text_cfg"]["context_length"]
        source = tokenizer_folder(f"demo-{kind}", length)
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config["text_cfg"]["hf_tokenizer_name"] = "tiny"
        preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
        described = {"model_cfg": config, "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(described))
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return write


@pytest.fixture(scope="session")
def noise():
    """A picture of random pixels, 40 high and 56 wide."""
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder for ``sys.path`` with the wheel of this checkout unpacked in it."""
    base = tmp_path_factory.mktemp("wheel")
    copy, site = base / "clone", base / "site"
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "figures", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, wheels.build(copy)], check=True)
    shutil.rmtree(copy)
    return site

"""exCLIP: time and memory of one side's factor, against the Jacobian of all hidden states.

    python benchmarks/exclip.py

Every measurement runs in a process of its own, on random weights, which take as long as trained
ones. Memory is the process's peak over what the model and torch held before, and with them.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import open_clip
import torch
from machine import write

from fixlip.encoders import Encoder
from fixlip.encoders.sides import ImageSide
from fixlip.explainers import exclip
from fixlip.explainers.integrated import Path

CAPTION = "a black dog next to a yellow hydrant"
LARGE = ("ViT-L-16-SigLIP-256", "ViT-L-16-SigLIP2-256")
CASES = [  # model, side, form, steps
    ("ViT-B-32", "image", "factor", 10),
    ("ViT-B-32", "image", "Jacobian", 1),
    ("ViT-B-16", "image", "factor", 10),
    ("ViT-B-16", "image", "Jacobian", 1),
    ("ViT-B-16", "text", "factor", 10),
    *((name, "image", "factor", 1) for name in LARGE),
    *((name, "text", "factor", 10) for name in LARGE),
]


def encoder(name: str) -> Encoder:
    """A model with random weights; SigLIP's with a vocabulary of 1,000, which changes no time."""
    config = open_clip.get_model_config(name)
    size = config["vision_cfg"]["image_size"]
    length = config["text_cfg"]["context_length"]
    if config.pop("custom_text", False):
        config["text_cfg"]["vocab_size"] = 1000
        model = open_clip.CustomTextCLIP(**config)
        read = word_ids(length)
    else:
        model = open_clip.CLIP(**config)
        read = open_clip.SimpleTokenizer(context_length=length)
    open_clip.model.set_model_preprocess_cfg(
        model, {"size": size, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    )
    return Encoder(model, read, name=name, device="cpu")


def word_ids(length: int):
    """A tokenizer that numbers the words of a caption from 2; end and padding are 1."""

    def read(captions: list[str]) -> torch.Tensor:
        ids = range(2, 2 + len(captions[0].split()))
        return torch.tensor([[*ids, *[1] * (length - len(ids))]])

    return read


def jacobian(side: ImageSide, steps: int) -> torch.Tensor:
    """Token vectors (T, D) by the paper's algorithm 1: the whole Jacobian, then the contraction."""
    path = Path(side, -1, None)
    alphas = torch.arange(1, steps + 1)[:, None, None] / steps
    states = (path.start + alphas * path.delta).requires_grad_(True)  # (S, T, width)
    block = path.tower.blocks[-1]
    with block.register_forward_pre_hook(lambda module, args: (states, *args[1:])):
        embeddings = side.encoder.model.encode_image(side.pixels)  # (S, D)
    whole = torch.stack(
        [torch.autograd.grad(one, states, retain_graph=True)[0].sum(0) for one in embeddings.sum(0)]
    )  # (D, T, width)
    return (whole * path.delta).sum(2).T / (steps * path.length)


def measure(name: str, kind: str, form: str, steps: int) -> dict:
    """Run one case in this process."""
    model = encoder(name)
    picture = np.random.default_rng(0).integers(0, 256, size=(256, 256, 3), dtype=np.uint8)
    side = model.image(picture) if kind == "image" else model.text(CAPTION)
    exclip.factor(model.text("a"), steps=1)  # loads what torch needs for derivatives
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes on macOS, kibibytes on Linux
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    start = time.perf_counter()
    if form == "factor":
        found = exclip.factor(side, steps=steps)
    else:
        found = jacobian(side, steps)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    if form == "factor":
        passes, width = found.n + len(found.special_names), found.vectors.shape[1]
        assert passes <= width  # so auto took forward mode
    else:
        passes = found.shape[1]
    return {
        "model": name,
        "side": kind,
        "form": form,
        "passes per step": passes,
        "seconds per step": f"{seconds / steps:.2f}",
        "added, GiB": f"{peak - before:.2f}",
        "process, GiB": f"{peak:.2f}",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*json.loads(options.one))))
        return
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, "--one", json.dumps(case)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
    write("exclip", rows)


if __name__ == "__main__":
    main()

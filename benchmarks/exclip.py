"""exCLIP: time and memory of one side's factor, against the Jacobian of all hidden states.

    python benchmarks/exclip.py

Every measurement runs in a process of its own, on random weights, which take as long as trained
ones. Memory is the process's peak over what the model and torch held before, and with them.
"""

import argparse
import json
import time

import numpy as np
import torch
from machine import apart, peak_memory, wait, write
from towers import load

from fixlip.encoders import Encoder
from fixlip.encoders.sides import ImageSide
from fixlip.explainers import exclip
from fixlip.explainers.integrated import Line

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


def jacobian(side: ImageSide, steps: int) -> torch.Tensor:
    """Token vectors (T, D) by the paper's algorithm 1: the whole Jacobian, then the contraction."""
    path = Line(side, -1, None)
    alphas = torch.arange(1, steps + 1)[:, None, None] / steps
    states = (path.start + alphas * path.delta).requires_grad_(True)  # (S, T, width)
    block = path.tower.blocks[-1]
    with block.register_forward_pre_hook(lambda module, args: (states, *args[1:])):
        embeddings = side.encoder.model.encode_image(side.pixels)  # (S, D)
    whole = torch.stack(
        [torch.autograd.grad(one, states, retain_graph=True)[0].sum(0) for one in embeddings.sum(0)]
    )  # (D, T, width)
    return (whole * path.delta).sum(2).T / (steps * path.length)


def factor(
    encoder: Encoder, kind: str, steps: int, *, memory: float = 0.25
) -> tuple[object, float]:
    """One side's factor, and the seconds it takes."""
    picture = np.random.default_rng(0).integers(0, 256, size=(256, 256, 3), dtype=np.uint8)
    side = encoder.image(picture) if kind == "image" else encoder.text(CAPTION)
    wait(encoder.device)
    start = time.perf_counter()
    found = exclip.factor(side, steps=steps, memory=memory)
    wait(encoder.device)
    return found, time.perf_counter() - start


def one(name: str, kind: str, form: str, steps: int) -> dict:
    """Run one case in this process: a row of the table."""
    encoder = load(name, "cpu", "float32")
    exclip.factor(encoder.text("a"), steps=1)  # loads what torch needs for derivatives
    before = peak_memory(encoder.device)
    if form == "factor":
        found, seconds = factor(encoder, kind, steps)
        passes = found.n + len(found.special_names)
    else:
        picture = np.random.default_rng(0).integers(0, 256, size=(256, 256, 3), dtype=np.uint8)
        start = time.perf_counter()
        passes = jacobian(encoder.image(picture), steps).shape[1]
        seconds = time.perf_counter() - start
    peak = peak_memory(encoder.device)
    return {
        "model": name,
        "side": kind,
        "form": form,
        "passes per step": passes,
        "seconds per step": f"{seconds / steps:.2f}",
        "added, GiB": f"{(peak - before) / 2**30:.2f}",
        "process, GiB": f"{peak / 2**30:.2f}",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*json.loads(options.one))))
        return
    write("exclip", [apart(__file__, *case) for case in CASES])


if __name__ == "__main__":
    main()

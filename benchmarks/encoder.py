"""Encoder overhead: `side.embed` against the raw towers of open_clip on as many inputs.

    python benchmarks/encoder.py [--model ViT-B-32] [--masks 64] [--repeats 7]

Random weights take as long as trained ones. Raw and masked runs alternate; the table gives the
medians and the median of the ratios pair by pair, which a noisy machine disturbs least.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from machine import write

import fixlip
from fixlip.sampler import bernoulli

CAPTION = "a black dog next to a yellow hydrant"


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call, with the GPU's queue emptied before and after."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(name: str, raw: Callable, masked: Callable, repeats: int) -> dict:
    """Alternate both, after one run of each to warm up."""
    seconds(raw), seconds(masked)
    pairs = [(seconds(raw), seconds(masked)) for _ in range(repeats)]
    ratios = [m / r for r, m in pairs]
    return {
        "tower": name,
        "raw, s": f"{statistics.median(r for r, _ in pairs):.3f}",
        "masked, s": f"{statistics.median(m for _, m in pairs):.3f}",
        "masked / raw": f"{statistics.median(ratios):.3f}",
        "lowest, highest": f"{min(ratios):.2f}, {max(ratios):.2f}",
    }


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--masks", type=int, default=64, help="inputs per forward pass")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    encoder = fixlip.load(options.model, pretrained="random")
    picture = np.random.default_rng(0).integers(0, 256, size=(256, 256, 3), dtype=np.uint8)
    image, text = encoder.image(picture), encoder.text(CAPTION)
    m = options.masks
    pixels = image.pixels.repeat(m, 1, 1, 1)
    ids = text.ids.repeat(m, 1)
    rows = []
    for name, side, raw in (
        (f"image, {m} inputs", image, lambda: encoder.model.encode_image(pixels, normalize=True)),
        (f"text, {m} inputs", text, lambda: encoder.model.encode_text(ids, normalize=True)),
    ):
        masks = bernoulli(side.n, m).masks
        rows.append(compare(name, raw, lambda s=side, z=masks: s.embed(z), options.repeats))
    write(f"encoder-{options.model}", rows)


if __name__ == "__main__":
    main()

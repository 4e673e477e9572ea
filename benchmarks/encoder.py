"""Encoder overhead: `side.embed` against the raw towers of open_clip on as many inputs.

    python benchmarks/encoder.py                         the four encoders of the README, in float32
    python benchmarks/encoder.py ViT-B-32 --dtype bfloat16

Random weights take as long as trained ones. Inputs are as many as a sweep embeds at once, on a CPU
at most 64. Raw and masked runs alternate; the table gives the medians, and the median of the ratios
pair by pair, which a noisy machine disturbs least. "of the matrix rate" is the masked tower's
arithmetic per second over that of one large matrix product of the same type.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from machine import write
from towers import load, matrix_rate, operations, wait

from fixlip.sampler import bernoulli

MODELS = ("ViT-B-32", "ViT-B-16", "ViT-B-16-SigLIP", "ViT-L-16-SigLIP2-256")
MOST = 64  # inputs at once on a CPU: raw captions of 77 tokens take long
CAPTION = "a black dog next to a yellow hydrant"


def compare(raw: Callable, masked: Callable, repeats: int, device: torch.device) -> np.ndarray:
    """Alternate both, after one run of each to warm up; seconds, shape (repeats, 2)."""

    def seconds(run: Callable) -> float:
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        return time.perf_counter() - start

    seconds(raw), seconds(masked)
    return np.array([(seconds(raw), seconds(masked)) for _ in range(repeats)])


@torch.no_grad()
def rows_of(name: str, options: argparse.Namespace) -> list[dict]:
    """Both towers of one model."""
    encoder = load(name, options.device, options.dtype)
    picture = np.random.default_rng(0).integers(0, 256, size=(256, 256, 3), dtype=np.uint8)
    image, text = encoder.image(picture), encoder.text(CAPTION)
    rows = []
    for tower, side in (("image", image), ("text", text)):
        m = min(side.batch_size, MOST) if encoder.device.type == "cpu" else side.batch_size
        masks = bernoulli(side.n, m).masks
        dtype, within = encoder.stored, nullcontext
        if side is image:
            dtype, within = encoder.dtype, encoder.precision
        rate = matrix_rate(encoder.device, dtype)
        work = operations(side, m) * m
        inputs = image.pixels.repeat(m, 1, 1, 1) if side is image else text.ids.repeat(m, 1)
        encode = encoder.model.encode_image if side is image else encoder.model.encode_text

        def raw_tower(run=encode, given=inputs, within=within):
            with within():
                return run(given, normalize=True)

        def masked_tower(run=side.embed, given=masks):
            return run(given)

        seconds = compare(raw_tower, masked_tower, options.repeats, encoder.device)
        raw, masked = np.median(seconds, axis=0)
        ratios = seconds[:, 1] / seconds[:, 0]
        rows.append(
            {
                "model": name,
                "type": str(dtype).removeprefix("torch."),
                "tower": f"{tower}, {m} inputs",
                "raw, s": f"{raw:.3f}",
                "masked, s": f"{masked:.3f}",
                "masked / raw": f"{np.median(ratios):.3f}",
                "lowest, highest": f"{ratios.min():.2f}, {ratios.max():.2f}",
                "of the matrix rate": f"{work / masked / rate:.0%}",
            }
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--device", default=None, help="by default the best there is")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for name in options.models:
        write(f"encoder-{name}-{options.dtype}", rows_of(name, options))


if __name__ == "__main__":
    main()

"""Encoder overhead: `side.embed` against the raw towers of open_clip on as many inputs.

    python benchmarks/encoder.py                         the four encoders of tables.py, in float32
    python benchmarks/encoder.py ViT-B-32 --dtype bfloat16

Random weights take as long as trained ones. Inputs are as many as a sweep embeds at once, at most
64 on a CPU and 1,024 on a GPU. Raw and masked runs alternate; the table gives the medians, and the
median of the ratios pair by pair, which a noisy machine disturbs least. "of the matrix rate" is the
masked tower's arithmetic per second over that of one large matrix product of the same type.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from machine import matrix_rate, wait, write
from towers import load, operations

from fixlip.encoders import Encoder
from fixlip.sampler import bernoulli

MODELS = ("ViT-B-32", "ViT-B-16", "ViT-B-16-SigLIP", "ViT-L-16-SigLIP2-256")
MOST, MOST_ON_GPU = 64, 1024  # inputs at once: raw captions of 77 tokens take long, and memory
COUNTED = 16  # inputs of the batch in which operations are counted
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
def measure(
    encoder: Encoder, kind: str, *, most: int, repeats: int, size: int | None = None
) -> dict:
    """One tower: seconds of raw and masked runs, (repeats, 2), and operations per second.

    ``size`` is that of `matrix_rate`.
    """
    picture = np.random.default_rng(0).integers(0, 256, size=(256, 256, 3), dtype=np.uint8)
    if kind == "image":
        side, encode, dtype = encoder.image(picture), encoder.model.encode_image, encoder.dtype
        within, one = encoder.precision, side.pixels
    else:
        side, encode, dtype = encoder.text(CAPTION), encoder.model.encode_text, encoder.stored
        within, one = nullcontext, side.ids
    m = min(side.batch_size, most)
    masks, inputs = bernoulli(side.n, m).masks, one.repeat(m, *[1] * (one.ndim - 1))

    def raw_tower() -> torch.Tensor:
        with within():
            return encode(inputs, normalize=True)

    seconds = compare(raw_tower, lambda: side.embed(masks), repeats, encoder.device)
    return {
        "inputs": m,
        "type": str(dtype).removeprefix("torch."),
        "seconds": seconds,
        "rate": operations(side, min(m, COUNTED)) * m / float(np.median(seconds[:, 1])),
        "matrix rate": matrix_rate(encoder.device, dtype, size),
    }


def rows_of(name: str, options: argparse.Namespace) -> list[dict]:
    """Both towers of one model."""
    encoder = load(name, options.device, options.dtype)
    rows = []
    for kind in ("image", "text"):
        most = MOST if encoder.device.type == "cpu" else MOST_ON_GPU
        found = measure(encoder, kind, most=most, repeats=options.repeats)
        raw, masked = np.median(found["seconds"], axis=0)
        ratios = found["seconds"][:, 1] / found["seconds"][:, 0]
        rows.append(
            {
                "model": name,
                "type": found["type"],
                "tower": f"{kind}, {found['inputs']} inputs",
                "raw, s": f"{raw:.3f}",
                "masked, s": f"{masked:.3f}",
                "masked / raw": f"{np.median(ratios):.3f}",
                "lowest, highest": f"{ratios.min():.2f}, {ratios.max():.2f}",
                "of the matrix rate": f"{found['rate'] / found['matrix rate']:.0%}",
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

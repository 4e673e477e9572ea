"""End to end: seconds and memory of one explanation, image and caption to all terms with errors.

    python benchmarks/explanation.py                             ViT-B-32, 2**15 .. 2**21 values
    python benchmarks/explanation.py ViT-B-16 --powers 15 17 19
    python benchmarks/explanation.py ViT-L-16-SigLIP2-256 --powers 15 --words 63
    python benchmarks/explanation.py ViT-B-16 --device cuda --dtype bfloat16

A budget of 2**k game values is spent as sqrt(2**(k+1)) image masks and half as many text masks, so
2**21 values are 2048 + 1024 passes. Random weights take as long as trained ones. "of the matrix
rate" is the towers' arithmetic per second over that of one large matrix product of the same type.
Every explanation runs in a process of its own; "GiB" is its peak, model and torch included.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import torch
from machine import write
from torch.utils.flop_counter import FlopCounterMode

import fixlip
from fixlip.encoders import Encoder
from fixlip.sampler import bernoulli, side_seeds

WORDS = "dog cat star tree car bird house boat fish lamp".split()


def stub_tokenizer(length: int, vocabulary: int):
    """Stand in for a tokenizer that lies on a hub: one id per word, end 1, padding 0, as Gemma."""

    def tokenize(texts, context_length=length):
        rows = []
        for text in texts:
            ids = [2 + sum(map(ord, word)) % (vocabulary - 2) for word in text.split()]
            rows.append([*ids[: context_length - 1], 1] + [0] * (context_length - 1 - len(ids)))
        return torch.tensor(rows)

    return tokenize


def load(name: str, device: str | None, dtype: str) -> Encoder:
    """The architecture at random initialisation."""
    options = {"pretrained": "random", "device": device, "dtype": dtype}
    if "SigLIP" in name:
        options["tokenizer"] = stub_tokenizer(64, 32000)
    return fixlip.load(name, **options)


def wait(device: torch.device) -> None:
    """Let a GPU finish what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Arithmetic operations per second of a large matrix product, the best of five."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = np.inf
    for _ in range(6):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def operations(side, batch: int) -> float:
    """Arithmetic operations per masked input, counted in one batch."""
    masks = bernoulli(side.n, batch).masks
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch does not count inside it
    with FlopCounterMode(display=False) as counter:
        side.embed(masks)
    torch.backends.mha.set_fastpath_enabled(fast)
    side.embed(masks)  # warms up
    return counter.get_total_flops() / batch


def one(name: str, device: str | None, dtype: str, words: int, power: int) -> dict:
    """Explain once in this process."""
    encoder = load(name, device, dtype)
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    caption = " ".join(WORDS[i % len(WORDS)] for i in range(words))
    sides = encoder.image(picture), encoder.text(caption)
    budget = round((2 ** (power + 1)) ** 0.5), round((2 ** (power - 1)) ** 0.5)
    batches = [min(side.batch_size, 16) for side in sides]
    work = [operations(s, b) for s, b in zip(sides, batches, strict=True)]
    rate = matrix_rate(encoder.device, encoder.dtype)
    seconds, swept, done = [], [], 0.0
    for side, masks, seed, each in zip(sides, budget, side_seeds(0), work, strict=True):
        wait(encoder.device)
        start = time.perf_counter()
        swept.append(fixlip.sweep(side, masks=masks, seed=seed, progress=False))
        wait(encoder.device)
        seconds.append(time.perf_counter() - start)
        done += each * (swept[-1].sample.m + 2)
    start = time.perf_counter()
    explanation = fixlip.solve(*swept)
    wait(encoder.device)
    solving = time.perf_counter() - start
    total, n = sum(seconds) + solving, explanation.n
    return {
        "model": name,
        "type": f"{encoder.device.type}, {dtype}",
        "players": f"{explanation.n_image} + {explanation.n_text}",
        "terms": 1 + n * (n + 1) // 2,
        "values": f"2^{power}",
        "masks": " + ".join(str(s.sample.m) for s in swept),
        "image, s": f"{seconds[0]:.2f}",
        "text, s": f"{seconds[1]:.2f}",
        "solver, s": f"{solving:.2f}",
        "total, s": f"{total:.1f}",
        "solver's share": f"{solving / total:.1%}",
        "of the matrix rate": f"{done / sum(seconds) / rate:.0%}",
        "GiB": f"{peak_memory() / 2**30:.1f}",
    }


def peak_memory() -> int:
    """Most memory that this process has held, in bytes, on Linux and macOS."""
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="ViT-B-32")
    parser.add_argument("--device", default=None, help="by default the best there is")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--words", type=int, default=12, help="of the caption, a player each")
    parser.add_argument("--powers", type=int, nargs="+", default=[15, 17, 19, 21])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*json.loads(options.one))))
        return
    rows = []
    for power in options.powers:
        arguments = [options.model, options.device, options.dtype, options.words, power]
        command = [sys.executable, __file__, "--one", json.dumps(arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(done.splitlines()[-1]))
        print(rows[-1], file=sys.stderr, flush=True)
    device = rows[0]["type"].split(",")[0]
    write(f"explanation-{options.model}-{device}-{options.dtype}", rows)


if __name__ == "__main__":
    main()

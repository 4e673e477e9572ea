"""End to end: seconds and memory of one explanation, image and caption to all terms with errors.

    python benchmarks/explanation.py --masks 4096 1024           ViT-B-32, 2**15 .. 2**21, 2**22
    python benchmarks/explanation.py ViT-B-16
    python benchmarks/explanation.py ViT-L-16-SigLIP2-256 --words 63
    python benchmarks/explanation.py ViT-B-16 --device cuda --dtype bfloat16

A budget of 2**k game values is spent as sqrt(2**(k+1)) image masks and half as many text masks, so
2**21 values are 2048 + 1024 passes; --masks adds another one. SigLIP 2 reads 64 tokens, the last of
which ends the caption: 63 words are the most. Random weights take as long as trained ones; captions
are float32 in every type. "of the matrix rate" is the time in which a large matrix product of the
same type does the towers' arithmetic, over the time they took. Every explanation runs in a process
of its own; "GiB" is its peak, model and torch included; on a GPU, what torch held of its memory.
"""

import argparse
import json
import sys
import time

import numpy as np
from machine import RESULTS, apart, matrix_rate, peak_memory, wait, write
from towers import load, operations

import fixlip
from fixlip.encoders import Encoder
from fixlip.sampler import side_seeds

WORDS = "dog cat star tree car bird house boat fish lamp".split()


def pair(words: int) -> tuple[np.ndarray, str]:
    """A picture of noise, and a caption of so many words."""
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    return picture, " ".join(WORDS[i % len(WORDS)] for i in range(words))


def measure(
    encoder: Encoder, words: int, masks: list[int], *, seed: int = 0, size: int | None = None
) -> dict:
    """Explain once, step by step: seconds of each, and the explanation.

    ``size`` is that of `matrix_rate`.
    """
    picture, caption = pair(words)
    sides = encoder.image(picture), encoder.text(caption)
    batches = [min(side.batch_size, 16) for side in sides]
    work = [operations(s, b) for s, b in zip(sides, batches, strict=True)]
    rates = [matrix_rate(encoder.device, t, size) for t in (encoder.dtype, encoder.stored)]
    seconds, swept, least = [], [], 0.0
    for side, m, own, each, rate in zip(sides, masks, side_seeds(seed), work, rates, strict=True):
        wait(encoder.device)
        start = time.perf_counter()
        swept.append(fixlip.sweep(side, masks=m, seed=own, progress=False))
        wait(encoder.device)
        seconds.append(time.perf_counter() - start)
        least += each * (swept[-1].sample.m + 2) / rate
    start = time.perf_counter()
    explanation = fixlip.solve(*swept)
    wait(encoder.device)
    solving = time.perf_counter() - start
    return {
        "masks": [s.sample.m for s in swept],
        "encoders": seconds,
        "solver": solving,
        "of the matrix rate": least / sum(seconds),
        "explanation": explanation,
    }


def one(name: str, device: str | None, dtype: str, words: int, masks: list[int]) -> dict:
    """Explain once in this process: a row of the table."""
    encoder = load(name, device, dtype)
    found = measure(encoder, words, masks)
    explanation, seconds, solving = (found[k] for k in ("explanation", "encoders", "solver"))
    total, n = sum(seconds) + solving, explanation.n
    return {
        "model": name,
        "type": f"{encoder.device.type}, {dtype}",
        "players": f"{explanation.n_image} + {explanation.n_text}",
        "terms": 1 + n * (n + 1) // 2,
        "values": f"2^{np.log2(np.prod(found['masks'])):g}",
        "masks": " + ".join(map(str, found["masks"])),
        "image, s": f"{seconds[0]:.2f}",
        "text, s": f"{seconds[1]:.2f}",
        "solver, s": f"{solving:.2f}",
        "total, s": f"{total:.1f}",
        "solver's share": f"{solving / total:.1%}",
        "of the matrix rate": f"{found['of the matrix rate']:.0%}",
        "GiB": f"{peak_memory(encoder.device) / 2**30:.1f}",
    }


def draw() -> None:
    """Time against game values, of all results that lie in the folder."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 4.6), layout="constrained")
    for path in sorted(RESULTS.glob("explanation-*.json")):
        rows = json.loads(path.read_text())["rows"]
        values = [2 ** float(row["values"].removeprefix("2^")) for row in rows]
        seconds = [float(row["total, s"]) for row in rows]
        first = rows[0]
        ax.loglog(values, seconds, "o-", label=f"{first['model']}, {first['type']}")
    ax.set_xscale("log", base=2)
    ax.set(xlabel="game values that the masks stand for", ylabel="seconds, end to end")
    ax.grid(alpha=0.3)
    fig.legend(loc="outside upper center", ncols=2, fontsize=8)
    fig.savefig(RESULTS / "explanation.png", dpi=144)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="ViT-B-32")
    parser.add_argument("--device", default=None, help="by default the best there is")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--words", type=int, default=12, help="of the caption, a player each")
    parser.add_argument("--powers", type=int, nargs="+", default=[15, 17, 19, 21])
    parser.add_argument("--masks", type=int, nargs=2, help="of image and caption, one run more")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*json.loads(options.one))))
        return
    budgets = [[round(2 ** ((k + step) / 2)) for step in (1, -1)] for k in options.powers]
    rows = []
    for masks in [*budgets, options.masks] if options.masks else budgets:
        arguments = [options.model, options.device, options.dtype, options.words, masks]
        rows.append(apart(__file__, *arguments))
        print(rows[-1], file=sys.stderr, flush=True)
        device = rows[0]["type"].split(",")[0]
        write(f"explanation-{options.model}-{device}-{options.dtype}", rows)  # all so far
    draw()


if __name__ == "__main__":
    main()

"""What bfloat16 and float16 image towers change in an explanation, beside its error bars.

    python benchmarks/precision.py [--pairs 34] [--masks 2048 1024]

Scenes and captions are explained by the demo models in float32 and in each half precision, with the
same masks. "Interactions" are all of image with text; the error bar of one is the 95 % interval of
its float32 estimate, as much to either side as 1.96 standard errors. float16, at which CPUs are
slow, is tried on every tenth pair.
"""

import argparse
import sys
import time

import numpy as np
from machine import write

import fixlip
from fixlip.data.coco import read_coco
from fixlip.paths import root
from fixlip.sampler import side_seeds

MODELS = ("demo-clip", "demo-siglip", "demo-siglip-fine")
HALF = ("bfloat16", "float16")


def explained(encoder: fixlip.Encoder, example: object, masks: list[int], seed: int) -> object:
    """One explanation, with the same masks for every precision."""
    sides = encoder.image(example.image), encoder.text(max(example.captions, key=len))
    drawn = zip(sides, masks, side_seeds(seed), strict=True)
    return fixlip.solve(*(fixlip.sweep(s, masks=m, seed=k, progress=False) for s, m, k in drawn))


def compare(model: str, examples: list, masks: list[int]) -> list[dict]:
    """One row for each half precision of one model."""
    encoders = {dtype: fixlip.load(model, dtype=dtype) for dtype in ("float32", *HALF)}
    moved = {dtype: [] for dtype in HALF}  # per pair: change / error bar of all
    same = {dtype: [] for dtype in HALF}
    seconds = {dtype: [] for dtype in encoders}
    for seed, example in enumerate(examples):
        found = {}
        for dtype, encoder in encoders.items():
            if dtype == "float16" and seed % 10:
                continue
            start = time.perf_counter()
            found[dtype] = explained(encoder, example, masks, seed)
            seconds[dtype].append(time.perf_counter() - start)
        exact = found["float32"]
        bar = 1.96 * exact.stderr.e2[: exact.n_image, exact.n_image :]
        for dtype in found.keys() & HALF:
            moved[dtype].append(np.abs(found[dtype].cross - exact.cross) / bar)
            same[dtype].append(np.corrcoef(found[dtype].cross.ravel(), exact.cross.ravel())[0, 1])
        print(model, seed, f"{moved['bfloat16'][-1].max():.2f}", file=sys.stderr)
    rows, whole = [], np.median(seconds["float32"])
    for dtype in HALF:
        all_moved = np.concatenate([x.ravel() for x in moved[dtype]])
        inside = [bool((x <= 1).all()) for x in moved[dtype]]
        rows.append(
            {
                "model": model,
                "towers": dtype,
                "pairs": len(inside),
                "interactions": len(all_moved),
                "within the error bar": f"{(all_moved <= 1).mean():.2%}",
                "pairs with all within": f"{np.mean(inside):.0%}",
                "change / error bar, median": f"{np.median(all_moved):.3f}",
                "largest": f"{all_moved.max():.2f}",
                "correlation, lowest": f"{min(same[dtype]):.5f}",
                "time / float32": f"{np.median(seconds[dtype]) / whole:.2f}",
            }
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=34)
    parser.add_argument("--masks", type=int, nargs=2, default=[2048, 1024])
    options = parser.parse_args()
    every = read_coco(root() / "data/scenes")
    chosen = np.linspace(0, len(every) - 1, options.pairs).astype(int)
    examples = [every[i] for i in chosen]
    write("precision", [row for m in MODELS for row in compare(m, examples, options.masks)])


if __name__ == "__main__":
    main()

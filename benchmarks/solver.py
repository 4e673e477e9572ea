"""Solver time and memory: the split fit against the dense joint fit of the same sweeps.

    python benchmarks/solver.py            49 + 12 players, 2**15 .. 2**19 game values
    python benchmarks/solver.py --largest  256 + 64 players, 4,096 + 1,024 masks, width 1,024

Every fit runs in a process of its own. Memory is the process's peak over what it held before.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch
from machine import apart, peak_memory, write

from fixlip.sampler import draw, split_budget, sweep
from fixlip.solver import solve, solve_dense


class Smooth:
    """A stand-in for an encoder: a smooth function of the mask, as wide as a ViT-B's embedding."""

    def __init__(self, n: int, width: int, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.n, self.names = n, tuple(map(str, range(n)))
        self.inner = torch.randn(n, 64, generator=rng) / n**0.5
        self.outer = torch.randn(64, width, generator=rng) / 8

    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        return torch.tanh(masks.float() @ self.inner + 0.3) @ self.outer


def one(how: str, sampling: str, players: list[int], masks: list[int], width: int) -> dict:
    """Fit once in this process; report seconds, peak memory and a digest of the result."""
    swept = [
        sweep(Smooth(n, width, seed), masks=draw(n, m, seed=seed, sampling=sampling))
        for seed, (n, m) in enumerate(zip(players, masks, strict=True))
    ]
    before = peak_memory(torch.device("cpu"))
    start = time.perf_counter()
    if how == "dense":
        explanation = solve_dense(*swept)
    else:
        alike = {"ridge": 0, "errors": False} if how == "split" else {}  # as the dense fit
        explanation = solve(*swept, **alike)
    seconds = time.perf_counter() - start
    peak = peak_memory(torch.device("cpu")) - before
    cross = explanation.cross  # determined at every budget, which pairs within a side are not
    probe = np.random.default_rng(0).normal(size=cross.shape)
    return {
        "seconds": seconds,
        "mebibytes": peak / 2**20,
        "digest": float((probe * cross).sum() / np.abs(probe * cross).sum()),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--largest", action="store_true", help="256 + 64 players, no filter")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*json.loads(options.one))))
        return
    if options.largest:
        rows = []
        for sampling in ("antithetic", "independent"):
            result = apart(__file__, "default", sampling, [256, 64], [4096, 1024], 1024)
            row = {"players": "256 + 64", "masks": f"4096 + 1024, {sampling}", "width": 1024}
            row |= {"terms": 1 + 320 * 321 // 2, "seconds": f"{result['seconds']:.1f}"}
            rows.append(row | {"MiB": f"{result['mebibytes']:.0f}"})
        write("solver-largest", rows)
        return
    rows = []
    for power in range(15, 20):
        masks = split_budget(49, 12, 2**power)
        split, dense = (
            apart(__file__, how, "independent", [49, 12], list(masks), 512)
            for how in ("split", "dense")
        )
        rows.append(
            {
                "values": f"2^{power}",
                "masks": f"{masks[0]} x {masks[1]}",
                "split, s": f"{split['seconds']:.2f}",
                "dense, s": f"{dense['seconds']:.1f}",
                "times faster": f"{dense['seconds'] / split['seconds']:.0f}",
                "split, MiB": f"{split['mebibytes']:.0f}",
                "dense, MiB": f"{dense['mebibytes']:.0f}",
                "times smaller": f"{dense['mebibytes'] / max(split['mebibytes'], 1):.0f}",
                "difference": f"{abs(split['digest'] - dense['digest']):.0e}",
            }
        )
        print(rows[-1], file=sys.stderr)
    write("solver", rows)


if __name__ == "__main__":
    main()

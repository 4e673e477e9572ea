"""How solving time and memory grow with players, masks and width, one at a time, as slopes.

    python benchmarks/growth.py

From 49 + 12 players, 1,024 + 512 masks and width 512 one of n_I, n_T, m and D doubles at a time (m
on both sides). Sweeps are made up: solving does not look at what embeddings mean. Every fit runs in
a process of its own, errors included, five times; seconds and memory are the medians. The figure
has logarithmic axes, and "power" is the exponent of time between the last two points.
Writes benchmarks/results/growth.json and .png.
"""

import argparse
import sys
from functools import cache
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from machine import RESULTS, apart, write
from matplotlib.ticker import LogLocator, NullFormatter

SOLVER = str(Path(__file__).with_name("solver.py"))
REPEATS = 5
BASE = {"n_I": 49, "n_T": 12, "m": 1024, "D": 512}
STEPS = {
    "n_I": (49, 98, 196, 392),
    "n_T": (12, 24, 48, 96),
    "m": (512, 1024, 2048, 4096, 8192),
    "D": (256, 512, 1024, 2048),
}


@cache
def measure(n_I: int, n_T: int, m: int, D: int) -> tuple[float, float]:
    """Median seconds and MiB of one size."""
    players, masks = [n_I, n_T], [m, m // 2]
    runs = [apart(SOLVER, "default", "antithetic", players, masks, D) for _ in range(REPEATS)]
    found = tuple(median(run[k] for run in runs) for k in ("seconds", "mebibytes"))
    print(players, masks, D, *found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows, lines = [], {}
    for what, values in STEPS.items():
        lines[what] = [(value, *measure(**BASE | {what: value})) for value in values]
        x, seconds, memory = np.array(lines[what]).T
        power = np.log(seconds[-1] / seconds[-2]) / np.log(x[-1] / x[-2])
        rows.append(
            {
                "grows": what,
                "values": ", ".join(f"{v:g}" for v in x),
                "seconds": ", ".join(f"{s:.2f}" for s in seconds),
                "MiB": ", ".join(f"{s:.0f}" for s in memory),
                "power": f"{power:.1f}",
            }
        )
    write("growth", rows)
    fig, axs = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for what, line in lines.items():
        x, *heights = np.array(line).T
        for ax, height in zip(axs, heights, strict=True):
            ax.loglog(x / BASE[what], np.maximum(height, 1e-3), "o-", label=f"${what}$")
    for ax, label in zip(axs, ("seconds", "MiB beyond the sweeps"), strict=True):
        ax.set_xscale("log", base=2)
        ax.set(xlabel="times 49 + 12 players, 1024 + 512 masks, width 512", ylabel=label)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        ax.grid(alpha=0.3)
        ax.legend()
    fig.savefig(RESULTS / "growth.png", dpi=144)


if __name__ == "__main__":
    main()

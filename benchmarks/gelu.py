"""What the approximation of GELU changes in SigLIP's games: open_clip's towers against tanh GELU.

    python benchmarks/gelu.py [NAME ...] [--masks 256]

open_clip and timm build some of SigLIP's towers with exact GELU; transformers builds all of them
with its tanh approximation, which the published experiments ran. The same random weights and the
same joint masks of one scene are valued under both; changes are relative to the range of values.
"""

import argparse

import numpy as np
import torch
from machine import write
from towers import load

import fixlip
from fixlip.paths import root
from fixlip.sampler import bernoulli, side_seeds

MODELS = ("ViT-B-16-SigLIP", "ViT-B-16-SigLIP2")
SCENE = "data/scenes/val/000000000209.png"
CAPTION = "a blue heart left of a red arrow"


def gelus(tower: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules of a tower that compute GELU."""
    return [m for m in tower.modules() if type(m).__name__.startswith("GELU")]


def kind(modules: list[torch.nn.Module]) -> str:
    """Which GELU they compute: "exact", "tanh", or both."""
    tanh = {getattr(m, "approximate", "tanh") == "tanh" for m in modules}
    return " and ".join(
        name for name, is_tanh in (("exact", False), ("tanh", True)) if is_tanh in tanh
    )


def compare(name: str, count: int) -> dict:
    """Value the same masks under open_clip's activations and under tanh GELU everywhere."""
    encoder = load(name, None, "float32")
    sides = encoder.image(root() / SCENE), encoder.text(CAPTION)
    masks = torch.cat(
        [bernoulli(s.n, count, seed=k).masks for s, k in zip(sides, side_seeds(0), strict=True)], 1
    )
    game = fixlip.Game(*sides)
    built = np.asarray(game(masks))
    towers = {"image": gelus(encoder.model.visual), "text": gelus(encoder.model.text)}
    row = {"model": name} | {f"{side} tower": kind(found) for side, found in towers.items()}
    for module in (m for found in towers.values() for m in found if hasattr(m, "approximate")):
        module.approximate = "tanh"
    change = np.abs(np.asarray(game(masks)) - built) / np.ptp(built)
    return row | {
        "masks": count,
        "largest change / range": f"{change.max():.1e}",
        "mean change / range": f"{change.mean():.1e}",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=MODELS)
    parser.add_argument("--masks", type=int, default=256)
    options = parser.parse_args()
    write("gelu", [compare(name, options.masks) for name in options.names or MODELS])


if __name__ == "__main__":
    main()

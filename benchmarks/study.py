"""Where a study's time goes: encoders, solver, metrics, and the study's own keeping of results.

    python benchmarks/study.py [--pairs 1000] [--slice 3]

Every pair has 49 patches and 12 tokens: both sides are swept, FIxLIP-0.5 is solved without error
bars and judged on fresh masks. Three pairs with ViT-B-32 and the full budget (2,048 and 1,024
masks, 1,000 fresh ones) say what a pair takes inside and outside the encoders; a thousand pairs
with a small encoder and an eighth of the masks, from the first to the last, say what keeping the
results takes. Random weights take as long as trained ones. Seconds inside a pair are those of the
median pair times the number of pairs, which a machine that stalls for a while disturbs least.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from machine import write
from PIL import Image

import fixlip
from fixlip import Encoder, Game
from fixlip.metrics.faithfulness import faithfulness
from fixlip.sampler import side_seeds
from fixlip.studies import study
from fixlip.studies.fingerprints import fingerprint

WORDS = "a black dog next to yellow car on the green street with red ball".split()
SMALL = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 56, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {"vocab_size": 49408, "context_length": 77, "width": 32, "heads": 2, "layers": 1},
}


ONCE = "hashing the weights, once"
WALL = "the whole call, by the clock"
AGAIN = "the same call again"


class Clock:
    """Wall seconds by part; time spent in a part inside another one counts for the inner."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.parts: list[str] = []
        self.last = time.perf_counter()

    def __call__(self, part: str, run: Callable, *arguments: object, **options: object) -> object:
        """Run something, and count its time as a part."""
        self.count()
        self.parts.append(part)
        try:
            return run(*arguments, **options)
        finally:
            self.count()
            self.parts.pop()

    def count(self) -> None:
        """Give the time since the last count to the part that is running."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.parts:
            self.seconds[self.parts[-1]] = self.seconds.get(self.parts[-1], 0) + now - self.last
        self.last = now


def measure(item: dict, *, encoder: Encoder, masks: tuple[int, int], count: int) -> dict:
    """Explain one pair and judge the explanation; the row says where the time went."""
    clock = Clock()
    sides = [
        clock("reading", encoder.image, item["image"]),
        clock("reading", encoder.text, item["caption"]),
    ]
    if (sides[0].n, sides[1].n) != (49, 12):
        raise ValueError(f"49 + 12 players are wanted, got {sides[0].n} + {sides[1].n}")
    for side in sides:
        side.embed = lambda z, embed=side.embed: clock("encoders", embed, z)
    swept = [
        clock("sampling", fixlip.sweep, side, masks=m, seed=seed)
        for side, m, seed in zip(sides, masks, side_seeds(item["seed"]), strict=True)
    ]
    explanation = clock("solver", fixlip.solve, *swept, errors=False)
    found = clock(
        "metrics",
        faithfulness,
        {"FIxLIP": explanation},
        Game(*sides),
        distributions=[0.5],
        count=count,
        seed=item["seed"],
    )
    return clock.seconds | {"r2": found["r2"].item()}


def pairs(count: int, folder: Path) -> list[dict]:
    """Noise on disk, and captions of twelve tokens."""
    items = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        path = folder / f"{seed:04}.png"
        Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)).resize((224, 224)).save(
            path
        )
        caption = " ".join(rng.permutation(WORDS)[:12])
        items.append({"seed": seed, "image": path, "caption": caption})
    return items


def small_encoder() -> Encoder:
    """One layer of width 32 over 7 x 7 patches, with CLIP's tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**SMALL)
    look = {"size": 56, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    open_clip.model.set_model_preprocess_cfg(model, look)
    return Encoder(model, open_clip.get_tokenizer("ViT-B-32"), name="small")


def timed(items: list[dict], encoder: Encoder, folder: Path, part: int = 1) -> dict[str, float]:
    """Seconds a pair by part (its median), and of the whole, with a part of the full budget."""
    start = time.perf_counter()
    fingerprint(encoder)
    hashing = time.perf_counter() - start
    constants = {"encoder": encoder, "masks": (2048 // part, 1024 // part), "count": 1000 // part}
    start = time.perf_counter()
    done = study(measure, items, folder=folder, constants=constants)
    wall = time.perf_counter() - start
    if len(done.failures):
        raise RuntimeError(done.failures.iloc[0].error)
    start = time.perf_counter()
    if study(measure, items, folder=folder, constants=constants).computed:
        raise RuntimeError("the same call again computed something")
    again = time.perf_counter() - start
    inside = done.table[["encoders", "solver", "metrics", "sampling", "reading"]]
    keeping = (wall - inside.to_numpy().sum()) / len(items)
    return {**inside.median(), "keeping": keeping, ONCE: hashing, WALL: wall, AGAIN: again}


def table(small: dict[str, float], large: dict[str, float], count: int) -> list[dict]:
    """Seconds of so many pairs; of the large encoder, projected from its few."""
    large = large | {"keeping": small["keeping"]}
    measured = {part: small.pop(part) for part in (WALL, AGAIN)}
    columns = [{p: x[p] * (1 if p == ONCE else count) for p in small} for x in (small, large)]
    for parts in columns:
        parts["outside the encoders"] = sum(parts.values()) - parts["encoders"]
        parts["all"] = parts["encoders"] + parts["outside the encoders"]
    rows = [
        {
            "part": part,
            "small encoder, s": f"{columns[0][part]:.1f}",
            "ViT-B-32, s": f"{columns[1][part]:.1f}",
            "ViT-B-32, %": f"{100 * columns[1][part] / columns[1]['all']:.2f}",
        }
        for part in columns[0]
    ]
    empty = dict.fromkeys(rows[0], "")
    return rows + [empty | {"part": p, "small encoder, s": f"{s:.1f}"} for p, s in measured.items()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--slice", type=int, default=3, help="pairs with ViT-B-32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = pairs(options.pairs, folder)
        small = timed(items, small_encoder(), folder / "small", part=8)
        encoder = fixlip.load("ViT-B-32", pretrained="random")
        large = timed(items[: options.slice], encoder, folder / "large")
    write("study", table(small, large, options.pairs))


if __name__ == "__main__":
    main()

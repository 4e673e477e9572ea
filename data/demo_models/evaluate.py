"""Measure a demo model on held-out scenes: `python data/demo_models/evaluate.py demo-clip`.

Every measure is an accuracy against exact truth, with its binomial standard error. The scenes are
drawn from seeds that no training run uses.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from generate import edit_attributes, relations, sample_scene, swap_colours

import fixlip
from fixlip.demo.grammar import INVERSE, Caption
from fixlip.demo.scenes import COMBINATIONS, HELD_OUT, Scene, is_true

MODELS = Path(__file__).parents[2] / "fixlip" / "demo" / "models"
EVALUATION_SEED = 10**9  # training runs use their own, small, seed


@dataclass(frozen=True)
class Measure:
    """An accuracy over `count` independent scenes."""

    name: str
    correct: int
    count: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.count

    @property
    def stderr(self) -> float:
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.count)


@torch.no_grad()
def embed_scenes(
    encoder: fixlip.Encoder, scenes: Sequence[Scene], *, masks: torch.Tensor | None = None
) -> torch.Tensor:
    """Embeddings (B, D); of each scene's patches only those in its row of `masks` (B, n) stay."""
    sides = [encoder.image(scene.image()) for scene in scenes]
    if masks is not None:
        return torch.cat([side.embed(row[None]) for side, row in zip(sides, masks, strict=True)])
    pixels = torch.cat([side.pixels for side in sides])  # (B, 3, 48, 48)
    encode = encoder.model.encode_image
    return torch.cat([encode(part, normalize=True) for part in pixels.split(256)])


@torch.no_grad()
def embed_captions(encoder: fixlip.Encoder, captions: Sequence[Caption]) -> torch.Tensor:
    """Embeddings (C, D)."""
    unique = list(dict.fromkeys(map(str, captions)))
    ids = encoder.tokenizer(unique)  # (unique, L)
    encode = encoder.model.encode_text
    embeddings = torch.cat([encode(part, normalize=True) for part in ids.split(512)])
    index = {text: i for i, text in enumerate(unique)}
    return embeddings[[index[str(caption)] for caption in captions]]


def evaluate(folder: str | Path, *, scenes: int = 1000) -> list[Measure]:
    """All measures of one model.

    Parameters
    ----------
    folder : str or Path
        A demo model's name (``demo-clip``) or an open_clip ``local-dir:`` folder.
    scenes : int
        Scenes per measure (a quarter of it for the retrieval among 64 captions).

    Returns
    -------
    list of Measure
    """
    folder = MODELS / folder if (MODELS / folder).is_dir() else Path(folder)
    encoder = fixlip.load(f"local-dir:{folder}", device="cpu")
    embed_images, embed_texts = partial(embed_scenes, encoder), partial(embed_captions, encoder)
    measures = []

    def measure(name: str, right: torch.Tensor) -> None:
        measures.append(Measure(name, int(right.sum()), len(right)))

    def draw(stream: int, number: int, **options) -> list[Scene]:
        rng = np.random.default_rng([EVALUATION_SEED, stream])
        return [sample_scene(rng, **options) for _ in range(number)]

    classes = embed_texts([Caption((combination,)) for combination in COMBINATIONS])  # (80, D)

    def zero_shot(images: torch.Tensor, drawn: list[Scene]) -> torch.Tensor:
        truth = [COMBINATIONS.index((s.things[0].colour, s.things[0].shape)) for s in drawn]
        return (images @ classes.T).argmax(dim=1) == torch.tensor(truth)

    drawn = draw(0, scenes, count=1)
    measure("zero-shot, 80 classes", zero_shot(embed_images(drawn), drawn))
    rng = np.random.default_rng([EVALUATION_SEED, 1])
    n = encoder.image(drawn[0].image()).n
    order = rng.random((scenes, n)).argsort(axis=1)
    masks = torch.from_numpy(order < n // 2)
    measure(
        "zero-shot, half of the patches masked", zero_shot(embed_images(drawn, masks=masks), drawn)
    )
    drawn = draw(2, scenes, count=1, combinations=HELD_OUT)
    measure("zero-shot, held-out combinations", zero_shot(embed_images(drawn), drawn))

    drawn = draw(3, scenes // 4, count=2)
    own = [_full_caption(scene) for scene in drawn]
    images = embed_images(drawn)
    rng = np.random.default_rng([EVALUATION_SEED, 4])
    for name, choices in (
        ("retrieval among 64 random captions", [_random_captions(rng, s, 63) for s in drawn]),
        ("retrieval among 64 hard captions", [_hard_captions(rng, s, 63) for s in drawn]),
    ):
        texts = [c for mine, others in zip(own, choices, strict=True) for c in (mine, *others)]
        embeddings = embed_texts(texts).view(len(drawn), 64, -1)  # (B, 64, D)
        scores = torch.einsum("bd,bcd->bc", images, embeddings)
        measure(name, scores.argmax(dim=1) == 0)

    def preferred(drawn: list[Scene], true: list[Caption], false: list[Caption]) -> torch.Tensor:
        images = embed_images(drawn)  # (B, D)
        true, false = embed_texts(true), embed_texts(false)  # (B, D) each
        return ((true - false) * images).sum(dim=1) > 0

    for stream, (name, options) in enumerate(
        (
            ("colour swap, two objects", {"count": 2}),
            ("colour swap, mosaic of four", {"layout": "mosaic"}),
            ("colour swap, two objects, held-out combinations allowed", {"count": 2}),
        ),
        start=5,
    ):
        if "held-out" in name:
            options = options | {"combinations": COMBINATIONS}
        rng = np.random.default_rng([EVALUATION_SEED, stream])
        cases = []
        while len(cases) < scenes:
            scene = sample_scene(rng, **options)
            if "held-out" in name and not any(
                (t.colour, t.shape) in HELD_OUT for t in scene.things
            ):
                continue
            caption = _full_caption(scene)
            swaps = [swap for swap in swap_colours(caption) if not is_true(swap, scene)]
            if swaps:
                cases.append((scene, caption, swaps[rng.integers(len(swaps))]))
        measure(name.removesuffix(" allowed"), preferred(*map(list, zip(*cases, strict=True))))

    for stream, (name, options) in enumerate(
        (
            ("relation swap, two objects", {"count": 2}),
            ("relation swap, mosaic of four", {"layout": "mosaic"}),
        ),
        start=8,
    ):
        rng = np.random.default_rng([EVALUATION_SEED, stream])
        cases = []
        while len(cases) < scenes:
            scene = sample_scene(rng, **options)
            true = relations(scene)
            if true:
                caption = true[rng.integers(len(true))]
                cases.append((scene, caption, replace(caption, relation=INVERSE[caption.relation])))
        measure(name, preferred(*map(list, zip(*cases, strict=True))))
    return measures


def _full_caption(scene: Scene) -> Caption:
    return Caption(tuple((t.colour, t.shape) for t in scene.things))


def _random_captions(rng: np.random.Generator, scene: Scene, count: int) -> list[Caption]:
    """`count` different captions of other two-object scenes, false of this one."""
    captions: dict[Caption, None] = {}
    while len(captions) < count:
        caption = _full_caption(sample_scene(rng, count=2))
        if not is_true(caption, scene):
            captions[caption] = None
    return list(captions)


def _hard_captions(rng: np.random.Generator, scene: Scene, count: int) -> list[Caption]:
    """The colour swap, every single-attribute edit, then random double edits; all false."""
    caption = _full_caption(scene)
    edits = edit_attributes(caption)
    double = [twice for once in edits for twice in edit_attributes(once)]
    rng.shuffle(double)
    false = (c for c in (*swap_colours(caption), *edits, *double) if not is_true(c, scene))
    return list(dict.fromkeys(false))[:count]


def table(measures: Sequence[Measure]) -> str:
    """The measures as a plain text table."""
    lines = [f"{m.name:<55} {m.accuracy:.4f} +- {m.stderr:.4f}  (n = {m.count})" for m in measures]
    return "\n".join(lines)


def main() -> None:
    """Command line: print the table and write it as evaluation.json into the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a demo model's name or an open_clip local-dir folder")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes per measure")
    options = parser.parse_args()
    measures = evaluate(options.model, scenes=options.scenes)
    print(table(measures))
    folder = MODELS / options.model if (MODELS / options.model).is_dir() else Path(options.model)
    entries = {
        m.name: {"accuracy": round(m.accuracy, 4), "stderr": round(m.stderr, 4), "count": m.count}
        for m in measures
    }
    (folder / "evaluation.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Measure a demo model on held-out scenes: `python data/world/evaluate.py FOLDER`.

Every measure is a mean over scenes with its standard error, against exact truth. The scenes are
drawn from seeds that no training run uses. `--write` keeps the measures beside the weights, as
evaluation.json, of which `card.py` makes a model card.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from batches import NAMES

import fixlip
from fixlip.demo.concepts import CONCEPTS
from fixlip.demo.phrases import COUNTS, INVERSE, Caption, Phrase
from fixlip.demo.pictograms import HELD_OUT_STYLE, STYLES
from fixlip.demo.sampling import sample_scene
from fixlip.demo.world import Scene
from fixlip.files import atomic, user_path

SEED = 10**9  # training runs use their own, small, seed
OPENMOJI = Path(__file__).parents[1] / "openmoji"


@dataclass(frozen=True)
class Measure:
    """A mean over ``count`` scenes (or things in them) and its standard error.

    The aim is met by a mean that is as good or better: larger, or smaller where ``most``.
    """

    name: str
    value: float
    stderr: float
    count: int
    aim: float | None = None
    most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.most else self.value >= self.aim

    @property
    def goal(self) -> str:
        """The aim in words, "" without one."""
        return "" if self.aim is None else f"{'at most ' * self.most}{self.aim:g}"


class Evaluation:
    """The measures of one model, on `scenes` scenes each."""

    def __init__(self, folder: Path, scenes: int) -> None:
        self.encoder = fixlip.load(folder, device="cpu")
        self.scenes, self.measures = scenes, []
        self.concepts: dict[str, float] = {}  # the zero-shot accuracy of each
        self.canvas = self.encoder.image(np.zeros((112, 112, 3), np.uint8)).picture.shape[0]

    def draw(self, stream: int, count: int | None = None, **options) -> list[Scene]:
        options = {"things": options.pop("things", 1), "canvas": self.canvas} | options
        return [sample_scene([SEED, stream, k], **options) for k in range(count or self.scenes)]

    def add(
        self,
        name: str,
        values: Sequence[float] | np.ndarray,
        aim: float | None = None,
        *,
        most: bool = False,
    ) -> None:
        """Add the mean of values, one per scene (whether it is right, or a share)."""
        values = np.asarray(values, float)
        stderr = values.std(ddof=1) / math.sqrt(len(values))
        measure = Measure(name, float(values.mean()), float(stderr), len(values), aim, most)
        self.measures.append(measure)
        print(line(measure), flush=True)

    @torch.no_grad()
    def images(self, scenes: Sequence[Scene], masks: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings (B, D); of each scene's patches only those in its row of masks (B, n) stay."""
        sides = [self.encoder.image(scene.image) for scene in scenes]
        if masks is not None:
            rows = zip(sides, masks, strict=True)
            return torch.cat([side.embed(row[None]) for side, row in rows])
        pixels = torch.cat([side.pixels for side in sides])
        encode = self.encoder.model.encode_image
        return torch.cat([encode(part, normalize=True) for part in pixels.split(128)])

    @torch.no_grad()
    def texts(self, captions: Sequence[Caption | str]) -> torch.Tensor:
        """Embeddings (C, D)."""
        unique = list(dict.fromkeys(map(str, captions)))
        ids = self.encoder.tokenizer(unique)
        encode = self.encoder.model.encode_text
        found = torch.cat([encode(part, normalize=True) for part in ids.split(512)])
        index = {text: i for i, text in enumerate(unique)}
        return found[[index[str(caption)] for caption in captions]]

    def preferred(
        self, scenes: Sequence[Scene], true: Sequence[Caption], false: Sequence[Caption]
    ) -> np.ndarray:
        gap = self.texts(true) - self.texts(false)
        return ((gap * self.images(scenes)).sum(1) > 0).numpy()


def full(scene: Scene) -> Caption:
    """A caption that names every concept of a scene, from the back to the front."""
    return Caption(tuple(map(Phrase, dict.fromkeys(thing.name for thing in scene.things))))


def zero_shot(e: Evaluation) -> None:
    """Which of all concepts a single thing is."""
    classes = e.texts([Caption((Phrase(name),)) for name in NAMES])  # (254, D)

    def right(scenes: list[Scene], images: torch.Tensor) -> np.ndarray:
        truth = torch.tensor([NAMES.index(scene.things[0].name) for scene in scenes])
        return ((images @ classes.T).argmax(1) == truth).numpy()

    repeats = max(1, 2 * e.scenes // len(NAMES))  # scenes of each concept
    scenes = [
        sample_scene([SEED, 0, k], things=[name], canvas=e.canvas)
        for k, name in enumerate(NAMES * repeats)
    ]
    found = right(scenes, e.images(scenes))
    e.concepts = dict(zip(NAMES, found.reshape(repeats, -1).mean(0).tolist(), strict=True))
    e.add("zero-shot among 254 things, training styles", found, 0.98)
    for style in STYLES:
        mine = [scene.things[0].style == style for scene in scenes]
        e.add(f"zero-shot, {style}", found[mine])
    n = e.encoder.image(scenes[0].image).n
    some = np.random.default_rng([SEED, 13]).permutation(len(scenes))[: e.scenes]
    scenes = [scenes[k] for k in some]
    order = np.random.default_rng([SEED, 1]).random((len(scenes), n)).argsort(1)
    masks = torch.from_numpy(order < n // 2)
    e.add("zero-shot, half of the patches hidden", right(scenes, e.images(scenes, masks)), 0.88)
    for name, style, aim in (
        ("EmojiTwo", HELD_OUT_STYLE, 0.60),
        ("OpenMoji", OPENMOJI, None),
    ):
        scenes = e.draw(2, styles=(style,))
        e.add(f"zero-shot, {name} (never seen)", right(scenes, e.images(scenes)), aim)


def retrieval(e: Evaluation) -> None:
    """The caption among 64, for scenes of four things."""
    scenes = [s for s in e.draw(3, 2 * e.scenes, things=4) if len(full(s).phrases) == 4]
    scenes = scenes[: e.scenes]
    images = e.images(scenes)
    rng = np.random.default_rng([SEED, 4])

    def replaced(scene: Scene) -> Caption:
        caption = full(scene)
        k, names = rng.integers(4), {thing.name for thing in scene.things}
        name = rng.choice([name for name in NAMES if name not in names])
        return Caption((*caption.phrases[:k], Phrase(str(name)), *caption.phrases[k + 1 :]))

    def other(scene: Scene) -> Caption:
        names = rng.choice(NAMES, 4, replace=False)
        return Caption(tuple(Phrase(str(name)) for name in names))

    for name, make, aim in (
        ("retrieval among 64 random captions, four things", other, None),
        ("retrieval among 64 hard captions, four things", replaced, 0.92),
    ):
        captions = [c for s in scenes for c in (full(s), *(make(s) for _ in range(63)))]
        texts = e.texts(captions).view(len(scenes), 64, -1)
        e.add(name, ((images[:, None] * texts).sum(2).argmax(1) == 0).numpy(), aim)


def swaps(e: Evaluation) -> None:
    """The true caption against one that differs in one respect."""
    rng = np.random.default_rng([SEED, 5])
    cases: dict[str, list] = {"relation": [], "count": [], "replacement": []}
    k = 0
    while min(map(len, cases.values())) < e.scenes:
        k += 1
        scene = sample_scene([SEED, 6, k], canvas=e.canvas, things=int(rng.integers(1, 5)))
        names = list(dict.fromkeys(thing.name for thing in scene.things))
        caption = full(scene)
        other = str(rng.choice([name for name in NAMES if name not in names]))
        swapped = Caption((Phrase(other), *caption.phrases[1:]))
        cases["replacement"].append((scene, caption, swapped))
        if len(names) > 1:
            pair = (Phrase(names[0]), Phrase(names[1]))
            for relation in rng.permutation(list(INVERSE)):
                true = Caption(pair, str(relation))
                false = replace(true, relation=INVERSE[str(relation)])
                if scene.is_true(true) and not scene.is_true(false):
                    cases["relation"].append((scene, true, false))
                    break
        number = sum(thing.name == names[0] for thing in scene.things)
        if number > 1 and CONCEPTS[names[0]].plural is not None:
            wrong = int(rng.choice([c for c in COUNTS.values() if c != number]))
            true, false = (Caption((Phrase(names[0], c),)) for c in (number, wrong))
            cases["count"].append((scene, true, false))
    for name, aim in (("replacement", 0.98), ("relation", 0.90), ("count", None)):
        e.add(f"{name} swap", e.preferred(*zip(*cases[name][: e.scenes], strict=True)), aim)


def unseen_pairs(e: Evaluation) -> None:
    """Two things, and which two of all things they are."""
    classes = e.texts([Caption((Phrase(name),)) for name in NAMES])
    scenes = [s for s in e.draw(7, things=2) if len(full(s).phrases) == 2]
    top = (e.images(scenes) @ classes.T).topk(2, dim=1).indices
    truth = [{NAMES.index(thing.name) for thing in scene.things} for scene in scenes]
    found = [set(row.tolist()) == true for row, true in zip(top, truth, strict=True)]
    e.add("both of two things are the top two of 254", found)


@torch.no_grad()
def monotony(e: Evaluation) -> None:
    """How often less scores more: scenes of one to four things with a full caption."""
    rng = np.random.default_rng([SEED, 8])
    above: dict[str, list] = {}
    share = []
    for scene in e.draw(9, things=None):
        image, text = e.encoder.image(scene.image), e.encoder.text(str(full(scene)))
        own = text.embed(np.ones((1, text.n), bool))[0]  # (D,)
        whole = image.embed(np.ones((1, image.n), bool))[0]
        score = float(whole @ own)
        for name, side, other, half in (
            ("words", text, whole, text.n // 2),
            ("patches", image, own, image.n // 2),
        ):
            masks = np.zeros((2, side.n), bool)
            masks[1, rng.permutation(side.n)[:half]] = True
            empty, part = (side.embed(masks) @ other).tolist()
            above.setdefault(f"no {name}", []).append(empty > score)
            above.setdefault(f"a random half of the {name}", []).append(part > score)
        m = min(256, 2**text.n)
        bits = rng.permutation(2**text.n)[:m] if text.n <= 12 else rng.integers(2**text.n, size=m)
        masks = (bits[:, None] >> np.arange(text.n) & 1).astype(bool)
        share.append(float(((text.embed(masks) @ whole) > score + 1e-6).float().mean()))
    aims = {"no words": 0.005, "a random half of the words": 0.03}
    aims |= {"no patches": 0.01, "a random half of the patches": 0.10}
    for name, found in above.items():
        e.add(f"{name} above everything", found, aims[name], most=True)
    e.add("share of sub-captions above the full one", share, 0.03, most=True)


def places(e: Evaluation) -> None:
    """The positive interactions of each thing's name that lie inside its box."""
    for count, aim in zip((1, 2, 3, 4), (0.95, 0.92, 0.88, 0.85), strict=True):
        found, top = [], []
        scenes = [s for s in e.draw(10 + count, 60, things=count) if len(full(s).phrases) == count]
        for scene in scenes[:24]:
            caption = str(full(scene))
            explained = fixlip.explain(
                e.encoder, scene.image, caption, masks=1024, text_players="words", progress=False
            )
            rows, columns = explained.info["image"]["grid"]
            for thing in scene.things:
                words = [w for w in thing.name.split() if w in explained.players]
                cross = explained.on_grid(explained.given(words)).clip(min=0)
                cell = e.canvas / rows
                left, upper, right, lower = (v / cell for v in thing.box)
                y, x = np.mgrid[:rows, :columns] + 0.5
                inside = (
                    (x > left - 0.5) & (x < right + 0.5) & (y > upper - 0.5) & (y < lower + 0.5)
                )
                found.append(float(cross[inside].sum() / cross.sum()) if cross.any() else 0.0)
                top.append(bool(inside.ravel()[cross.argmax()]))
        things = "one thing" if count == 1 else f"{count} things"
        e.add(f"mass inside the named thing's box, {things}", found, aim)
        e.add(f"largest patch inside the box, {things}", top)


PARTS: dict[str, Callable[[Evaluation], None]] = {
    "zero-shot": zero_shot,
    "retrieval": retrieval,
    "swaps": swaps,
    "pairs": unseen_pairs,
    "monotony": monotony,
    "places": places,
}


def line(measure: Measure) -> str:
    """A measure as a line of plain text."""
    text = f"{measure.name:<52} {measure.value:.4f} ± {measure.stderr:.4f} (n = {measure.count})"
    if measure.aim is None:
        return text
    return f"{text}  aim: {measure.goal}{'' if measure.met else ', no'}"


def main() -> None:
    """Command line: print the table and write it as evaluation.json into the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=user_path, help="an open_clip local-dir folder")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes per measure")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--write", action="store_true", help="write evaluation.json")
    options = parser.parse_args()
    evaluation = Evaluation(options.folder, options.scenes)
    for name in options.only:
        PARTS[name](evaluation)
    found = evaluation.measures
    if options.write:
        rows = [
            asdict(m) | {"value": round(m.value, 4), "stderr": round(m.stderr, 4)} for m in found
        ]
        parts = {
            "measures": rows,
            "concepts": {k: round(v, 4) for k, v in evaluation.concepts.items()},
        }
        text = json.dumps(parts, indent=1) + "\n"
        with atomic(options.folder / "evaluation.json") as file:
            file.write(text.encode())


if __name__ == "__main__":
    main()

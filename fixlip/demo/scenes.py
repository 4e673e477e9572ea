"""Synthetic scenes of coloured shapes whose captions are exactly true or false; as COCO files.

A scene is a 48 x 48 image on a 6 x 6 grid of 8-pixel patches. Its one to four objects fill whole
patches (2x2, 3x3 or 4x4) and never overlap, so an attribution can be compared with the truth patch
by patch. `is_true` decides every caption of the grammar in `fixlip.demo.grammar`.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fixlip.demo.drawing import COLOURS, IMAGE_SIZE, SHAPES, alpha_mask, background
from fixlip.demo.grammar import INVERSE, Caption, parse_caption

PATCH_SIZE = 8  # pixels
GRID = IMAGE_SIZE // PATCH_SIZE  # patches per side

COMBINATIONS: tuple[tuple[str, str], ...] = tuple(itertools.product(COLOURS, SHAPES))
# One combination per colour that no training image and no training caption ever shows.
HELD_OUT: tuple[tuple[str, str], ...] = (
    *(("red", "moon"), ("green", "star"), ("blue", "arrow"), ("yellow", "heart")),
    *(("purple", "square"), ("orange", "triangle"), ("cyan", "cross"), ("white", "ring")),
)
SEEN: tuple[tuple[str, str], ...] = tuple(c for c in COMBINATIONS if c not in HELD_OUT)


@dataclass(frozen=True)
class Thing:
    """One object of a scene: a coloured shape that fills `size` x `size` patches of the grid."""

    colour: str
    shape: str
    row: int
    column: int
    size: int

    @property
    def name(self) -> str:
        """The object's full name, for instance ``red star``."""
        return f"{self.colour} {self.shape}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Pixel box of its patches: left, top, right, bottom (right and bottom excluded)."""
        left, top = self.column * PATCH_SIZE, self.row * PATCH_SIZE
        side = self.size * PATCH_SIZE
        return left, top, left + side, top + side

    @property
    def patches(self) -> np.ndarray:
        """(6, 6) bool: the patches it fills."""
        patches = np.zeros((GRID, GRID), dtype=bool)
        patches[self.row : self.row + self.size, self.column : self.column + self.size] = True
        return patches

    @property
    def mask(self) -> np.ndarray:
        """(48, 48) bool: the pixels that the shape covers by at least half."""
        left, top, right, bottom = self.box
        mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
        mask[top:bottom, left:right] = alpha_mask(self.shape, right - left) >= 0.5
        return mask

    def is_a(self, colour: str | None, shape: str) -> bool:
        """Whether the phrase `colour shape` (colour None: any) names this object."""
        return shape == self.shape and colour in (None, self.colour)


@dataclass(frozen=True)
class Scene:
    """Objects on a noisy grey background; `seed` fixes the background and the tints."""

    things: tuple[Thing, ...]
    seed: int

    def image(self) -> np.ndarray:
        """Render the scene.

        Returns an array, (48, 48, 3), uint8, RGB.
        """
        rng = np.random.default_rng(self.seed)
        image = background(rng)  # (48, 48, 3)
        for thing in self.things:
            left, top, right, bottom = thing.box
            alpha = alpha_mask(thing.shape, right - left)[..., None]  # (side, side, 1)
            tint = np.array(COLOURS[thing.colour]) + rng.uniform(-12, 12, size=3)
            image[top:bottom, left:right] += alpha * (tint - image[top:bottom, left:right])
        image += rng.normal(0, 5, size=image.shape).astype(np.float32)
        return image.clip(0, 255).astype(np.uint8)

    def recoloured(self, colours: Sequence[str], *, seed: int) -> "Scene":
        """The same layout with other colours (one per object) and another background."""
        things = tuple(replace(t, colour=c) for t, c in zip(self.things, colours, strict=True))
        return Scene(things, seed)


def holds(relation: str, first: Thing, second: Thing) -> bool:
    """Whether `first` is `relation` of `second`: their boxes are separated on that axis."""
    if relation in ("right of", "below"):
        return holds(INVERSE[relation], second, first)
    if relation == "left of":
        return first.column + first.size <= second.column
    if relation == "above":
        return first.row + first.size <= second.row
    raise ValueError(f"unknown relation {relation!r}: expected one of {list(INVERSE)}")


def is_true(caption: str | Caption, scene: Scene) -> bool:
    """Decide whether a caption is true of a scene.

    A conjunction is true when every phrase names some object of the scene; a relation is true when
    it holds between some two objects that the two phrases name.

    Raises ValueError if the text is not a caption of the grammar.

    Parameters
    ----------
    caption : str or Caption
        A caption of the grammar.
    scene : Scene

    Examples
    --------
    >>> scene = Scene((Thing("red", "star", 0, 0, 3), Thing("blue", "ring", 0, 3, 3)), seed=0)
    >>> is_true("a red star left of a blue ring", scene), is_true("a blue star", scene)
    (True, False)
    """
    caption = parse_caption(caption) if isinstance(caption, str) else caption
    if caption.relation is None:
        return all(any(t.is_a(*phrase) for t in scene.things) for phrase in caption.phrases)
    first, second = caption.phrases
    return any(
        a.is_a(*first) and b.is_a(*second) and holds(caption.relation, a, b)
        for a, b in itertools.permutations(scene.things, 2)
    )


def relations(scene: Scene) -> list[Caption]:
    """The relation captions that are unmistakably true of a scene.

    The boxes are separated on the relation's axis, and this axis is the dominant one: the centres
    are further apart on it than on the other.
    """
    captions = []
    for a, b in itertools.permutations(scene.things, 2):
        across = abs((2 * a.column + a.size) - (2 * b.column + b.size))
        down = abs((2 * a.row + a.size) - (2 * b.row + b.size))
        for relation in INVERSE:
            dominant = across > down if relation in ("left of", "right of") else down > across
            if dominant and holds(relation, a, b):
                captions.append(Caption(((a.colour, a.shape), (b.colour, b.shape)), relation))
    return captions


def sample_scene(
    rng: np.random.Generator,
    *,
    count: int | None = None,
    layout: str = "free",
    combinations: Sequence[tuple[str, str]] = SEEN,
) -> Scene:
    """Draw a scene whose objects all have different (colour, shape) combinations.

    Parameters
    ----------
    rng : np.random.Generator
    count : int, optional
        Number of objects, 1 to 4; drawn uniformly if not given. A mosaic always has 4.
    layout : {"free", "mosaic"}
        ``free``: sizes and places drawn at random; ``mosaic``: 2 x 2 cells of 3 x 3 patches with
        one object each, and four different shapes.
    combinations : sequence of (colour, shape)
        What may be drawn; by default everything but the held-out combinations.
    """
    if layout == "mosaic":
        count, places = 4, [(r, c, 3) for r in (0, 3) for c in (0, 3)]
    elif layout == "free":
        count = int(rng.integers(1, 5)) if count is None else count
        places = _places(rng, count)
    else:
        raise ValueError(f'layout must be "free" or "mosaic", got {layout!r}')
    while True:
        chosen = [combinations[i] for i in rng.choice(len(combinations), count, replace=False)]
        if layout == "free" or len({shape for _, shape in chosen}) == count:
            break
    things = tuple(Thing(*c, *place) for c, place in zip(chosen, places, strict=True))
    return Scene(things, seed=int(rng.integers(2**62)))


def _places(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    """(row, column, size) of `count` squares of patches that do not overlap, by rejection."""
    if not 1 <= count <= 4:
        raise ValueError(f"a scene has 1 to 4 objects, not {count}")
    largest = {1: 4, 2: 4, 3: 3, 4: 3}[count]
    while True:
        taken, places = np.zeros((GRID, GRID), dtype=bool), []
        sizes = np.sort(rng.integers(2, largest + 1, size=count))[::-1]
        tries = rng.integers(0, GRID + 1 - sizes, size=(8, 2, count))
        for i, size in enumerate(sizes.tolist()):
            for row, column in tries[:, :, i].tolist():
                patches = taken[row : row + size, column : column + size]
                if not patches.any():
                    patches[:] = True
                    places.append((row, column, size))
                    break
        if len(places) == count:
            rng.shuffle(places)
            return [tuple(place) for place in places]


def true_captions(scene: Scene) -> list[tuple[Caption, list[int]]]:
    """Captions of a scene for the pointing game, each with the indices of the objects it names.

    For k = 1, 2, ...: the first k objects as bare names ("star ring"; left out where two shapes are
    equal) and as phrases ("a red star and a blue ring"); then one relation, if one is unmistakable.
    """
    captions = []
    for k in range(1, len(scene.things) + 1):
        first = scene.things[:k]
        if len({t.shape for t in first}) == k:
            captions.append(
                (Caption(tuple((None, t.shape) for t in first), bare=True), [*range(k)])
            )
        captions.append((Caption(tuple((t.colour, t.shape) for t in first)), [*range(k)]))
    for caption in relations(scene)[:1]:
        names = [(t.colour, t.shape) for t in scene.things]
        captions.append((caption, [names.index(phrase) for phrase in caption.phrases]))
    return captions


def write_coco(folder: str | Path, scenes: Sequence[Scene]) -> None:
    """Write scenes as a data set in COCO's format.

    ``val/000000000001.png`` and so on, ``annotations/instances_val.json`` (categories are shapes;
    extra field `colour`) and ``annotations/captions_val.json`` (extra field `objects`: the instance
    annotations that the caption names, in its order). An image's extra field `scene` is what
    `read_scenes` rebuilds it from.
    """
    from pycocotools import mask as coco_mask

    folder = Path(folder)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "val").mkdir(exist_ok=True)
    images, instances, captions = [], [], []
    for image_id, scene in enumerate(scenes, start=1):
        name = f"{image_id:012d}.png"
        Image.fromarray(scene.image()).save(folder / "val" / name, optimize=True)
        images.append(
            {"id": image_id, "file_name": name, "width": IMAGE_SIZE, "height": IMAGE_SIZE}
            | {"scene": asdict(scene)}
        )
        first = len(instances) + 1
        for thing in scene.things:
            rle = coco_mask.encode(np.asfortranarray(thing.mask))
            instances.append(
                {
                    "id": len(instances) + 1,
                    "image_id": image_id,
                    "category_id": SHAPES.index(thing.shape) + 1,
                    "colour": thing.colour,
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "area": int(coco_mask.area(rle)),
                    "iscrowd": 0,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
        for caption, named in true_captions(scene):
            captions.append(
                {"id": len(captions) + 1, "image_id": image_id, "caption": str(caption)}
                | {"objects": [first + i for i in named]}
            )
    info = {"description": "fixlip scenes: coloured shapes with exactly known truth"}
    categories = [
        {"id": i, "name": shape, "supercategory": "shape"} for i, shape in enumerate(SHAPES, 1)
    ]
    common = {"info": info, "licenses": [], "images": images}
    for kind, content in (
        ("instances", {"categories": categories, "annotations": instances}),
        ("captions", {"annotations": captions}),
    ):
        text = json.dumps(common | content, separators=(",", ":"))
        (folder / "annotations" / f"{kind}_val.json").write_text(text + "\n")


def read_scenes(folder: str | Path) -> list[Scene]:
    """The scenes that `write_coco` wrote into `folder`, in the order of their image ids."""
    path = Path(folder) / "annotations" / "instances_val.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a folder written by write_coco")
    entries = [image["scene"] for image in json.loads(path.read_text())["images"]]
    return [Scene(tuple(Thing(**t) for t in e["things"]), e["seed"]) for e in entries]


def main() -> None:
    """Command line: write a data set of scenes of one to four objects, then mosaics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=2 * 10**9, help="not a training seed")
    parser.add_argument("--count", type=int, default=200, help="scenes of 1 to 4 objects")
    parser.add_argument("--mosaics", type=int, default=100, help="mosaics of 4 objects")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    scenes = [sample_scene(rng, count=(i + 1) % 4 + 1) for i in range(options.count)]
    scenes += [sample_scene(rng, layout="mosaic") for _ in range(options.mosaics)]
    write_coco(options.out, scenes)


if __name__ == "__main__":
    main()

"""Draws scenes, their true captions and edits of these; writes data sets in COCO's format.

python data/demo_models/generate.py --out data/scenes
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fixlip.demo.drawing import COLOURS, IMAGE_SIZE, SHAPES
from fixlip.demo.grammar import INVERSE, Caption
from fixlip.demo.scenes import GRID, SEEN, Scene, Thing, holds
from fixlip.files import user_path


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
    `fixlip.demo.scenes.read_scenes` rebuilds it from.
    """
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


def swap_colours(caption: Caption) -> list[Caption]:
    """Every caption that exchanges the colours of two phrases (equal colours: no swap)."""
    swaps = []
    for i, j in itertools.combinations(range(len(caption.phrases)), 2):
        phrases = list(caption.phrases)
        (first, shape_i), (second, shape_j) = phrases[i], phrases[j]
        if first != second and shape_i != shape_j:
            phrases[i], phrases[j] = (second, shape_i), (first, shape_j)
            swaps.append(replace(caption, phrases=tuple(phrases)))
    return swaps


def edit_attributes(caption: Caption) -> list[Caption]:
    """Every caption that differs in exactly one colour or one shape."""
    edits = []
    for i, (colour, shape) in enumerate(caption.phrases):
        others = [(c, shape) for c in COLOURS if colour and c != colour]
        others += [(colour, s) for s in SHAPES if s != shape]
        for phrase in others:
            phrases = (*caption.phrases[:i], phrase, *caption.phrases[i + 1 :])
            edits.append(replace(caption, phrases=phrases))
    return edits


def main() -> None:
    """Command line: write a data set of scenes of one to four objects, then mosaics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=user_path, required=True, help="folder to write")
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

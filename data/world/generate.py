"""Write scenes as a COCO-format set: `python data/world/generate.py data/world/scenes`.

Captions say which annotations they name, so that words and boxes belong together without a guess.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from fixlip.demo.concepts import CONCEPTS
from fixlip.demo.phrases import Caption
from fixlip.demo.sampling import sample_caption, sample_scene
from fixlip.demo.world import Scene, Thing
from fixlip.files import atomic, user_path

SEED = 2 * 10**9  # no run is trained or measured on these scenes
CAPTIONS = 5  # per picture, as COCO has them
SPLIT = "val"


def write_set(folder: Path, count: int, *, canvas: int = 112) -> None:
    """Write annotations/captions_val.json, annotations/instances_val.json and val/*.png.

    Picture k is the scene of the seed [SEED, k], with 1 to 4 things by turns.
    """
    images, captions, instances = [], [], []
    (folder / SPLIT).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    categories = {name: k for k, name in enumerate(CONCEPTS, start=1)}
    for k in range(count):
        scene = sample_scene([SEED, k], things=1 + k % 4, canvas=canvas)
        number, name = k + 1, f"{k + 1:012d}.png"
        with atomic(folder / SPLIT / name) as file:
            scene.image.save(file, format="PNG", optimize=True)
        images.append({"id": number, "file_name": name, "width": canvas, "height": canvas})
        first = len(instances) + 1
        for thing in scene.things:
            found = annotation(thing, len(instances) + 1, number, categories[thing.name])
            instances.append(found)
        for caption in captions_of(scene, np.random.default_rng([SEED, k, 1])):
            entry = {"id": len(captions) + 1, "image_id": number, "caption": str(caption)}
            if (places := named(caption, scene.things)) is not None:
                entry["objects"] = [first + place for place in places]
            captions.append(entry)
    listed = [
        {"id": k, "name": name, "supercategory": CONCEPTS[name].group}
        for name, k in categories.items()
    ]
    parts = {
        "captions": {"images": images, "annotations": captions},
        "instances": {"images": images, "annotations": instances, "categories": listed},
    }
    for kind, content in parts.items():
        lines = ",\n".join(
            f'"{key}": [\n' + ",\n".join(map(json.dumps, entries)) + "\n]"
            for key, entries in content.items()
        )
        with atomic(folder / "annotations" / f"{kind}_{SPLIT}.json") as file:
            file.write(f"{{{lines}}}\n".encode())


def annotation(thing: Thing, number: int, image: int, category: int) -> dict:
    """A thing's visible pixels as COCO writes them: run lengths, a box, an area."""
    encoded = coco_mask.encode(np.asfortranarray(thing.mask, dtype=np.uint8))
    left, top, right, bottom = thing.box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
        "area": int(thing.mask.sum()),
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
    }


def captions_of(scene: Scene, rng: np.random.Generator) -> list[Caption]:
    """Different true captions of a scene, CAPTIONS of them where there are so many."""
    found: dict[str, Caption] = {}
    for _ in range(100):
        caption = sample_caption(rng, scene.things, scene.background)
        found.setdefault(str(caption), caption)
        if len(found) == CAPTIONS:
            break
    return list(found.values())


def named(caption: Caption, things: Sequence[Thing]) -> list[int] | None:
    """Which thing each phrase names, None where one of them could be several."""
    places = [
        [k for k, thing in enumerate(things) if thing.name == p.name] for p in caption.phrases
    ]
    return [found[0] for found in places] if all(len(found) == 1 for found in places) else None


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=user_path)
    parser.add_argument("--count", type=int, default=120, help="pictures")
    parser.add_argument("--canvas", type=int, default=112, help="pixels per side")
    options = parser.parse_args()
    write_set(options.folder, options.count, canvas=options.canvas)


if __name__ == "__main__":
    main()

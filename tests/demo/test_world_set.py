"""The demo world's scenes as a COCO-format set, read back by the readers."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO

from fixlip.data.coco import read_coco
from fixlip.demo import CONCEPTS
from fixlip.demo.sampling import sample_scene
from fixlip.paths import root

PROGRAM = root() / "data" / "world" / "generate.py"
SEED = 2 * 10**9  # of generate.py


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of 12 scenes."""
    folder = tmp_path_factory.mktemp("world")
    environment = os.environ | {"PYTHONPATH": str(root())}
    command = [sys.executable, PROGRAM, folder, "--count", "12"]
    subprocess.run(list(map(str, command)), env=environment, check=True)
    return folder


def scenes(count):
    return [sample_scene([SEED, k], things=1 + k % 4) for k in range(count)]


def test_the_readers_read_what_the_scenes_hold(folder):
    examples = read_coco(folder)
    for example, scene in zip(examples, scenes(12), strict=True):
        assert np.array_equal(np.asarray(example.open()), np.asarray(scene.image))
        assert len(set(example.captions)) == len(example.captions) >= 2
        assert all(scene.is_true(caption) for caption in example.captions)
        assert [thing.name for thing in example.objects] == [t.name for t in scene.things]
        for found, thing in zip(example.objects, scene.things, strict=True):
            left, top, width, height = found.box
            assert (left, top, left + width, top + height) == thing.box


def test_words_are_those_of_the_things_they_name(folder):
    count = 0
    for example, scene in zip(read_coco(folder), scenes(12), strict=True):
        for mention in example.mentions:
            (place, *others) = mention.objects
            name = scene.things[place].name
            assert example.words(mention) in (name, CONCEPTS[name].plural)
            assert all(scene.things[other].name == name for other in others)
            count += 1
    assert count > 50


def test_masks_are_those_that_pycocotools_reads(folder):
    coco = COCO(folder / "annotations" / "instances_val.json")
    assert {c["supercategory"] for c in coco.loadCats(coco.getCatIds())} >= {"animal", "vehicle"}
    for k, scene in enumerate(scenes(12), start=1):
        found = coco.loadAnns(coco.getAnnIds(imgIds=[k]))
        for entry, thing in zip(found, scene.things, strict=True):
            assert np.array_equal(coco.annToMask(entry).astype(bool), thing.mask)
            assert entry["area"] == thing.mask.sum()


def test_the_set_in_the_repository_is_what_the_program_writes(folder):
    kept = root() / "data" / "world" / "scenes"
    for kind in ("captions", "instances"):
        first, second = (
            json.loads((place / "annotations" / f"{kind}_val.json").read_text())["annotations"]
            for place in (folder, kept)
        )
        assert second[: len(first)] == first
    example, scene = read_coco(kept)[5], scenes(6)[5]
    assert np.array_equal(np.asarray(example.open()), np.asarray(scene.image))

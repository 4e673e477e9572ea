"""Tests of fixlip.demo.scenes: geometry, exact truth of captions, and the COCO files."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from batches import TRUE, UNDECIDED, truth_matrix
from generate import (
    edit_attributes,
    relations,
    sample_scene,
    swap_colours,
    true_captions,
    write_coco,
)
from PIL import Image

from fixlip.demo.drawing import COLOURS, SHAPES
from fixlip.demo.grammar import INVERSE, Caption, parse_caption
from fixlip.demo.scenes import (
    COMBINATIONS,
    HELD_OUT,
    SEEN,
    Scene,
    Thing,
    is_true,
    read_scenes,
)

COMMITTED = Path(__file__).parents[2] / "data" / "scenes"


def draw(seed: int, number: int, **options) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng, **options) for _ in range(number)]


def slow_truth(text: str, scene: Scene) -> bool:
    """The definition, word by word, on the pixels of the patches."""
    relation = next((r for r in INVERSE if f" {r} " in text), None)
    named = []  # for each phrase, the objects that it names
    for phrase in text.replace(relation or "and", "and").split(" and "):
        words = [w for w in phrase.split() if w not in ("a", "an")]
        for shape in (w for w in words if w in SHAPES):
            colour = words[0] if words[0] in COLOURS else None
            named.append(
                [t for t in scene.things if t.shape == shape and (not colour or t.colour == colour)]
            )
    if relation is None:
        return all(named)
    for a, b in itertools.product(*named):
        pixels = [np.argwhere(t.patches.repeat(8, 0).repeat(8, 1)) for t in (a, b)]  # (row, column)
        if relation in ("right of", "below"):
            pixels.reverse()
        axis = 0 if relation in ("above", "below") else 1
        if a is not b and pixels[0][:, axis].max() < pixels[1][:, axis].min():
            return True
    return False


def test_a_seed_gives_the_same_scenes_and_pixels():
    first, second, other = draw(1, 5), draw(1, 5), draw(2, 5)
    assert first == second != other
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.image(), b.image())
    assert first[0].image().shape == (48, 48, 3) and first[0].image().dtype == np.uint8


def test_objects_fill_patches_and_never_overlap():
    for count in (1, 2, 3, 4):
        for scene in draw(count, 60, count=count):
            assert len(scene.things) == count
            assert sum(t.patches.astype(int) for t in scene.things).max() == 1
            assert len({(t.colour, t.shape) for t in scene.things}) == count
            for thing in scene.things:
                left, top, right, bottom = thing.box
                assert {left % 8, top % 8, right % 8, bottom % 8} == {0}
                inside = np.zeros((48, 48), dtype=bool)
                inside[top:bottom, left:right] = True
                assert thing.mask.any() and not (thing.mask & ~inside).any()


def test_mosaics_hold_four_different_shapes_in_four_cells():
    for scene in draw(3, 30, layout="mosaic"):
        assert len({t.shape for t in scene.things}) == 4
        assert [(t.row, t.column, t.size) for t in scene.things] == [
            *((0, 0, 3), (0, 3, 3), (3, 0, 3), (3, 3, 3))
        ]


def test_held_out_combinations_are_one_per_colour_and_not_drawn():
    assert sorted(c for c, _ in HELD_OUT) == sorted(COLOURS)
    assert len(SEEN) == 72 and len(COMBINATIONS) == 80
    drawn = {(t.colour, t.shape) for scene in draw(4, 500) for t in scene.things}
    assert drawn == set(SEEN)


def test_every_colour_and_shape_is_visible():
    """An object changes the pixels of its mask towards its colour, and no pixel outside its box."""
    for colour, shape in COMBINATIONS:
        thing = Thing(colour, shape, row=1, column=2, size=3)
        image, empty = Scene((thing,), 7).image().astype(float), Scene((), 7).image().astype(float)
        error = np.abs(image[thing.mask] - COLOURS[colour]).mean()
        assert error < 20 < np.abs(empty[thing.mask] - COLOURS[colour]).mean()


def test_captions_read_back():
    texts = ["star ring moon heart", "a star", "a red star", "an orange arrow above a white moon"]
    texts += [
        "a red star and a blue ring and an orange heart and a cyan moon",
        "an arrow and a ring",
    ]
    for text in texts:
        assert str(parse_caption(text)) == text
    assert parse_caption("A red STAR left of a blue ring") == Caption(
        (("red", "star"), ("blue", "ring")), "left of"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red star",
        "a red dog",
        "a star left of a ring and a moon",
        "a star and",
        "a big red star",
    ],
)
def test_other_texts_are_refused_with_the_grammar(text):
    with pytest.raises(ValueError, match=r"cannot read|relation needs two"):
        is_true(text, Scene((), 0))


def test_truth_agrees_with_the_geometry():
    rng = np.random.default_rng(5)
    seen = set()
    for scene in draw(6, 60) + draw(7, 20, layout="mosaic"):
        captions = [caption for caption, _ in true_captions(scene)]
        assert all(is_true(caption, scene) for caption in captions)
        captions += [swap for caption in captions for swap in swap_colours(caption)]
        captions += [edit for caption in captions[:4] for edit in edit_attributes(caption)[::3]]
        for a, b in itertools.permutations(scene.things, 2):
            relation = list(INVERSE)[rng.integers(4)]
            captions.append(Caption(((a.colour, a.shape), (None, b.shape)), relation))
        for caption in captions:
            truth = is_true(str(caption), scene)
            assert truth == slow_truth(str(caption), scene), (str(caption), scene)
            seen.add((truth, caption.relation))
    assert len(seen) == 2 * 5  # true and false, of every relation and of none


def test_relations_are_true_one_way_only():
    for scene in draw(8, 100):
        for caption in relations(scene):
            inverse = Caption(caption.phrases, INVERSE[caption.relation])
            assert is_true(caption, scene) and not is_true(inverse, scene)
            assert is_true(Caption(caption.phrases[::-1], INVERSE[caption.relation]), scene)


def test_truth_matrix_agrees_with_is_true():
    scenes = draw(9, 30)
    captions = [caption for scene in scenes for caption, _ in true_captions(scene)]
    captions += [swap for caption in captions for swap in swap_colours(caption)]
    matrix = truth_matrix(scenes, captions)
    expected = [[is_true(caption, scene) for caption in captions] for scene in scenes]
    assert np.array_equal(matrix, np.array(expected, dtype=np.int8))


def test_truth_matrix_of_captions_with_hidden_words():
    scene = Scene((Thing("red", "star", 0, 0, 3), Thing("blue", "ring", 0, 3, 3)), 0)
    caption = Caption((("blue", "star"), ("blue", "ring")), "left of")
    words = str(caption).split()  # a blue star left of a blue ring

    def truth(*hidden: int) -> int:
        kept = np.array([i not in hidden for i in range(len(words))])
        return truth_matrix([scene], [caption], [kept])[0, 0]

    assert truth() == truth(0, 5) == False  # noqa: E712  (no blue star)
    assert truth(1) == UNDECIDED  # the objects are there, the relation cannot be told
    plain = Caption((("blue", "star"), ("blue", "ring")))  # a blue star and a blue ring
    kept = np.array([True, False, True, True, True, True, True])
    assert truth_matrix([scene], [plain], [kept])[0, 0] == TRUE  # a star and a blue ring


def test_coco_files_round_trip(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    scenes = draw(10, 6) + draw(11, 2, layout="mosaic")
    write_coco(tmp_path, scenes)
    assert read_scenes(tmp_path) == scenes
    instances = coco.COCO(tmp_path / "annotations" / "instances_val.json")
    captions = coco.COCO(tmp_path / "annotations" / "captions_val.json")
    assert [c["name"] for c in instances.loadCats(instances.getCatIds())] == list(SHAPES)
    for image_id, scene in enumerate(scenes, start=1):
        entry = instances.loadImgs(image_id)[0]
        with Image.open(tmp_path / "val" / entry["file_name"]) as image:
            assert np.array_equal(np.asarray(image), scene.image())
        annotations = instances.loadAnns(instances.getAnnIds(image_id))
        for annotation, thing in zip(annotations, scene.things, strict=True):
            mask = instances.annToMask(annotation).astype(bool)
            rows, columns = np.nonzero(thing.mask)
            assert np.array_equal(mask, thing.mask) and annotation["area"] == thing.mask.sum()
            corner = [columns.min(), rows.min()]
            assert annotation["bbox"] == [*corner, np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert instances.loadCats(annotation["category_id"])[0]["name"] == thing.shape
            assert annotation["colour"] == thing.colour
        texts = captions.loadAnns(captions.getAnnIds(image_id))
        assert len(texts) >= len(scene.things)
        names = {a["id"]: t for a, t in zip(annotations, scene.things, strict=True)}
        for text in texts:
            caption = parse_caption(text["caption"])
            assert is_true(caption, scene)
            for (colour, shape), thing_id in zip(caption.phrases, text["objects"], strict=True):
                assert names[thing_id].is_a(colour, shape)


def test_mosaic_captions_allow_the_pointing_game():
    scene = draw(12, 1, layout="mosaic")[0]
    texts = {str(caption): named for caption, named in true_captions(scene)}
    for k in (1, 2, 3, 4):
        things = scene.things[:k]
        assert texts[" ".join(t.shape for t in things)] == [*range(k)]
        assert texts[str(Caption(tuple((t.colour, t.shape) for t in things)))] == [*range(k)]


def test_the_committed_scenes_render_to_their_files():
    scenes = read_scenes(COMMITTED)
    assert len(scenes) == 300 and len({scene.seed for scene in scenes}) == 300
    for image_id in (1, 150, 300):
        with Image.open(COMMITTED / "val" / f"{image_id:012d}.png") as image:
            assert np.array_equal(np.asarray(image), scenes[image_id - 1].image())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"generate\.py"):
        read_scenes(tmp_path)

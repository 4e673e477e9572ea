"""The world of everyday things: its concepts, its grammar, and scenes of which truth is known."""

import hashlib
import itertools

import numpy as np
import pytest

from fixlip.demo import CONCEPTS, sample_scene
from fixlip.demo.phrases import COLOURS, INVERSE, Caption, Phrase, parse_caption
from fixlip.demo.pictograms import HELD_OUT_STYLE, STYLES, pictures
from fixlip.demo.world import Thing, holds, is_true
from fixlip.paths import root

OPENMOJI = root() / "data" / "openmoji"


def thing(name, left, top, right, bottom, size=0.5):
    mask = np.zeros((100, 100), bool)
    mask[top:bottom, left:right] = True
    return Thing(name, "noto", (left, top, right, bottom), mask, size)


def test_names_are_words_that_are_read_in_one_way():
    """No name is another one's beginning and a name: "fire engine" beside "fire" would be."""
    assert len(CONCEPTS) >= 250
    for name in CONCEPTS:
        words = name.split()
        assert name == name.lower() and len(words) <= 2
        assert not (len(words) == 2 and words[0] in CONCEPTS)
    plurals = [concept.plural for concept in CONCEPTS.values() if concept.plural]
    assert len(set(plurals)) == len(plurals)
    phrases = {concept.phrase() for concept in CONCEPTS.values()}
    assert {"an apple", "a unicorn", "some milk", "an hourglass", "an umbrella"} <= phrases


def test_the_classes_of_the_published_mosaics_have_a_drawing():
    exact = {"banana", "cat", "church", "pizza", "tractor"}
    nearest = {"tropical fish", "wolf", "airplane", "soccer ball", "phone"}
    assert exact | nearest <= set(CONCEPTS)


@pytest.mark.parametrize("style", [*STYLES, HELD_OUT_STYLE, OPENMOJI])
def test_every_style_shows_most_concepts(style):
    shown = {name: pictures(concept, style) for name, concept in CONCEPTS.items()}
    count = sum(map(bool, shown.values()))
    assert count >= {"firefox": 180, "noto-v1": 225, HELD_OUT_STYLE: 225}.get(style, 254)
    for name, several in shown.items():
        for picture in several:
            opaque = np.asarray(picture)[..., 3] >= 128
            assert picture.size == (64, 64) and opaque.mean() > 0.05, name
            # of a thin drawing the outermost pixels are faint
            assert max(opaque.any(0).sum(), opaque.any(1).sum()) >= 58, name


def test_every_set_has_a_licence_and_names_its_authors():
    for style in (*STYLES, HELD_OUT_STYLE):
        folder = root() / "fixlip" / "demo" / "pictograms" / style
        said = (folder / "ATTRIBUTION.txt").read_text(encoding="utf-8")
        licence = said.partition("Licence: ")[2].split()[0].rstrip(",")
        assert licence in {"Apache-2.0", "MIT", "CC-BY-4.0"} and ", by " in said
        assert (folder / "LICENSE").is_file() or "creativecommons.org" in said
    said = (OPENMOJI / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    assert "CC-BY-SA-4.0" in said and "same licence" in said


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("dog hot dog", Caption((Phrase("dog"), Phrase("hot dog")), form="bare")),
        ("a dog and some milk", Caption((Phrase("dog"), Phrase("milk")))),
        ("two wolves and a pizza", Caption((Phrase("wolf", 2), Phrase("pizza")))),
        ("a photo of a small dog", Caption((Phrase("dog", 1, "small"),), form="photo")),
        ("a dog on an orange background", Caption((Phrase("dog"),), background="orange")),
        ("some milk left of a dog", Caption((Phrase("milk"), Phrase("dog")), "left of")),
    ],
)
def test_captions_are_read_as_they_are_written(text, caption):
    assert parse_caption(text) == caption and str(caption) == text
    assert parse_caption(text.upper() if "dog hot" not in text else text) == caption


@pytest.mark.parametrize(
    "text",
    [
        *("", "a sofa", "dog cow-boy", "a dog and", "two milks", "a dog on a mauve background"),
        *("a dog left of a cat above a cow", "two dogs left of a cat", "a a dog", "small dog"),
    ],
)
def test_other_texts_are_no_captions(text):
    with pytest.raises(ValueError, match=r"cannot read|no background|relation takes"):
        parse_caption(text)


def test_truth_is_that_of_the_definition():
    """A scene written by hand: every kind of caption, true and false."""
    things = [thing("dog", 0, 0, 30, 30, 0.3), thing("dog", 60, 0, 90, 30, 0.7)]
    things.append(thing("cat", 60, 60, 90, 90))
    true = ["dog", "cat dog", "a dog and a cat", "two dogs", "two dogs and a cat", "a small dog"]
    true += ["a large dog", "a cat below a dog", "a dog left of a cat", "a dog left of a dog"]
    true += ["a dog on a red background", "a photo of a cat"]
    false = ["cow", "dog cow", "three dogs", "two cats", "a small cat", "a cat above a dog"]
    false += ["a cat left of a dog", "a dog on a blue background"]
    assert all(is_true(text, things, "red") for text in true)
    assert not any(is_true(text, things, "red") for text in false)
    assert not any(is_true(f"a dog on a {c} background", things) for c in COLOURS)


@pytest.mark.parametrize("relation", INVERSE)
def test_relations_hold_where_neither_reaches_the_others_middle(relation):
    rng = np.random.default_rng(0)
    axis, sign = {"left of": (0, -1), "above": (1, -1)}.get(relation, (None, None))
    if axis is None:
        axis, sign = {"right of": (0, 1), "below": (1, 1)}[relation]
    found = set()
    for _ in range(300):
        x, y, w, h = rng.integers([[0], [0], [5], [5]], [[60], [60], [40], [40]], (4, 2)).tolist()
        places = zip(x, y, np.add(x, w).tolist(), np.add(y, h).tolist(), strict=True)
        a, b = (thing("dog", *place) for place in places)
        spans = [(t.box[axis], t.box[axis + 2]) for t in (a, b)]
        middles = [sum(span) / 2 for span in spans]
        first, second = (0, 1) if sign < 0 else (1, 0)
        expected = middles[first] <= spans[second][0] and spans[first][1] <= middles[second]
        assert holds(relation, a, b) == expected == holds(INVERSE[relation], b, a)
        found.add(expected)
    assert found == {True, False}


@pytest.mark.parametrize("canvas", [112, 128])
def test_scenes_are_what_they_say(canvas):
    counts, occluded = set(), 0
    for seed in range(150):
        scene = sample_scene(seed, canvas=canvas)
        counts.add(len(scene.things))
        assert scene.image.size == (canvas, canvas) and scene.is_true(scene.caption)
        for one in scene.things:
            rows, columns = np.nonzero(one.mask)
            box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert one.box == box and one.mask.shape == (canvas, canvas)
            assert 0.3 < one.size < 0.9
        for a, b in itertools.combinations(scene.things, 2):
            assert not (a.mask & b.mask).any()
            occluded += a.box[2] > b.box[0] and b.box[2] > a.box[0]
        true = scene.true_captions()
        assert len(set(true)) == len(true) and all(map(scene.is_true, true))
    assert counts == {1, 2, 3, 4} and occluded


def test_a_things_pixels_are_where_its_mask_says():
    """With and without the thing, the same seed's background differs there and nowhere else."""
    for seed in range(20):
        scene = sample_scene(seed, things=["strawberry"], styles=("twemoji",))
        red = np.asarray(scene.image).astype(int)
        red = (red[..., 0] - red[..., 1:].max(2)) > 60
        if scene.background not in (None, "red", "orange", "pink", "brown", "purple"):
            assert (red & scene.things[0].mask).sum() > 0.8 * red.sum() > 0


def test_a_seed_gives_one_scene_on_every_python():
    digest = hashlib.sha256()
    for seed in range(20):
        scene = sample_scene(seed)
        digest.update(scene.image.tobytes() + scene.caption.encode())
    assert digest.hexdigest() == HASH
    again = sample_scene([3, 4]), sample_scene([3, 4]), sample_scene([3, 5])
    assert again[0].image.tobytes() == again[1].image.tobytes() != again[2].image.tobytes()


HASH = "cfb081db8fa81b5223a224af05171300caf9f5c8f487c5edc9c4dcbebba90411"  # of 20 scenes


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"things": 5}, "things must be 1 to 4"),
        ({"things": []}, "things must be 1 to 4"),
        ({"things": "dog"}, "things must be 1 to 4"),
        ({"things": ["sofa"]}, "no concept is called 'sofa'"),
        ({"canvas": 10}, "canvas must be 64 pixels"),
        ({"styles": ("crayon",)}, "no style is called 'crayon'"),
        ({"styles": ("firefox",), "things": ["zebra"]}, "none of the styles firefox shows 'zebra'"),
    ],
)
def test_what_cannot_be_drawn_is_told(options, error):
    with pytest.raises(ValueError, match=error):
        sample_scene(0, **options)


def test_things_may_be_asked_for_by_name_and_several_times():
    scene = sample_scene(1, things=["dog", "dog", "pizza"], styles=(OPENMOJI,))
    assert sorted(one.name for one in scene.things) == ["dog", "dog", "pizza"]
    assert scene.is_true("two dogs and a pizza") and not scene.is_true("three dogs")
    assert all(one.style == OPENMOJI for one in scene.things)

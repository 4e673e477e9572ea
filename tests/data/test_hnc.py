"""Tests of fixlip.data.hnc on a file as HNC's own program writes it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixlip.data.examples import Example, Mention, Object
from fixlip.data.hnc import read_hnc, replacement

DOG, BALLS, CAT = (
    {"bbox": {"x": 10, "y": 5, "w": 20, "h": 10}, "name": "dog"},
    {"bbox": {"x": 0, "y": 20, "w": 10, "h": 10}, "name": "ball"},
    {"bbox": [30, 20, 10, 10], "name": "cat"},
)


def entry(caption, label, bboxes, partner=None, kind="relation_subj"):
    same = {"textual_label": None, "ambiguity": {"ambiguous": False}, "noisy": False}
    return same | {
        **{"caption": caption, "label": label, "type": kind, "bboxes": bboxes},
        **{"replaced": None, "cpt_p_id": partner},
    }


CONTENT = {
    "2370799": {
        "captions": {
            "0": entry("The dog is to the left of the balls.", 1, {"11": DOG, "12": BALLS}),
            "1": entry(
                "The cat is to the left of the balls.",
                0,
                {"11": DOG, "13": CAT, "12": BALLS},
                partner=0,  # a number that is false, and a key that is a string
            ),
            "2": entry("The dog is wet.", 1, {"11": DOG}, kind="attribute"),
            "3": entry("The dog is dry.", 0, None, partner="2", kind="attribute"),
            "4": entry("The dog is flat.", 0, None, partner=None, kind="attribute"),
        }
    },
    # as in older files: no level "captions"
    "99": {
        "5": entry("There is one  dog.", 1, {"11": DOG}, kind="obj_count"),
        "6": entry("There are two dogs.", 0, {"11": DOG}, partner=5, kind="obj_count"),
    },
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "hnc_clean_strict_test.json").write_text(json.dumps(CONTENT))
    (tmp_path / "images").mkdir()
    pixels = np.zeros((30, 40), np.uint8)
    pixels[5:15, 10:30] = 255
    for number in CONTENT:
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.jpg", quality=95)
    return tmp_path


def test_every_negative_with_its_true_caption(folder):
    with pytest.warns(UserWarning, match="1 negatives name no true caption"):
        first, second, third = read_hnc(folder)
    assert first.captions == (
        "The dog is to the left of the balls.",
        "The cat is to the left of the balls.",
    )
    assert [e.id for e in (first, second, third)] == ["2370799/1", "2370799/3", "99/6"]
    assert first.image == folder / "images" / "2370799.jpg" and first.size == (40, 30)
    assert [(o.id, o.name) for o in first.objects] == [("11", "dog"), ("12", "ball"), ("13", "cat")]
    assert first.objects[2].box == (30, 20, 10, 10)
    told = [(m.caption, first.words(m), first.objects[m.objects[0]].name) for m in first.mentions]
    assert told == [
        *((0, "dog", "dog"), (0, "balls", "ball")),
        *((1, "cat", "cat"), (1, "balls", "ball")),
    ]
    assert third.captions[0] == "There is one dog."
    pixels = np.asarray(first.open()).mean(2)
    assert (first.objects[0].mask() == (pixels > 200)).all()


def test_what_was_exchanged(folder):
    with pytest.warns(UserWarning):
        examples = read_hnc(folder)
    found = [replacement(example) for example in examples]
    words = [tuple(map(e.words, pair)) for e, pair in zip(examples, found, strict=True)]
    assert words == [("dog", "cat"), ("wet", "dry"), ("one dog", "two dogs")]
    # an object, a property of one, and a number: only the first has a box
    assert [pair[0].objects for pair in found] == [(0,), (), ()]
    assert [pair[1].objects for pair in found] == [(0,), (), ()]


@pytest.mark.parametrize(
    "first, second, old, new",
    [
        ("a blue heart above a red star", "a blue heart above an orange star", "red", "orange"),
        ("A baseball bat.", "A baseball glove.", "bat", "glove"),
        ("The men are happy", "The woman is happy", "men", "woman"),
        ("dog on dog on cat", "dog on cat on cat", "dog", "cat"),
        ("a big cat", "a dog", "big cat", "dog"),
        ("a star and a ring", "a star and an arrow", "ring", "arrow"),
        ("the cat", "a dog", "cat", "dog"),
    ],
)
def test_one_stretch_is_exchanged(first, second, old, new):
    example = Example("1", Path("1.png"), (first, second))
    one, two = replacement(example)
    assert (example.words(one), example.words(two)) == (old, new)
    for caption, mention in zip((first, second), (one, two), strict=True):
        rest = caption[: mention.start] + "*" + caption[mention.stop :]
        assert rest.count("*") == 1
    assert first[: one.start].split()[: -1 or None] == second[: two.start].split()[: -1 or None]


def test_longer_names_own_their_words():
    objects = (Object("baseball bat", (0, 0, 1, 1)),)
    captions = ("A baseball bat.", "A baseball glove.")
    mention = Mention(0, 2, 14, (0,))
    example = Example("1", Path("1.png"), captions, objects, (mention,))
    assert replacement(example)[1] == Mention(1, 11, 16, (0,))


def test_a_partner_that_is_itself_a_negative_is_no_true_caption(folder):
    """It was paired: "true" captions that are wrong, or a caption with itself."""
    path = folder / "hnc_clean_strict_test.json"
    content = json.loads(path.read_text())
    content["2370799"]["captions"]["3"]["cpt_p_id"] = "1"
    content["2370799"]["captions"]["4"]["cpt_p_id"] = "4"
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="2 negatives name no true caption"):
        assert [example.id for example in read_hnc(folder)] == ["2370799/1", "99/6"]


def test_the_folder_of_pictures_is_a_path(folder):
    with pytest.raises(TypeError, match=r"expected a path, .* got None"):
        read_hnc(folder, images=None)


@pytest.mark.parametrize(
    "captions, message",
    [
        (("a dog",), "has 1 captions, not two"),
        (("a dog", "a brown dog"), "no word of 'a dog' was exchanged"),
        (("a dog", "a dog"), "no word of 'a dog' was exchanged"),
    ],
)
def test_nothing_was_exchanged(captions, message):
    with pytest.raises(ValueError, match=message):
        replacement(Example("7", Path("7.png"), captions))


def test_what_is_missing_is_told(folder):
    with pytest.raises(FileNotFoundError, match=r"hnc_clean_strict_val\.json; .*darus-4341"):
        read_hnc(folder, split="val")
    (folder / "images" / "99.jpg").unlink()
    with (
        pytest.warns(UserWarning),
        pytest.raises(FileNotFoundError, match=r"1 of 2 pictures .*99\.jpg; .*gqa"),
    ):
        read_hnc(folder)
    with pytest.warns(UserWarning, match="going on without") as told:
        assert len(read_hnc(folder, missing="skip")) == 2
    assert len(told) == 2
    path = folder / "hnc_clean_strict_test.json"
    for content in ('{"1": {"captions": {"2": {"caption": "a"}}}}', '{"1": 2}'):
        path.write_text(content)
        with pytest.raises(ValueError, match="cannot be read as HNC"):
            read_hnc(folder)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("caption", None, "'caption' must be a text"),
        ("label", "x", "'label' must be 0 or 1, got 'x'"),
        ("label", None, "'label' must be 0 or 1, got None"),
        ("label", 2, "'label' must be 0 or 1, got 2"),
        ("bboxes", {"1": DOG | {"name": None}}, "'name' must be a text"),
        ("bboxes", {"1": DOG | {"bbox": [0, 0, float("nan"), 1]}}, "a box is"),
        ("bboxes", {"1": DOG | {"bbox": [0, 0, -1, 1]}}, r"a box is .* got \[0, 0, -1, 1\]"),
        ("bboxes", {"1": DOG | {"bbox": {"x": 1, "y": 1, "w": 1}}}, "'h' is missing"),
        ("bboxes", [DOG], r"'bboxes' must be a JSON object, got \["),
        ("bboxes", {"1": None}, "a box with its name must be a JSON object, got None"),
    ],
)
def test_a_broken_caption_is_named(folder, key, value, message):
    path = folder / "hnc_clean_strict_test.json"
    content = json.loads(path.read_text())
    content["2370799"]["captions"]["1"][key] = value
    path.write_text(json.dumps(content))
    about = r"in \{'picture': '2370799', 'caption': '1'\}"
    with pytest.raises(ValueError, match=rf"strict_test\.json .*{message}.*{about}"):
        read_hnc(folder)


def test_a_broken_picture_is_named(folder):
    (folder / "images" / "99.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"99\.jpg' is no image that Pillow can read"):
        read_hnc(folder)

"""Tests of fixlip.data.examples: outlines, orientation, mentions, missing pictures."""

import numpy as np
import pytest
from PIL import ExifTags, Image
from run_lengths import rle

import fixlip
from fixlip.data.examples import Example, Mention, Object, read_json, with_images
from fixlip.encoders import patches_in


@pytest.fixture(scope="module")
def encoder():
    return fixlip.load("demo-clip", device="cpu")


def test_masks_come_from_any_kind_of_outline():
    drawn = np.zeros((6, 8), dtype=int)
    drawn[1:4, 2:7] = 1
    drawn[4:6, 0:2] = 1
    size = (8, 6)
    crowd = Object("crowd", (0, 1, 7, 5), crowd=True, size=size, outline=rle(drawn))
    assert (crowd.mask() == (drawn == 1)).all()
    polygons = [[2, 1, 7, 1, 7, 4, 2, 4], [0, 4, 2, 4, 2, 6, 0, 6]]
    assert (Object("two parts", (0, 1, 7, 5), size=size, outline=polygons).mask() == drawn).all()
    box = Object("no outline", (2, 1, 5, 3), size=size, outline=[[1, 2, 3, 4]])  # two corners
    assert box.mask().sum() == 15 and box.mask()[1:4, 2:7].all()
    half = Object("half pixels", (1.4, 0, 1.2, 0.6), size=(4, 2)).mask()
    assert np.argwhere(half).tolist() == [[0, 1], [0, 2]]  # where centres lie inside
    with pytest.raises(ValueError, match="does not say how large"):
        Object("star", (0, 0, 1, 1)).mask()


def photograph(path, orientation, mode="RGB"):
    """40 wide and 20 high as stored, white where x < 10 and y < 10; JPEG."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, :10] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).convert(mode).save(path, exif=exif, quality=95)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "orientation, size, white",
    [
        (1, (40, 20), (0, 0)),
        (6, (40, 20), (0, 0)),  # marked as stored
        (6, (20, 40), (10, 0)),  # marked upright: turned clockwise
        (3, (40, 20), (0, 0)),  # sizes do not tell: as stored
        (6, None, (0, 0)),
    ],
)
def test_pictures_lie_as_they_were_marked(tmp_path, mode, orientation, size, white):
    path = tmp_path / "photo.jpg"
    photograph(path, orientation, mode)
    picture = Example("1", path, (), size=size).open()
    assert picture.mode == "RGB" and picture.size == (size or (40, 20))
    inside = Object("white", (*white, 10, 10), size=picture.size).mask()
    grey = np.asarray(picture).mean(2)
    assert grey[inside].mean() > 240 and grey[~inside].mean() < 15


def test_an_upright_side_of_a_picture_and_its_box_agree(tmp_path, encoder):
    """Through the encoder: the patches in the box are the white ones."""
    photograph(tmp_path / "photo.jpg", 6)
    example = Example("1", tmp_path / "photo.jpg", (), size=(40, 20))
    side = encoder.image(example.open())
    patch = side.picture.mean(2).reshape(6, 8, 6, 8).mean((1, 3)).ravel()  # (36,)
    weights = patches_in(side, (0, 0, 20, 20), rule="overlap")
    assert patch @ weights / weights.sum() > 3 * patch @ (1 - weights) / (1 - weights).sum()


def test_a_picture_of_another_size_is_refused(tmp_path):
    photograph(tmp_path / "photo.jpg", 1)
    with pytest.raises(ValueError, match=r"40 x 20 pixels, and objects were marked on 41 x 20"):
        Example("1", tmp_path / "photo.jpg", (), size=(41, 20)).open()


def test_clear_mentions_name_one_thing():
    objects = tuple(Object(n, (0, 0, 1, 1), crowd=c) for n, c in (("a", 0), ("b", 1), ("a", 0)))
    mentions = [Mention(0, 0, 1, named) for named in ((0,), (1,), (0, 2), (2,), ())]
    example = Example("1", None, ("a",), objects, tuple(mentions))
    assert example.clear() == [mentions[0], mentions[3]]


def test_missing_pictures_are_told_once(tmp_path):
    (tmp_path / "0.png").touch()
    file = tmp_path / "list.json"
    examples = [Example(str(i), tmp_path / f"{i % 3}.png", ("a",)) for i in range(5)]
    with pytest.raises(FileNotFoundError) as told:
        with_images(examples, listed=file, missing="error", hint="get them there")
    message = str(told.value)
    assert "2 of 3 pictures are not on disk" in message and "1.png; get them there" in message
    assert 'missing="skip"' in message
    with pytest.warns(UserWarning, match="2 of 3 pictures are not on disk, going on without them"):
        assert with_images(examples, listed=file, missing="skip", hint="") == [
            examples[0],
            examples[3],
        ]
    with pytest.raises(FileNotFoundError, match="1 of 1"):  # nothing would be left
        with_images(examples[1:2], listed=file, missing="skip", hint="")
    with pytest.raises(ValueError, match=r"list\.json lists the picture 0 2 times"):
        with_images([*examples, examples[0]], listed=file, missing="skip", hint="")
    with pytest.raises(ValueError, match='"error" or "skip"'):
        with_images(examples, listed=file, missing="ignore", hint="")


def test_broken_json(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match=r"a\.json; expected annotations"):
        read_json(path, "expected annotations")
    for content, message in (
        (b"", "not a complete JSON file"),
        (b"{", "not a complete JSON file"),
        (b'{"a": 1}\n{"a": 2}\n', r"not a complete JSON file \(Extra data: line 2"),
        (b"[" * 100_000, "not a complete JSON file"),
        ('{"a": "é"}'.encode("latin-1"), "not a complete JSON file .*can't decode byte 0xe9"),
        (b"[]", "holds a list, not a JSON object"),
        (b"null", "holds a NoneType"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.json.*{message}.*; expected annotations"):
            read_json(path, "expected annotations")
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path, "") == {"a": 1}


def test_objects_made_by_hand_are_checked_too():
    for box in ((0, 0, np.nan, 1), (0, 0, -1, 1), (0, 0, 1), None):
        with pytest.raises(ValueError, match=r"star 3: a box is \[x, y, width, height\]"):
            Object("star", box, id="3", size=(4, 2)).mask()
    assert not Object("star", (1, 1, 0, 1), size=(4, 2)).mask().any()

"""Tests of fixlip.data.flickr on files as Flickr30k Entities has them."""

import numpy as np
import pytest
from PIL import Image

import fixlip
from fixlip.data.flickr import read_flickr30k
from fixlip.encoders.spans import patches_in

SENTENCES = """\
[/EN#1/people A young  child] wears [/EN#2/clothing/colors blue goggles] in [/EN#4/scene a pool] .
[/EN#0/notvisual It] is [/EN#1/people the child]'s [/EN#3/other float] and [/EN#5/other sky ] .
Two balls without a mark ; [/EN#6/other two balls] .

"""
# as the Python reader of the data set reads them: words, phrases
CAPTIONS = (
    "A young child wears blue goggles in a pool .",
    "It is the child's float and sky .",
    "Two balls without a mark ; two balls .",
)
BOXES = [  # names, then corners counted from 1 or None
    (["1"], (11, 6, 30, 15)),
    (["2", "7"], (1, 1, 1, 1)),
    (["6"], (1, 21, 10, 30)),
    (["6"], (31, 21, 40, 30)),
    (["4"], None),
    (["5"], None),
    (["8"], (2, 2, 3, 3)),  # of a chain that no caption mentions
]


def annotation(boxes=BOXES):
    parts = ["<annotation><filename>36979.jpg</filename>"]
    parts += ["<size><width>40</width><height>30</height><depth>3</depth></size>"]
    for names, corners in boxes:
        inner = "".join(f"<name>{name}</name>" for name in names)
        if corners is None:
            scene = int(names == ["4"])
            inner += f"<scene>{scene}</scene><nobndbox>{1 - scene}</nobndbox>"
        else:
            pairs = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            inner += f"<bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in pairs)}</bndbox>"
        parts.append(f"<object>{inner}</object>")
    return "\n".join([*parts, "</annotation>"])


@pytest.fixture
def folder(tmp_path):
    for name in ("Sentences", "Annotations", "flickr30k-images"):
        (tmp_path / name).mkdir()
    pixels = np.zeros((30, 40), np.uint8)
    pixels[5:15, 10:30] = 255  # the child
    pixels[20:, :10] = pixels[20:, 30:] = 128  # two balls
    for number in ("36979", "65567"):
        (tmp_path / "Sentences" / f"{number}.txt").write_text(SENTENCES, encoding="utf-8")
        (tmp_path / "Annotations" / f"{number}.xml").write_text(annotation())
        Image.fromarray(pixels).save(tmp_path / "flickr30k-images" / f"{number}.jpg", quality=95)
    (tmp_path / "test.txt").write_text("65567\n36979\n")
    (tmp_path / "val.txt").write_text("36979\n1\n2")
    return tmp_path


def test_phrases_name_boxes(folder):
    first, second = read_flickr30k(folder)
    assert (first.id, second.id) == ("65567", "36979") and second.size == (40, 30)
    assert first.captions == CAPTIONS and second.image.name == "36979.jpg"
    told = [(m.caption, second.words(m), m.objects) for m in second.mentions]
    assert told == [
        (0, "A young child", (0,)),
        (0, "blue goggles", (1,)),
        (1, "the child", (0,)),
        (2, "two balls", (2, 3)),  # neither the scene, nor what has no box, nor chain 0
    ]
    assert [second.words(m) for m in second.clear()] == [words for _, words, _ in told[:3]]
    assert [o.name for o in second.objects] == ["people", "clothing/colors", "other", "other", ""]
    assert [o.id for o in second.objects] == ["1", "2", "6", "6", "8"]


def test_boxes_lie_on_the_pixels(folder):
    """Counted from 1 and with their last pixel: else an edge would be off."""
    example = read_flickr30k(folder)[0]
    pixels = np.asarray(example.open()).mean(2)
    child, goggles, *balls, _ = example.objects
    assert child.box == (10, 5, 20, 10) and goggles.box == (0, 0, 1, 1)
    assert (child.mask() == (pixels > 200)).all()
    grey = (pixels > 60) & (pixels <= 200)
    assert (sum(ball.mask() for ball in balls) == grey).mean() > 0.98  # JPEG blurs corners
    side = fixlip.load("demo-clip", device="cpu").image(example.open())
    seen = side.picture.mean(2).reshape(6, 8, 6, 8).mean((1, 3)).ravel()  # (36,)
    inside = patches_in(side, child.box)
    assert seen[inside == 1].min() > seen[inside == 0].max()


def test_what_is_missing_is_told_once(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.txt; .*BryanPlummer/flickr30k_entities"):
        read_flickr30k(folder, split="train")
    with pytest.raises(FileNotFoundError, match=r"4 of 6 files of 'val' .*1\.txt"):
        read_flickr30k(folder, split="val")
    (folder / "flickr30k-images" / "65567.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 pictures .*65567\.jpg; .*Denotation"):
        read_flickr30k(folder)
    with pytest.warns(UserWarning, match="going on without them"):
        assert [e.id for e in read_flickr30k(folder, missing="skip")] == ["36979"]
    (folder / "flickr30k-images").rename(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="1 of 2"):
        (example,) = read_flickr30k(folder, images=tmp_path / "elsewhere", missing="skip")
    assert example.image == tmp_path / "elsewhere" / "36979.jpg"


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "Annotations/36979.xml",
            "<annotation>",
            "cannot be read as an annotation of Flickr30k: no",
        ),
        (
            "Annotations/36979.xml",
            "<annotation></annotation>",
            "cannot be read as an annotation of Flickr30k",
        ),
        *[
            ("Annotations/36979.xml", annotation([(["1"], corners)]), f"{told}.*'object': '1'")
            for corners, told in (
                ((30, 6, 11, 15), r"30 pixels has the corners \[30, 6, 11, 15\]"),
                ((11, 15, 30, 6), r"has the corners \[11, 15, 30, 6\]"),
                ((50, 6, 60, 15), "picture of 40 x 30 pixels has the corners"),
                ((11, 6, "nan", 15), "<xmax> must hold a whole number, got 'nan'"),
                ((11, 6, "", 15), "<xmax> must hold a whole number, got ''"),
                ((11, 6, "9" * 5000, 15), "<xmax> must hold a whole number, got '999"),
            )
        ],
        ("Annotations/36979.xml", annotation([([], (1, 1, 2, 2))]), "an object has no name"),
        ("Annotations/36979.xml", annotation([([""], (1, 1, 2, 2))]), "an object has no name"),
        ("Annotations/36979.xml", annotation().replace(">40<", ">0<"), "no picture is 0 wide"),
        ("Annotations/36979.xml", '<?xml version="1.0" encoding="x"?><a/>', "36979.xml cannot be"),
        ("Sentences/36979.txt", "[/EN#1 no type] .", r"36979\.txt: cannot read the marks"),
        ("Sentences/36979.txt", "[/EN#1/people open .", r"36979\.txt: cannot read the marks"),
    ],
)
def test_broken_files(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_flickr30k(folder)


def test_boxes_that_stick_out_end_with_the_picture(folder):
    """Some of the data set begin at pixel 0, which is none: they count from 1."""
    boxes = [(["1"], (0, 0, 10, 5)), (["2"], (31, 21, 44, 99))]
    (folder / "Annotations" / "36979.xml").write_text(annotation(boxes))
    first, second = read_flickr30k(folder)[1].objects
    assert first.box == (0, 0, 10, 5) and second.box == (30, 20, 10, 10)


def test_text_files_of_other_systems(folder):
    caption = SENTENCES.replace("blue goggles", "blue\u2028goggles\x85").replace("young", "yöung")
    data = b"\xef\xbb\xbf" + caption.replace("\n", "\r\n").encode()
    (folder / "Sentences" / "36979.txt").write_bytes(data)
    (folder / "test.txt").write_bytes(b"\xef\xbb\xbf65567\r\n36979\r\n")
    plain, found = read_flickr30k(folder)
    assert found.captions == (CAPTIONS[0].replace("young", "yöung"), *CAPTIONS[1:])
    assert found.mentions == plain.mentions
    for name in ("test.txt", "Sentences/36979.txt"):
        (folder / name).write_bytes("café".encode("latin-1"))
        with pytest.raises(ValueError, match=rf"{name} is no text in UTF-8 .*byte 0xe9"):
            read_flickr30k(folder)
        (folder / "test.txt").write_text("36979")
    (folder / "test.txt").write_text("36979 36979")
    (folder / "Sentences" / "36979.txt").write_text(SENTENCES)
    with pytest.raises(ValueError, match=r"test\.txt lists the picture 36979 2 times"):
        read_flickr30k(folder)

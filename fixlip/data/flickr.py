"""Flickr30k Entities: captions whose phrases are marked, and the boxes that they name."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from fixlip.data.examples import (
    Example,
    Mention,
    Object,
    malformed,
    picture_size,
    pictures_of,
    read_text,
    with_images,
)
from fixlip.files import user_path

LAYOUT = (
    "a folder of Flickr30k Entities holds Sentences/, Annotations/ and train.txt, val.txt and "
    "test.txt (https://github.com/BryanPlummer/flickr30k_entities), and the pictures in "
    "flickr30k-images/ (https://shannon.cs.illinois.edu/DenotationGraph)"
)
SIDES, CORNERS = ("width", "height"), ("xmin", "ymin", "xmax", "ymax")
PHRASE = re.compile(r"\[/EN#(?P<chain>\d+)(?P<types>(?:/[^\s/\]]+)+) (?P<words>[^\]]+?) ?\]")


def read_flickr30k(
    folder: str | Path,
    *,
    split: str = "test",
    images: str | Path = "flickr30k-images",
    missing: str = "error",
) -> list[Example]:
    """Read pictures, captions, boxes, and the phrases that name them.

    In the order of the list. An object is one box: its `id` is its chain of coreference (of
    several, the first), its `name` the types of the phrase, "people" or "clothing/colors". A phrase
    mentions all boxes of its chain; phrases without a box (scenes, things that cannot be seen,
    chain 0) mention nothing and are left out. Captions are in the files' spaced form. Errors as in
    `fixlip.data.coco.read_coco`.

    Parameters
    ----------
    folder, images : str or pathlib.Path
        With ``Sentences/<id>.txt``, ``Annotations/<id>.xml`` and ``<split>.txt``; and the folder of
        ``<id>.jpg``, here or in `folder`.
    split, missing : str, {"error", "skip"}
        "train", "val" or "test" (1,000 pictures); what to do about pictures that are not on disk.

    Examples
    --------
    >>> example = read_flickr30k("flickr30k")[0]  # doctest: +SKIP
    >>> [example.words(mention) for mention in example.clear()]  # doctest: +SKIP
    ['A man', 'an orange hat', 'something']
    """
    folder = user_path(folder)
    listed = folder / f"{split}.txt"
    numbers = read_text(listed, LAYOUT).split()
    needed = [
        folder / kind / f"{number}.{ending}"
        for number in numbers
        for kind, ending in (("Sentences", "txt"), ("Annotations", "xml"))
    ]
    if gone := [path for path in needed if not path.is_file()]:
        raise FileNotFoundError(
            f"{len(gone)} of {len(needed)} files of {split!r} are missing, the first is {gone[0]}; "
            f"{LAYOUT}"
        )
    place = pictures_of(folder, images)
    examples = [_read(folder, number, place / f"{number}.jpg") for number in numbers]
    return with_images(examples, listed=listed, missing=missing, hint=LAYOUT)


def _read(folder: Path, number: str, image: Path) -> Example:
    """One picture."""
    captions, phrases = [], []  # phrases: (caption, start, stop, chain, types)
    path = folder / "Annotations" / f"{number}.xml"
    text = read_text(folder / "Sentences" / f"{number}.txt", LAYOUT)
    for line in filter(str.strip, text.split("\n")):  # captions may have other line separators
        caption, own = _unmark(line)
        if "[" in caption or "]" in caption:
            raise ValueError(f"Sentences/{number}.txt: cannot read the marks of {line!r}; {LAYOUT}")
        phrases += [(len(captions), *phrase) for phrase in own]
        captions.append(caption)
    types: dict[str, str] = {}
    for *_, chain, kind in phrases:
        types.setdefault(chain, kind)
    size, boxes = _boxes(path)
    objects, named = [], defaultdict(list)
    for chains, box in boxes:
        for chain in chains:
            named[chain].append(len(objects))
        kind = next((types[chain] for chain in chains if chain in types), "")
        objects.append(Object(kind, box, id=chains[0], size=size, file=str(path)))
    mentions = tuple(
        Mention(caption, start, stop, tuple(named[chain]))
        for caption, start, stop, chain, _ in phrases
        if chain != "0" and chain in named
    )
    return Example(number, image, tuple(captions), tuple(objects), mentions, size)


def _unmark(line: str) -> tuple[str, list[tuple[int, int, str, str]]]:
    """A caption without its marks, and its phrases: start, stop, chain, types.

    >>> _unmark("[/EN#7/people A  man] and [/EN#0/notvisual it] .")
    ('A man and it .', [(0, 5, '7', 'people'), (10, 12, '0', 'notvisual')])
    """
    line = " ".join(line.split())
    caption, phrases, end = "", [], 0
    for match in PHRASE.finditer(line):
        caption += line[end : match.start()]
        start, words, end = len(caption), match["words"], match.end()
        caption += words
        phrases.append((start, len(caption), match["chain"], match["types"][1:]))
    return caption + line[end:], phrases


def _boxes(path: Path) -> tuple[tuple[int, int], list[tuple[list[str], tuple]]]:
    """The size of a picture, and its boxes with the chains that they belong to."""
    boxes, about = [], {}
    try:
        tree = ElementTree.parse(path).getroot()
        size = width, height = picture_size(*(_whole(tree, f"size/{s}") for s in SIDES))
        for entry in tree.iter("object"):
            if (bounds := entry.find("bndbox")) is None:
                continue  # a scene, or nothing that can be seen
            chains = [(name.text or "").strip() for name in entry.iter("name")]
            about = {"object": " ".join(chains)}
            if not all(chains) or not chains:
                raise ValueError("an object has no name")
            left, top, right, bottom = corners = [_whole(bounds, name) for name in CORNERS]
            # pixels count from 1, and the last one belongs to the box; some boxes stick out
            left, top, right, bottom = (
                max(left, 1),
                max(top, 1),
                min(right, width),
                min(bottom, height),
            )
            if left > right or top > bottom:
                raise ValueError(
                    f"no box on a picture of {width} x {height} pixels has the corners {corners}"
                )
            box = (left - 1.0, top - 1.0, right - left + 1.0, bottom - top + 1.0)
            boxes.append((chains, box))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise malformed(path, "an annotation of Flickr30k", about, error, LAYOUT) from None
    return size, boxes


def _whole(entry: ElementTree.Element, name: str) -> int:
    text = entry.findtext(name, default="")
    if not re.fullmatch(r"\s*-?\d{1,9}\s*", text):
        raise ValueError(f"<{name}> must hold a whole number, got {text!r:.80}")
    return int(text)

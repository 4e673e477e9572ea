"""HNC: hard negative captions of GQA's pictures, each with the true caption it was made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from fixlip.checks import warn
from fixlip.data.coco_words import any_of, name_mentions, plural
from fixlip.data.examples import (
    Example,
    Mention,
    Object,
    malformed,
    pictures_of,
    read_json,
    text_of,
    with_images,
)
from fixlip.files import user_path
from fixlip.images import checked_box, stored_size

LAYOUT = (
    "a folder of HNC holds hnc_clean_strict_train.json, hnc_clean_strict_val.json or "
    "hnc_clean_strict_test.json (https://doi.org/10.18419/darus-4341) and GQA's pictures in "
    "images/ (https://cs.stanford.edu/people/dorarad/gqa/download.html)"
)

FORMS = ("a", "an", "the", "is", "are")  # they change with the noun that is exchanged


def read_hnc(
    folder: str | Path,
    *,
    split: str = "test",
    images: str | Path = "images",
    missing: str = "error",
) -> list[Example]:
    """Read every hard negative with its true caption, and the objects that the captions name.

    One example per negative: `captions` are the true one and the negative one, `id` is that of the
    picture and of the negative caption. Objects are mentioned where a caption has their name;
    `replacement` gives the words that were exchanged. Errors as in `fixlip.data.coco.read_coco`.

    Parameters
    ----------
    folder, images : str or pathlib.Path
        With ``hnc_clean_strict_<split>.json``; and the folder of ``<id>.jpg``, here or in `folder`.
    split, missing : str, {"error", "skip"}
        "train", "val" or "test" (the one that people wrote); what to do about pictures that are not
        on disk.

    Examples
    --------
    >>> example = read_hnc("hnc")[0]  # doctest: +SKIP
    >>> example.captions  # doctest: +SKIP
    ('The man is to the right of the chair.', 'The man is to the right of the table.')
    """
    folder = user_path(folder)
    path = folder / f"hnc_clean_strict_{split}.json"
    place = pictures_of(folder, images)
    examples, alone, about = [], 0, {}
    content = read_json(path, LAYOUT)
    try:
        for picture, entry in content.items():
            about = {"picture": picture}
            captions = _parts("a picture", entry).get("captions", entry)
            for number, negative in _parts("'captions'", captions).items():
                about["caption"] = number
                if _is_true(negative):
                    continue
                positive = captions.get(str(negative.get("cpt_p_id")))  # may be the number 0
                if positive is None or not _is_true(positive):
                    alone += 1
                    continue
                name = picture if picture.endswith(".jpg") else f"{picture}.jpg"
                examples.append(_pair(f"{picture}/{number}", place / name, positive, negative))
    except (KeyError, ValueError) as error:
        raise malformed(path, "HNC", about, error, LAYOUT) from None
    if alone:
        warn(f"{alone} negatives name no true caption and are left out")
    found = with_images(examples, listed=path, missing=missing, hint=LAYOUT)
    return _with_sizes(found, path)


def _parts(what: str, given: object) -> Mapping:
    """Return a JSON object, else raise ValueError."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{what} must be a JSON object, got {given!r:.80}")
    return given


def _is_true(caption: Mapping) -> bool:
    """Whether a caption is true of its picture: its label, 0 or 1, as a number or a text."""
    label = _parts("a caption", caption)["label"]
    if label not in (0, 1, "0", "1"):
        raise ValueError(f"'label' must be 0 or 1, got {label!r:.80}")
    return int(label) == 1


def _pair(name: str, image: Path, positive: Mapping, negative: Mapping) -> Example:
    """The example of one true caption and one negative."""
    boxes = {}
    for each in (positive, negative):
        boxes |= _parts("'bboxes'", each.get("bboxes") or {})
    objects = []
    for number, entry in boxes.items():
        box = _parts("a box with its name", entry)["bbox"]
        box = [box[side] for side in "xywh"] if isinstance(box, Mapping) else box
        objects.append(Object(text_of(entry, "name"), checked_box(box), id=str(number)))
    captions = tuple(" ".join(text_of(each, "caption").split()) for each in (positive, negative))
    forms = {form: o.name for o in objects for form in (o.name.lower(), plural(o.name.lower()))}
    mentions = [
        mention
        for k, caption in enumerate(captions if objects else ())
        for mention in name_mentions(k, caption, forms, objects, any_of(forms))
    ]
    return Example(name, image, captions, tuple(objects), tuple(mentions))


def _with_sizes(examples: list[Example], path: Path) -> list[Example]:
    """The examples with the sizes of their pictures, which HNC does not give."""
    sizes: dict[Path, tuple[int, int]] = {}
    done = []
    for example in examples:
        if example.image not in sizes:
            sizes[example.image] = stored_size(example.image)
        size = sizes[example.image]
        objects = tuple(replace(thing, size=size, file=str(path)) for thing in example.objects)
        done.append(replace(example, objects=objects, size=size))
    return done


def replacement(example: Example) -> tuple[Mention, Mention]:
    """The one stretch of words in which the two captions of an example differ.

    In the first caption and in the second, without articles and "is" or "are" that change with
    them. `objects` of both are those that the *first* words name: the measures of hard negatives
    compare the new words with the old box. Where there are none, the words name no object, but a
    colour, a relation or a number. Raises ValueError where a caption has nothing that the other
    lacks.

    References
    ----------
    The hard negatives of the exCLIP paper (TMLR 2025).

    Examples
    --------
    >>> captions = ("A red star.", "A red ring.")
    >>> old, new = replacement(Example("0", Path("0.png"), captions))
    >>> captions[0][old.start : old.stop], captions[1][new.start : new.stop]
    ('star', 'ring')
    """
    if len(example.captions) != 2:
        raise ValueError(f"example {example.id} has {len(example.captions)} captions, not two")
    words = [list(re.finditer(r"\w[\w'-]*|[^\w\s]", caption)) for caption in example.captions]
    texts = [[word[0] for word in each] for each in words]
    before = _common(*texts)
    after = _common(*(text[before:][::-1] for text in texts))
    spans = []
    for caption, each in zip(example.captions, words, strict=True):
        changed = each[before : len(each) - after]
        while changed and changed[0][0].lower() in FORMS:
            del changed[0]
        while changed and changed[-1][0].lower() in FORMS:
            del changed[-1]
        if not changed:
            raise ValueError(f"example {example.id}: no word of {caption!r} was exchanged")
        spans.append((changed[0].start(), changed[-1].end()))
    start, stop = spans[0]
    named = [m for m in example.mentions if m.caption == 0 and m.start <= start and stop <= m.stop]
    objects = tuple(dict.fromkeys(i for m in named for i in m.objects))
    return Mention(0, start, stop, objects), Mention(1, *spans[1], objects)


def _common(first: list[str], second: list[str]) -> int:
    """How many words two lists have in common at their beginning."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))

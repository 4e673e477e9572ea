"""COCO: captions and instances, from the official files or by Karpathy's split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fixlip.checks import warn
from fixlip.data.coco_words import any_of, name_mentions, phrases
from fixlip.data.examples import (
    Example,
    Mention,
    Object,
    entries,
    id_of,
    malformed,
    picture_size,
    read_json,
    text_of,
    with_images,
)
from fixlip.files import user_path
from fixlip.images import checked_box

LAYOUT = (
    "a folder of COCO holds annotations/captions_<split>.json, annotations/instances_<split>.json "
    "and the pictures in <split>/, with val2017, train2017, val2014 or train2014 as the split; "
    "get them at https://cocodataset.org/#download"
)
KARPATHY = (
    "Karpathy's split is the file dataset_coco.json, in the archive caption_datasets.zip of "
    "https://cs.stanford.edu/people/karpathy/deepimagesent; its pictures are those of COCO 2014"
)

Named = list[Sequence[Any] | None]  # per caption: the annotations in its field `objects`, if any
Instances = dict[str, list[tuple[Object, str]]]  # per picture: objects, and a phrase for each


def read_coco(
    folder: str | Path,
    *,
    split: str | None = None,
    karpathy: str | Path | None = None,
    missing: str = "error",
) -> list[Example]:
    """Read pictures, captions, instances, and the words that mention them.

    In the order of the file of captions. An object's `name` is its class, its `id` that of its
    annotation. Words mention *all* objects of their class, crowds included; `Example.clear` leaves
    those that mention one. Where a caption says itself what it names, in a field `objects` of
    annotations (as in the demo data), that counts instead of class names. Raises FileNotFoundError
    where files are missing: which, and where to get them; ValueError for broken files.

    Parameters
    ----------
    folder : str or pathlib.Path
        With ``annotations/captions_<split>.json``, ``annotations/instances_<split>.json`` and the
        pictures in ``<split>/``. Without the instances the examples have captions only.
    split : str, optional
        "val2017" and so on; by default the only one there. With `karpathy`: "train", "val",
        "test" (the default, 5,000 pictures) or "restval".
    karpathy : str or pathlib.Path, optional
        The file ``dataset_coco.json``, from here or from `folder`. Captions come from it, pictures
        and instances from the folders and files of COCO 2014.
    missing : {"error", "skip"}
        What to do about pictures that are not on disk.

    References
    ----------
    The FIxLIP paper takes the best caption of each picture of Karpathy's test split
    (`fixlip.data.ranking`), the exCLIP paper words for classes that occur once (its list of words
    is not published: ours is `fixlip.data.coco_words`).

    Examples
    --------
    >>> from fixlip.paths import root
    >>> example = read_coco(root() / "data/scenes")[1]
    >>> example.captions[-1], [example.words(m) for m in example.mentions[-2:]]
    ('a blue circle above a cyan heart', ['blue circle', 'cyan heart'])
    """
    folder = user_path(folder)
    if karpathy is None:
        split = _only_split(folder) if split is None else split
        listed = folder / "annotations" / f"captions_{split}.json"
        found, parts = _official(folder, split, listed), [split]
    else:
        listed = user_path(karpathy)
        listed = listed if listed.is_file() else folder / listed
        found, parts = _karpathy(folder, listed, split or "test")
    instances, sizes, classes = _instances(folder, parts)
    names = phrases(classes)
    pattern = any_of(names)
    examples = []
    for example, named in found:
        objects = instances.get(example.id, [])
        things, mentions = tuple(thing for thing, _ in objects), []
        for k, caption in enumerate(example.captions):
            if named[k] is not None and instances:
                try:
                    mentions += _stated(k, caption, named[k], objects)
                except ValueError as error:
                    raise ValueError(f"{listed}, picture {example.id}: {error}") from None
            elif objects:
                mentions += name_mentions(k, caption, names, things, pattern)
        size = sizes.get(example.id, example.size)
        examples.append(replace(example, objects=things, mentions=tuple(mentions), size=size))
    hint = LAYOUT if karpathy is None else KARPATHY
    return with_images(examples, listed=listed, missing=missing, hint=hint)


def _only_split(folder: Path) -> str:
    files = folder.glob("annotations/captions_*.json")
    splits = sorted(path.stem.removeprefix("captions_") for path in files)
    if len(splits) == 1:
        return splits[0]
    if not splits:
        raise FileNotFoundError(f"there are no annotations/captions_*.json in {folder}; {LAYOUT}")
    raise ValueError(f"{folder} has the splits {', '.join(splits)}: choose one with split=...")


def _official(folder: Path, split: str, path: Path) -> list[tuple[Example, Named]]:
    """Pictures and captions from annotations/captions_<split>.json."""
    content = read_json(path, LAYOUT)
    captions: dict[str, list[tuple[str, Sequence | None]]] = {}
    found, entry = [], {}
    try:
        for entry in entries(content, "annotations"):
            named = entry.get("objects")
            if named is not None and not isinstance(named, list):
                raise ValueError(f"'objects' must be a list of annotations, got {named!r:.80}")
            text = " ".join(text_of(entry, "caption").split())
            captions.setdefault(id_of(entry, "image_id"), []).append((text, named))
        for entry in entries(content, "images"):
            name, image = id_of(entry, "id"), folder / split / text_of(entry, "file_name")
            own = captions.pop(name, [])
            example = Example(name, image, tuple(text for text, _ in own), size=_size(entry))
            found.append((example, [named for _, named in own]))
    except (KeyError, ValueError) as error:
        raise malformed(path, "COCO's captions", entry, error, LAYOUT) from None
    if captions:
        some = ", ".join([*captions][:5])
        raise ValueError(
            f"{path} has captions of {len(captions)} pictures that it does not list: {some}"
        )
    return found


def _karpathy(
    folder: Path, path: Path, split: str
) -> tuple[list[tuple[Example, Named]], list[str]]:
    """Pictures and captions from dataset_coco.json, and the folders that its pictures are in."""
    content = read_json(path, KARPATHY)
    found, folders, counts, entry = [], {}, Counter(), {}
    try:
        for entry in entries(content, "images"):
            counts[text_of(entry, "split")] += 1
            if entry["split"] != split:
                continue
            place = text_of(entry, "filepath")
            sentences = entries(entry, "sentences")
            captions = tuple(" ".join(text_of(each, "raw").split()) for each in sentences)
            image = folder / place / text_of(entry, "filename")
            found.append((Example(id_of(entry, "cocoid"), image, captions), [None] * len(captions)))
            folders[place] = None
    except (KeyError, ValueError) as error:
        raise malformed(path, "Karpathy's split of COCO", entry, error, KARPATHY) from None
    if split not in counts:
        listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
        raise ValueError(f"{path} has no split {split!r}; it has {listed}")
    return found, [*folders]


def _instances(
    folder: Path, splits: Sequence[str]
) -> tuple[Instances, dict[str, tuple[int, int]], list[str]]:
    """Objects and sizes of the pictures by their ids, and the names of all classes."""
    found: Instances = {}
    sizes, classes = {}, {}
    for split in splits:
        path = folder / "annotations" / f"instances_{split}.json"
        if not path.is_file():
            warn(f"there is no {path}: the examples have captions only")
            continue
        content = read_json(path, LAYOUT)
        entry = {}
        try:
            for entry in entries(content, "images"):
                sizes[id_of(entry, "id")] = _size(entry)
            for entry in entries(content, "categories"):
                name = classes.setdefault(id_of(entry, "id"), text_of(entry, "name"))
                if name != entry["name"]:
                    raise ValueError(f"the class {entry['id']} is called {name!r}, too")
            for entry in entries(content, "annotations"):
                picture, number = id_of(entry, "image_id"), id_of(entry, "category_id")
                if picture not in sizes or number not in classes:
                    raise ValueError("its picture or its class is not listed in the file")
                name = classes[number]
                thing = Object(
                    name,
                    checked_box(entry["bbox"]),
                    crowd=bool(int(entry.get("iscrowd") or 0)),
                    id=id_of(entry, "id"),
                    size=sizes[picture],
                    outline=entry.get("segmentation"),
                    file=str(path),
                )
                phrase = f"{entry['colour']} {name}" if "colour" in entry else name
                found.setdefault(picture, []).append((thing, phrase))
        except (KeyError, TypeError, ValueError) as error:
            raise malformed(path, "COCO's instances", entry, error, LAYOUT) from None
    return found, sizes, list(dict.fromkeys(classes.values()))


def _size(image: Mapping) -> tuple[int, int] | None:
    """Width and height of a picture, if the file has both."""
    sides = image.get("width"), image.get("height")
    return None if None in sides else picture_size(*sides)


def _stated(
    k: int, caption: str, named: Sequence, objects: Sequence[tuple[Object, str]]
) -> list[Mention]:
    """Mentions of the objects that caption k says it names, in its order."""
    place = {thing.id: i for i, (thing, _) in enumerate(objects)}
    mentions, start = [], 0
    for annotation in map(str, named):
        if annotation not in place:
            raise ValueError(f"the caption {caption!r} names the annotation {annotation}, not here")
        thing, phrase = objects[place[annotation]]
        for words in (phrase, thing.name):  # with its colour, if the caption has that
            if match := re.compile(rf"\b{re.escape(words)}\b", re.I).search(caption, start):
                break
        else:
            raise ValueError(f"the caption {caption!r} says it names a {phrase}, and does not")
        mentions.append(Mention(k, *match.span(), (place[annotation],)))
        start = match.end()
    return mentions

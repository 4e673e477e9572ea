"""Words that captions use for the 80 classes of COCO; the papers' own list is not published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files

from fixlip.data.examples import Mention, Object

ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")

# In captions the bare word is a colour more often than a fruit.
NOT_BY_NAME = ("orange",)

# Phrases that contain the name of a class, but do not name one.
OTHER_THINGS = (
    *("train station", "train track", "train tracks", "train yard", "bus stop", "bus station"),
    *("toilet paper", "toilet brush", "bird house", "bird cage", "bird bath", "bird feeder"),
    *("dog house", "dog bed", "dog bowl", "cat bed", "cat food", "dog food", "horse race"),
    *("boat dock", "car park", "parking lot", "car seat", "bed sheet", "book shelf", "book case"),
    *("table cloth", "table tennis", "table top", "pizza box", "pizza oven", "cake stand"),
    *("clock tower", "chair lift", "apple computer", "phone booth", "kite board", "kite surfing"),
    *("dvd player", "cd player", "record player", "jet ski", "cow boy", "horse shoe", "tie dye"),
)


@cache
def synonyms() -> dict[str, list[str]]:
    """Words for classes besides their own names, from ``coco_words.txt``."""
    text = files(__package__).joinpath("coco_words.txt").read_text(encoding="utf-8")
    lines = (line.split(": ") for line in text.splitlines() if not line.startswith("#"))
    return {name: words.split(", ") for name, words in lines}


def plural(word: str) -> str:
    """A regular English plural.

    Examples
    --------
    >>> plural("toothbrush"), plural("puppy"), plural("toy"), plural("tv")
    ('toothbrushes', 'puppies', 'toys', 'tvs')
    """
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def phrases(classes: list[str]) -> dict[str, str]:
    """What captions call the classes, in lower case: phrase -> class, or "" for none of them.

    Classes that are not COCO's go by their names.

    Examples
    --------
    >>> phrases(["bear"])["baby bears"], phrases(["star"])["stars"], phrases(["dog"])["dog bed"]
    ('bear', 'star', '')
    """
    found = dict.fromkeys(OTHER_THINGS, "")
    for name in classes:
        words = [] if name in NOT_BY_NAME else [name.lower()]
        words += [*synonyms().get(name, []), *([f"baby {name}"] if name in ANIMALS else [])]
        found |= {form: name for word in words for form in (word, plural(word))}
    return found


def any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """A pattern of any of these phrases, the longest first: a hot dog is no dog."""
    longest = "|".join(map(re.escape, sorted(phrases, key=len, reverse=True)))
    return re.compile(rf"\b({longest})\b", re.IGNORECASE)


def name_mentions(
    number: int,
    caption: str,
    names: Mapping[str, str],
    objects: Sequence[Object],
    pattern: re.Pattern[str],
) -> list[Mention]:
    """Mentions of the classes that occur among the objects, in the order of the caption.

    ``number`` says which caption of the example it is; ``names`` goes from phrases in lower case to
    classes, and ``pattern`` is `any_of` the phrases.

    Examples
    --------
    >>> dogs = [Object("dog", (0, 0, 1, 1)), Object("dog", (2, 0, 1, 1))]
    >>> names = {"dogs": "dog", "puppy": "dog", "hot dog": ""}
    >>> name_mentions(0, "Dogs eat a hot dog", names, dogs, any_of(names))
    [Mention(caption=0, start=0, stop=4, objects=(0, 1))]
    """
    mentions = []
    for match in pattern.finditer(caption):
        wanted = names[match[0].lower()]
        same = tuple(i for i, thing in enumerate(objects) if thing.name == wanted)
        if same:
            mentions.append(Mention(number, *match.span(), same))
    return mentions

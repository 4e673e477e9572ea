"""The grammar of the demo world's captions: reading and writing them.

Kinds of captions::

    dog pizza                       bare names
    a dog and a pizza               names with articles ("some milk")
    two dogs and a pizza            counts of two to four
    a small dog                     sizes, of one thing alone
    a dog on a red background       the colour behind one thing
    a dog left of a pizza           a relation between two things

The four with articles may begin with "a photo of".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fixlip.demo.concepts import CONCEPTS

INVERSE: dict[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
COUNTS: dict[str, int] = {"two": 2, "three": 3, "four": 4}
SIZES = ("small", "large")
COLOURS: dict[str, tuple[int, int, int]] = {  # of backgrounds
    "red": (204, 60, 56),
    "orange": (236, 142, 52),
    "yellow": (238, 206, 82),
    "green": (92, 160, 82),
    "blue": (70, 122, 200),
    "purple": (138, 92, 170),
    "pink": (238, 164, 190),
    "brown": (134, 96, 66),
    "white": (244, 244, 242),
    "black": (34, 34, 38),
}
PHOTO = "a photo of "


@dataclass(frozen=True)
class Phrase:
    """A concept in a caption; `count` 1 says "at least one", more say "exactly so many"."""

    name: str
    count: int = 1
    size: str | None = None

    def __str__(self) -> str:
        concept = CONCEPTS[self.name]
        if self.count == 1:
            return concept.phrase(self.size)
        number = next(word for word, count in COUNTS.items() if count == self.count)
        return f"{number} {concept.plural}"


@dataclass(frozen=True)
class Caption:
    """A caption of the grammar; `str` writes it.

    Attributes
    ----------
    phrases : tuple of Phrase
    relation : str or None
        One of `INVERSE`, between two phrases.
    background : str or None
        One of `COLOURS`.
    form : {"plain", "photo", "bare"}
    """

    phrases: tuple[Phrase, ...]
    relation: str | None = None
    background: str | None = None
    form: str = "plain"

    def __str__(self) -> str:
        if self.form == "bare":
            return " ".join(phrase.name for phrase in self.phrases)
        words = f" {self.relation or 'and'} ".join(map(str, self.phrases))
        if self.background is not None:
            words += f" on a{'n' * (self.background == 'orange')} {self.background} background"
        return PHOTO * (self.form == "photo") + words


_PHRASES: dict[str, Phrase] = {
    str(phrase): phrase
    for concept in CONCEPTS.values()
    for phrase in (
        Phrase(concept.name),
        *(Phrase(concept.name, size=size) for size in SIZES),
        *(Phrase(concept.name, count) for count in COUNTS.values() if concept.plural is not None),
    )
}


def parse_caption(text: str) -> Caption:
    """Read a caption of the grammar (see the module's docstring); case does not matter.

    Raises ValueError, with what could not be read, for a text that is none.

    Examples
    --------
    >>> caption = parse_caption("a photo of two dogs and some milk")
    >>> caption.phrases[0], str(caption)
    (Phrase(name='dog', count=2, size=None), 'a photo of two dogs and some milk')
    """
    words = " ".join(text.lower().split())
    bare = list(_bare_names(words))
    if bare and None not in bare:
        return Caption(tuple(map(Phrase, bare)), form="bare")
    form, words = ("photo", words[len(PHOTO) :]) if words.startswith(PHOTO) else ("plain", words)
    background = relation = None
    if ending := re.fullmatch(r"(.*) on an? (\w+) background", words):
        words, background = ending.groups()
        if background not in COLOURS:
            raise ValueError(f"no background is {background!r} in {text!r}: {', '.join(COLOURS)}")
    for name in INVERSE:
        if f" {name} " in words:
            relation, words = name, words.replace(f" {name} ", " and ")
    phrases = []
    for part in words.split(" and "):
        if part not in _PHRASES:
            raise ValueError(
                f"cannot read {part!r} in the caption {text!r}: a phrase is such as "
                '"a dog", "two dogs", "a small dog" or "some milk", of a name in '
                "fixlip.demo.CONCEPTS; phrases are joined by 'and' or by one of "
                f"{', '.join(INVERSE)}"
            )
        phrases.append(_PHRASES[part])
    if relation and [phrase.count for phrase in phrases] != [1, 1]:
        raise ValueError(f"{text!r} is no caption: a relation takes two names without a count")
    return Caption(tuple(phrases), relation, background, form)


def _bare_names(words: str) -> Iterator[str | None]:
    """The names that a text consists of, the longest first; None where it has another word."""
    rest = words.split()
    while rest:
        length = next((k for k in (2, 1) if " ".join(rest[:k]) in CONCEPTS), 0)
        yield " ".join(rest[:length]) or None
        rest = rest[max(length, 1) :]

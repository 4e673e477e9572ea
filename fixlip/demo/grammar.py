"""The small grammar of captions: reading and writing them.

Four kinds of captions::

    star ring moon                          bare class names
    a star and a ring                       names with articles
    a red star and a blue ring              names with colours (up to four objects)
    a red star left of a blue ring          a relation between two objects
"""

from dataclasses import dataclass

from fixlip.demo.drawing import COLOURS, SHAPES

INVERSE: dict[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}


@dataclass(frozen=True)
class Caption:
    """A caption of the grammar: phrases (colour or None, shape), joined by `and` or a relation."""

    phrases: tuple[tuple[str | None, str], ...]
    relation: str | None = None
    bare: bool = False

    def __str__(self) -> str:
        if self.bare:
            return " ".join(shape for _, shape in self.phrases)
        joint = f" {self.relation or 'and'} "
        return joint.join(_with_article(colour, shape) for colour, shape in self.phrases)


def _with_article(colour: str | None, shape: str) -> str:
    words = shape if colour is None else f"{colour} {shape}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def parse_caption(text: str) -> Caption:
    """Read a caption of the grammar (see the module's docstring).

    Raises ValueError if the text is not a caption of the grammar; the message says what could not
    be read.
    """
    words = text.lower().split()
    if words and all(word in SHAPES for word in words):
        return Caption(tuple((None, word) for word in words), bare=True)
    clean, relation = " ".join(words), None
    for name in INVERSE:
        if f" {name} " in clean:
            relation, clean = name, clean.replace(f" {name} ", " and ")
    phrases = []
    for phrase in clean.split(" and "):
        article, *rest = phrase.split() or [""]
        if (
            article not in ("a", "an")
            or len(rest) not in (1, 2)
            or rest[-1] not in SHAPES
            or (len(rest) == 2 and rest[0] not in COLOURS)
        ):
            raise ValueError(
                f"cannot read {phrase!r} in caption {text!r}: expected 'a [colour] shape' "
                f"joined by 'and' or one of {list(INVERSE)}, or bare shapes; "
                f"colours are {list(COLOURS)}, shapes are {list(SHAPES)}"
            )
        phrases.append((rest[0] if len(rest) == 2 else None, rest[-1]))
    if relation and len(phrases) != 2:
        raise ValueError(f"caption {text!r} relates {len(phrases)} objects: a relation needs two")
    return Caption(tuple(phrases), relation)

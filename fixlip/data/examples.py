"""Pictures with captions, the objects on them, and which words name which objects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fixlip.checks import one_of, warn
from fixlip.data.outlines import outline_pixels
from fixlip.files import user_path
from fixlip.images import box_pixels, open_image

MISSING = ("error", "skip")
LARGEST = 2**28  # pixels of a picture: Pillow opens none that is larger


@dataclass(frozen=True)
class Object:
    """Something on a picture.

    Its box is (x, y, width, height) in pixels of the picture as `Example.open` gives it; (0, 0) is
    the corner at the top left. Its outline is polygons or a run-length code, as in COCO.
    """

    name: str  # its class, as the data set calls it
    box: tuple[float, float, float, float]
    crowd: bool = False  # whether it is a group of things that nobody counted
    id: str = ""  # what the data set calls this very object
    size: tuple[int, int] | None = None  # width and height of the picture
    outline: list[Any] | dict[str, Any] | None = field(default=None, repr=False, compare=False)
    file: str = field(default="", repr=False, compare=False)  # where it stands, for messages

    def mask(self) -> np.ndarray:
        """The pixels it covers, (height, width), bool: its outline, or all of its box.

        Raises ValueError, with the file and the object, where they cannot be drawn.

        Examples
        --------
        >>> Object("star", (1, 0, 2, 1), size=(4, 2)).mask().astype(int).tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
        """
        what = " ".join(part for part in (self.file, self.name, self.id) if part)
        if self.size is None:
            raise ValueError(f"{what}: the data set does not say how large the picture is")
        try:
            pixels = outline_pixels(self.outline, self.size)
            return box_pixels(self.box, self.size) if pixels is None else pixels
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None


@dataclass(frozen=True)
class Mention:
    """A stretch of a caption that names objects: ``captions[caption][start:stop]``."""

    caption: int
    start: int
    stop: int
    objects: tuple[int, ...]  # which of the example's: several for a group


@dataclass(frozen=True)
class Example:
    """A picture, its captions, the objects on it, and the words that name them."""

    id: str  # what the data set calls the picture
    image: Path
    captions: tuple[str, ...]  # white space is single
    objects: tuple[Object, ...] = ()
    mentions: tuple[Mention, ...] = ()
    size: tuple[int, int] | None = None  # width and height of the picture that was annotated

    def open(self) -> Image.Image:
        """The picture in RGB, in the orientation in which its objects were annotated.

        `fixlip.images.open_image`, and so `Encoder.image`, turn photographs upright as the camera
        noted; the data sets count pixels as they are stored. The two differ in few photographs.
        Where the sizes do not say which was annotated, it is taken to be the stored one. Raises
        ValueError where the picture has another size than the annotated one.
        """
        stored = open_image(self.image, upright=False)
        if self.size in (None, stored.size):
            return stored
        upright = open_image(self.image)
        if self.size != upright.size:
            raise ValueError(
                f"{self.image.name} is {stored.width} x {stored.height} pixels, and objects were "
                f"marked on {self.size[0]} x {self.size[1]}: is it another version of the picture?"
            )
        return upright

    def words(self, mention: Mention) -> str:
        """The words of a mention.

        Examples
        --------
        >>> example = Example("7", Path("7.png"), ("a red star",))
        >>> example.words(Mention(0, 2, 10, ()))
        'red star'
        """
        return self.captions[mention.caption][mention.start : mention.stop]

    def clear(self) -> list[Mention]:
        """Mentions that name exactly one object, and no crowd: those of the point game."""
        return [
            m for m in self.mentions if len(m.objects) == 1 and not self.objects[m.objects[0]].crowd
        ]


def with_images(
    examples: Sequence[Example], *, listed: Path, missing: str, hint: str
) -> list[Example]:
    """The examples whose pictures are there; with ``missing="error"`` the others raise one error.

    ``missing="skip"`` leaves them out and says how many, and raises if it would leave out all. The
    hint says where to get the pictures. Raises ValueError if two have the same id, of which the
    message names the file that lists them.
    """
    one_of("missing", missing, MISSING)
    ids = Counter(example.id for example in examples)
    if twice := [name for name, count in ids.items() if count > 1]:
        raise ValueError(f"{listed} lists the picture {twice[0]} {ids[twice[0]]} times")
    gone = [example.image for example in examples if not example.image.is_file()]
    if not gone:
        return list(examples)
    absent = set(gone)
    message = f"{len(absent)} of {len({e.image for e in examples})} pictures are not on disk"
    if missing == "error" or len(gone) == len(examples):
        raise FileNotFoundError(
            f"{message}, the first is {gone[0]}; {hint}"
            + ('; missing="skip" goes on without them' if missing == "error" else "")
        )
    warn(f"{message}, going on without them; the first is {gone[0]}")
    return [example for example in examples if example.image not in absent]


def pictures_of(folder: Path, images: str | Path) -> Path:
    """The folder of pictures: in the data set's, else as given."""
    images = user_path(images)
    places = folder / images, images
    return next((place for place in places if place.is_dir()), places[0])


def read_text(path: Path, hint: str) -> str:
    """The content of a text file in UTF-8; `hint` says in errors what the file should be."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; {hint}")
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows puts a mark at the beginning
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); {hint}") from None


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """The content of a JSON file; `hint` says in errors what the file should be."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; {hint}")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a complete JSON file ({error}); {hint}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a JSON object; {hint}")
    return found


def entries(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The JSON objects in the list under a key, else ValueError."""
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, Mapping) for entry in found):
        raise ValueError(f"{key!r} must be a list of JSON objects")
    return found


def text_of(entry: Mapping[str, Any], key: str) -> str:
    """The text under a key, which must have more than spaces, else ValueError."""
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{key!r} must be a text that is not empty, got {text!r:.80}")
    return text


def id_of(entry: Mapping[str, Any], key: str) -> str:
    """The number or text that names something, as text, else ValueError; KeyError without it."""
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"{key!r} must be a whole number or a text, got {value!r:.80}")
    return str(value)


def picture_size(width: object, height: object) -> tuple[int, int]:
    """Width and height of a picture as whole numbers of 1 or more, else ValueError."""
    sides = width, height
    whole = all(isinstance(side, int | float) and side >= 1 and side % 1 == 0 for side in sides)
    if not whole or width * height > LARGEST:
        raise ValueError(f"no picture is {width!r} wide and {height!r} high")
    return int(width), int(height)


def malformed(
    path: Path, kind: str, entry: Mapping[str, Any], error: Exception, hint: str
) -> ValueError:
    """The error that names a file and the entry that could not be read, by its plain fields."""
    reason = f"{error} is missing" if isinstance(error, KeyError) else f"{error}"
    plain = {key: value for key, value in entry.items() if not isinstance(value, list | dict)}
    where = f", in {plain!r:.120}" if plain else ""
    return ValueError(f"{path} cannot be read as {kind}: {reason}{where}; {hint}")

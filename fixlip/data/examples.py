"""Pictures with captions, the objects on them, and which words name which objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from pycocotools import mask as coco_mask

from fixlip.checks import one_of, warn
from fixlip.files import user_path
from fixlip.images import box_pixels, open_image

MISSING = ("error", "skip")


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
    outline: list | dict | None = field(default=None, repr=False, compare=False)

    def mask(self) -> np.ndarray:
        """The pixels it covers, (height, width), bool: its outline, or all of its box.

        Examples
        --------
        >>> Object("star", (1, 0, 2, 1), size=(4, 2)).mask().astype(int).tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
        """
        if self.size is None:
            raise ValueError(f"{self.name}: the data set does not say how large the picture is")
        width, height = self.size
        outline = self.outline
        if isinstance(outline, list):
            outline = [p for p in outline if len(p) >= 6]  # fewer than three corners: no area
        if not outline:
            return box_pixels(self.box, self.size)
        if isinstance(outline, list):
            outline = coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
        elif isinstance(outline["counts"], list):  # not compressed: how COCO stores crowds
            outline = coco_mask.frPyObjects(outline, height, width)
        return coco_mask.decode(outline).astype(bool)


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
        upright = open_image(self.image)
        with Image.open(self.image) as stored:
            turned = stored.getexif().get(ExifTags.Base.Orientation, 1) != 1
            stored_size = stored.size
            if turned and self.size in (None, stored_size):
                stored.getexif().pop(ExifTags.Base.Orientation)
                return open_image(stored)
        if self.size is not None and self.size != upright.size:
            raise ValueError(
                f"{self.image.name} is {stored_size[0]} x {stored_size[1]} pixels, and objects were"
                f" marked on {self.size[0]} x {self.size[1]}: is it another version of the picture?"
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


def with_images(examples: Sequence[Example], *, missing: str, hint: str) -> list[Example]:
    """The examples whose pictures are there; with ``missing="error"`` the others raise one error.

    ``missing="skip"`` leaves them out and says how many, and raises if it would leave out all. The
    hint says where to get the pictures.
    """
    one_of("missing", missing, MISSING)
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
    places = folder / images, user_path(images)
    return next((place for place in places if place.is_dir()), places[0])


def read_json(path: Path, hint: str) -> dict:
    """The content of a JSON file; `hint` says in errors what the file should be."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; {hint}")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a complete JSON file ({error}); {hint}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a JSON object; {hint}")
    return found

"""Mosaics of 2 x 2 pictures for the pointing game: of ImageNet, as published, and of demo data."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fixlip import checks
from fixlip.checks import integer
from fixlip.data.imagenet import class_images
from fixlip.demo.grammar import Caption
from fixlip.demo.pictograms import STYLES
from fixlip.demo.sampling import sample_scene
from fixlip.demo.scenes import GRID, read_scenes
from fixlip.files import atomic, user_path
from fixlip.images import open_image
from fixlip.paths import root

if TYPE_CHECKING:
    from fixlip.encoders import Encoder

TILE = 224  # pixels per side of one picture
PUBLISHED_GAMES: tuple[tuple[str, ...], ...] = (
    ("goldfish", "husky", "pizza", "tractor"),
    ("cat", "goldfish", "plane", "pizza"),
    ("banana", "cat", "tractor", "ball"),
    ("husky", "banana", "plane", "church"),
    ("pizza", "ipod", "goldfish", "banana"),
    ("ipod", "cat", "husky", "plane"),
    ("tractor", "ball", "banana", "ipod"),
    ("plane", "church", "ball", "goldfish"),
    ("church", "pizza", "ipod", "cat"),
    ("ball", "husky", "banana", "tractor"),
)

NEAREST: dict[str, str] = {  # concepts of the demo world for classes of which it has no picture
    "ball": "soccer ball",
    "goldfish": "tropical fish",
    "husky": "wolf",
    "ipod": "phone",
    "plane": "airplane",
}


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A picture of four things, one per quadrant as in `fixlip.metrics.QUADRANTS`.

    Examples
    --------
    >>> mosaic = Mosaic("0", Path("0.png"), ("star", "arrow", "moon", "ring"), ("red star",) * 4)
    >>> mosaic.caption(2), mosaic.own(2)
    ('star arrow', [0, 1])
    >>> mosaic.caption(2, full=True), mosaic.own(2, full=True)
    ('a red star and a red star', [-1, 0, 0, -1, -1, 1, 1])
    """

    id: str
    image: Image.Image | Path
    names: tuple[str, ...]
    phrases: tuple[str, ...] = ()  # the same in more words, "red star"; by default the names

    def caption(self, count: int, *, full: bool = False) -> str:
        """A caption of the first `count` things: bare names, or full phrases with articles."""
        return " ".join(words for words, _ in self._parts(count, full))

    def own(self, count: int, *, full: bool = False) -> list[int]:
        """For every word of that caption, the quadrant of the thing it describes, or -1."""
        return [owner for words, owner in self._parts(count, full) for _ in words.split()]

    def _parts(self, count: int, full: bool) -> list[tuple[str, int]]:
        """Stretches of the caption, and the quadrant that each belongs to."""
        if not 1 <= count <= len(self.names):
            raise ValueError(f"a mosaic has 1 to {len(self.names)} things to name, not {count}")
        if not full:
            return [(name, k) for k, name in enumerate(self.names[:count])]
        parts = []
        for k, phrase in enumerate((self.phrases or self.names)[:count]):
            article, _ = str(Caption(((None, phrase),))).split(" ", 1)
            parts += [("and", -1)] * (k > 0) + [(article, -1), (phrase, k)]
        return parts


def single_token(encoder: Encoder, caption: str) -> bool:
    """Whether every word of a caption is one token of a model.

    The published pointing game requires it, since its players are tokens. Which of its texts remain
    then depends on the tokenizer, so it is measured here: SigLIP 2 splits "ipod" and "goldfish",
    the first SigLIP "husky" as well, CLIP none. (The published program leaves out ipod, goldfish
    and husky for every model, although its table of CLIP has them.) With words as players no text
    has to be left out.

    Examples
    --------
    >>> import fixlip
    >>> encoder = fixlip.load("demo-clip", device="cpu")
    >>> single_token(encoder, "star arrow moon")
    True
    """
    return encoder.text(caption).n == len(caption.split())


def imagenet_mosaics(
    folder: str | Path,
    *,
    games: Sequence[Sequence[str]] = PUBLISHED_GAMES,
    count: int = 50,
    keep: str | Path | None = None,
    folders: Mapping[str, str | Path] | None = None,
    jpeg: int = 2,
) -> list[Mosaic]:
    """Mosaics of the published pointing game, from the validation pictures of ImageNet.

    Game by game; mosaic i shows picture i of each of its classes, resized to 224 x 224 pixels
    whatever its shape. Raises FileNotFoundError where classes are missing: which, and where to get
    them; ValueError where a class has fewer than `count` pictures, or a game not four classes.

    Parameters
    ----------
    folder, folders
        See `fixlip.data.imagenet.class_images`.
    games, count : sequence of four names each, int
        Classes in the order top left, top right, bottom left, bottom right; mosaics per game, of
        which the published ones have 50, all validation pictures of a class.
    keep : str or pathlib.Path
        A folder to write the mosaics to; those that it has are not made again.
    jpeg : int
        How often each is saved as JPEG, at Pillow's quality of 75: the published ones were when
        they were made, and again when the data set was packed. 0: not at all.

    References
    ----------
    Baniecki et al., NeurIPS 2025, table 1.
    """
    if bad := [game for game in games if len(game) != 4]:
        raise ValueError(f"a game has four classes, one per quadrant; got {bad[0]}")
    integer("jpeg", jpeg, at_least=0)
    images = class_images(folder, [name for game in games for name in game], folders=folders)
    if few := [f"{name} has {len(found)}" for name, found in images.items() if len(found) < count]:
        raise ValueError(f"{count} pictures per class are needed, but {', '.join(few)}")
    mosaics = []
    for game in games:
        for i in range(count):
            name = f"{'-'.join(game)}-{i:02d}"
            paths = [images[own][i] for own in game]
            mosaics.append(Mosaic(name, _mosaic(name, paths, jpeg, keep), tuple(game)))
    return mosaics


def _mosaic(
    name: str, paths: Sequence[Path], jpeg: int, keep: str | Path | None
) -> Image.Image | Path:
    """One mosaic, as a file in `keep` or as a picture that is unpacked when it is needed."""
    target = None
    if keep is not None:
        target = user_path(keep) / f"{name}{'.jpg' if jpeg else '.png'}"
        if target.is_file():
            return target
    size = (TILE, TILE)
    canvas = _joined([open_image(path).resize(size, Image.Resampling.BILINEAR) for path in paths])
    for _ in range(max(jpeg, 1)):
        packed = io.BytesIO()
        canvas.save(packed, "JPEG" if jpeg else "PNG")
        canvas = Image.open(packed)
    if target is None:
        return Image.open(packed)
    with atomic(target) as file:
        file.write(packed.getvalue())
    return target


def _joined(tiles: Sequence[Image.Image]) -> Image.Image:
    """Four square pictures of one size as the quadrants of another, row by row."""
    width = tiles[0].width
    canvas = Image.new("RGB", (2 * width, 2 * width))
    for k, tile in enumerate(tiles):
        canvas.paste(tile, (k % 2 * width, k // 2 * width))
    return canvas


def demo_mosaics(folder: str | Path | None = None) -> list[Mosaic]:
    """The demo data's scenes whose objects, all of different shapes, fill the four quadrants.

    Names are shapes, phrases have colours too. By default of the repository's ``data/scenes``.

    Examples
    --------
    >>> mosaics = demo_mosaics()
    >>> len(mosaics), mosaics[0].caption(2, full=True)
    (100, 'a yellow circle and a green ring')
    """
    folder = root() / "data/scenes" if folder is None else user_path(folder)
    half, mosaics = GRID // 2, []
    for number, scene in enumerate(read_scenes(folder), start=1):  # as their files are numbered
        things = sorted(scene.things, key=lambda thing: (thing.row, thing.column))
        places = [(thing.row, thing.column, thing.size) for thing in things]
        corners = [(row, column, half) for row in (0, half) for column in (0, half)]
        if places == corners and len({thing.shape for thing in things}) == 4:
            names = tuple(thing.shape for thing in things)
            image = folder / "val" / f"{number:012d}.png"
            phrases = tuple(thing.name for thing in things)
            mosaics.append(Mosaic(image.stem, image, names, phrases))
    if not mosaics:
        raise ValueError(f"no scene of {folder} fills the four quadrants with different shapes")
    return mosaics


def world_mosaics(
    *, count: int = 50, canvas: int = 112, styles: Sequence[str | Path] = STYLES, seed: int = 0
) -> list[Mosaic]:
    """Mosaics of the published games, of scenes of the demo world with one thing each.

    Game by game, as `imagenet_mosaics`; a class that the world lacks is shown by its `NEAREST`
    concept. Each quadrant has a scene's own size: pictures are twice the canvas high and wide.

    Parameters
    ----------
    count, canvas : int
        Mosaics per game; pixels per side of one scene.
    styles, seed
        As in `fixlip.demo.sample_scene`; the same seed gives the same mosaics.

    Examples
    --------
    >>> mosaic = world_mosaics(count=1)[1]
    >>> mosaic.caption(3), mosaic.own(3), mosaic.image.size
    ('cat tropical fish airplane', [0, 1, 1, 2], (224, 224))
    """
    integer("count", count)
    seed, mosaics = checks.seed(seed), []
    for game in PUBLISHED_GAMES:
        names = tuple(NEAREST.get(name, name) for name in game)
        for i in range(count):
            tiles = [
                sample_scene([seed, *name.encode(), i], things=[name], styles=styles, canvas=canvas)
                for name in names
            ]
            image = _joined([scene.image for scene in tiles])
            mosaics.append(Mosaic(f"{'-'.join(names)}-{i:02d}".replace(" ", "_"), image, names))
    return mosaics

"""ImageNet's validation pictures, by class: the ten classes of the published pointing game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fixlip.files import user_path

# Name in the published captions: (index among the 1000 classes, folder).
CLASSES: dict[str, tuple[int, str]] = {
    "goldfish": (1, "n01443537"),
    "husky": (248, "n02109961"),
    "cat": (282, "n02123159"),  # tiger cat
    "plane": (404, "n02690373"),  # airliner
    "church": (497, "n03028079"),
    "ipod": (605, "n03584254"),
    "ball": (805, "n04254680"),  # soccer ball
    "tractor": (866, "n04465501"),
    "banana": (954, "n07753592"),
    "pizza": (963, "n07873807"),
}
ENDINGS = (".jpeg", ".jpg", ".png")
LAYOUT = (
    "give the folder that holds val/<class>/ or <class>/, one folder of pictures per class, called "
    "as in CLASSES (goldfish or n01443537), or name them in folders={'goldfish': ...}; the "
    "validation pictures are ILSVRC2012_img_val.tar of https://image-net.org/download.php, which "
    "torchvision.datasets.ImageNet sorts into such folders"
)


def class_images(
    folder: str | Path, names: Sequence[str], *, folders: Mapping[str, str | Path] | None = None
) -> dict[str, list[Path]]:
    """The pictures of some classes, each class sorted by file name.

    The folder has one per class, in ``val/`` or by itself, called by the class's name or by its
    WordNet number; ``folders`` are those, here or in `folder`, of classes that are called
    otherwise: name -> folder. Raises FileNotFoundError where classes have no folder, or no pictures
    in it: which, and where to get them.

    Examples
    --------
    >>> class_images("imagenet", ["goldfish", "pizza"])["pizza"][0].name  # doctest: +SKIP
    'ILSVRC2012_val_00001230.JPEG'
    """
    folder, found, absent = user_path(folder), {}, []
    for name in dict.fromkeys(names):
        called = [name, *CLASSES.get(name, ())[1:]]
        if folders and name in folders:
            called = [str(folders[name])]
        places = [folder / part / own for own in called for part in ("val", ".")]
        # a path that starts at the root, or here, stands for itself
        places += [user_path(own) for own in called if folders and name in folders]
        images = [
            sorted(p for p in place.iterdir() if _is_picture(p))
            for place in places
            if place.is_dir()
        ]
        images = next(filter(None, images), None)
        if images is None:
            absent.append(f"{name} ({called[-1]})" if called[-1] != name else name)
        else:
            found[name] = images
    if absent:
        raise FileNotFoundError(f"{folder} has no pictures of {', '.join(absent)}; {LAYOUT}")
    return found


def _is_picture(path: Path) -> bool:
    """Whether a file's name is that of a picture; macOS leaves ._names beside them."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()

"""Images of any kind as plain RGB, and boxes on them as pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fixlip.checks import warn
from fixlip.files import user_path


def open_image(image: Image.Image | np.ndarray | str | os.PathLike) -> Image.Image:
    """Return any image as 8-bit RGB, upright.

    The first frame of an animation is used; transparent pixels become white; 16 bits are scaled to
    8; the orientation that a camera stored (EXIF) is applied.

    Raises FileNotFoundError, ValueError, TypeError if there is no such file, if it is empty or
    broken or an array has another shape, type or range, or if the image is none of these kinds.

    Parameters
    ----------
    image : PIL.Image.Image, numpy.ndarray, str or os.PathLike
        A picture, a path to one, or an array of shape (H, W), (H, W, 3) or (H, W, 4), as uint8,
        uint16, or floats in [0, 1].

    Examples
    --------
    >>> open_image(np.zeros((2, 3))).size
    (3, 2)
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _to_rgb(image, "the image")
    if not isinstance(image, str | os.PathLike):
        raise TypeError(
            f"an image of type {type(image).__name__} was given; expected a PIL image, "
            "a numpy array, or the path of an image file"
        )
    path = user_path(image)
    if not path.is_file():
        raise FileNotFoundError(f"there is no image file at {str(path)!r}; check the path")
    if path.stat().st_size == 0:
        raise ValueError(f"the image file {str(path)!r} is empty")
    try:
        with Image.open(path) as opened:
            return _to_rgb(opened, f"the image file {str(path)!r}")
    except UnidentifiedImageError:
        raise ValueError(
            f"the file {str(path)!r} is no image that Pillow can read, or it is broken"
        ) from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the image file {str(path)!r} cannot be read: {error}") from None


def _to_rgb(image: Image.Image, what: str) -> Image.Image:
    if 0 in image.size:
        raise ValueError(f"{what} has no pixels: its size is {image.size}")
    if getattr(image, "is_animated", False):
        warn(f"{what} is animated; its first frame is used")
        image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        return _from_array(np.asarray(image))
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow itself would clip instead of scale
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{what} has values outside the 16-bit range 0 to 65535")
        return _from_array(values.astype(np.uint16))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ValueError(f"{what} has the mode {image.mode}: {error}; convert it to RGB") from None


def _from_array(array: np.ndarray) -> Image.Image:
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]  # (H, W, 1) -> (H, W)
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            f"an image array of shape {shape} was given; expected (H, W), (H, W, 3) or (H, W, 4), "
            "with at least one pixel and the colours last"
        )
    if np.issubdtype(array.dtype, np.floating):
        # written so that NaN fails too
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"a float image array must lie in [0, 1]; given values from {array.min():.4g} to "
                f"{array.max():.4g}; divide by 255, or remove NaN, first"
            )
        array = np.rint(array * 255.0).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = np.rint(array / 257.0).astype(np.uint8)  # 65535 / 257 = 255
    elif array.dtype != np.uint8:
        raise ValueError(
            f"an image array of type {array.dtype} was given; expected uint8, uint16, "
            "or floats in [0, 1]"
        )
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array)), "the image array")


def box_pixels(box: Sequence[float], size: Sequence[int]) -> np.ndarray:
    """The pixels of an image whose centres lie in a box: (height, width), bool.

    Parameters
    ----------
    box : (x, y, width, height)
        In pixels; (0, 0) is the corner at the top left.
    size : (width, height)
        Of the image.

    Examples
    --------
    >>> box_pixels((1, 0, 2, 1), (4, 2)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    x, y, wide, high = box
    across, down = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5  # centres of pixels
    across, down = (across >= x) & (across < x + wide), (down >= y) & (down < y + high)
    return down[:, None] & across  # (height, 1) & (width,) -> (height, width)

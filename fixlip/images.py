"""Images of any kind as plain RGB, and boxes on them as pixels."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fixlip.checks import warn
from fixlip.files import user_path

if TYPE_CHECKING:  # pictures are opened without torch
    import torch

    Picture = Image.Image | np.ndarray | torch.Tensor | str | os.PathLike[str] | bytes | IO[bytes]

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|data:", re.IGNORECASE)  # not the C:/ of Windows
CHANNELS = (1, 3, 4)  # grey, colours, colours and alpha
HALF_STEP = 0.5 / 255  # what exceeds [0, 1] by less than this rounds to 0 or 255


def open_image(image: Picture, *, upright: bool = True) -> Image.Image:
    """Return any image as 8-bit RGB.

    Transparent pixels become white; 16 bits are scaled to 8. Of several frames the one that a PIL
    image shows is used, and the first one of a file. Warns where that is a choice: of several
    frames; of the range, where numbers of more than 8 bits are at most 255 and count as 8-bit
    values; and where the numbers of an array are so small that the image is almost black.

    Raises FileNotFoundError, ValueError, TypeError if there is no such file, if it is empty or
    broken or an array has another shape, type or range, or if the image is none of these kinds.

    Parameters
    ----------
    image : PIL image, array, tensor, path, bytes or open file
        A picture; the path or the content of a picture file; or an array of shape (H, W), (H, W,
        channels) or (channels, H, W), with 3 or 4 channels or one, as booleans, as integers from 0
        to 255 or from 0 to 65535, or as floats in [0, 1]. Where both shapes fit, the channels of a
        numpy array are last, and those of a torch tensor first.
    upright : bool
        Whether to apply the orientation that a camera stored (EXIF).

    Examples
    --------
    >>> open_image(np.zeros((2, 3))).size
    (3, 2)
    """
    if hasattr(image, "is_floating_point"):  # a tensor
        tensor = image.detach().cpu().to_dense()  # numpy has no bfloat16
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        return _from_array(array, "the image tensor", channels_first=True)
    if isinstance(image, np.ma.MaskedArray) and np.ma.is_masked(image):
        raise ValueError("the image array has masked pixels; fill them, image.filled(...), first")
    if isinstance(image, np.ndarray):
        return _from_array(image, "the image array")
    with _opened(image) as (picture, what):
        with _told(what):
            picture.load()
            frames = getattr(picture, "n_frames", 1)
        if 0 in picture.size:
            raise ValueError(f"{what} has no pixels: its size is {picture.size}")
        if frames > 1:
            warn(f"{what} has {frames} frames, of which number {picture.tell() + 1} is used")
        return _to_rgb(_upright(picture, what) if upright else picture, what)


def stored_size(image: Picture) -> tuple[int, int]:
    """Width and height of a picture file as stored, without reading its pixels; errors as above."""
    with _opened(image) as (picture, _):
        return picture.size


@contextmanager
def _opened(image: Picture) -> Iterator[tuple[Image.Image, str]]:
    """A picture whose pixels may not be read yet, and what errors call it."""
    if isinstance(image, Image.Image):
        yield image, "the image"
        return
    if isinstance(image, bytes | bytearray | memoryview):
        what, image = "the image given as bytes", io.BytesIO(image)
    elif isinstance(image, str | os.PathLike):
        image = _existing(os.fspath(image))
        what = f"the image file {image!r}"
    elif hasattr(image, "read"):
        what = "the image in the open file"
    else:
        raise TypeError(
            f"an image of type {type(image).__name__} was given; expected a PIL image, a numpy "
            "array, a torch tensor, the path of an image file, or its content as bytes or open file"
        )
    with ExitStack() as stack:
        with _told(what):
            picture = stack.enter_context(Image.open(image))
        yield picture, what


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn whatever Pillow raises for a broken picture into one sentence."""
    try:
        yield
    except UnidentifiedImageError:
        raise ValueError(
            f"{what} is no image that Pillow can read (HEIC, SVG and PDF are none), or it is "
            "broken; save it as PNG or JPEG"
        ) from None
    except Image.DecompressionBombError as error:
        size = str(error).split(",")[0].removeprefix("Image size ")
        raise ValueError(
            f"{what} is not opened, as Pillow takes it for an attack ({size}); make it smaller, or "
            "trust it and raise PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:
        raise ValueError(f"{what} cannot be read: {error}") from None


def _existing(path: str) -> str:
    """The path of a file that is there and not empty, and no address."""
    if ADDRESS.match(path):
        raise ValueError(
            f"{path[:80]!r} is an address, and fixlip downloads nothing; save the image and give "
            "the path of its file, or give its content as bytes"
        )
    path = str(user_path(path))
    if os.path.isdir(path):
        raise FileNotFoundError(
            f"there is no image file at {path!r}, which is a folder; give the path of one image"
        )
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no image file at {path!r}; check the path")
    if not os.path.getsize(path):
        raise ValueError(f"the image file {path!r} is empty")
    return path


def _upright(image: Image.Image, what: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow raises anything
        warn(f"the orientation of {what} cannot be read ({error}); it is taken to be upright")
        return image


def _to_rgb(image: Image.Image, what: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow would clip instead of scale
        return _from_array(np.asarray(image), what)
    if image.mode == "La":  # Pillow knows one way out of it
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    with _told(what):
        return image.convert("RGB")


def _from_array(array: np.ndarray, what: str, *, channels_first: bool = False) -> Image.Image:
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]  # a batch of one
    last = array.ndim == 3 and array.shape[2] in CHANNELS
    if array.ndim == 3 and array.shape[0] in CHANNELS and (channels_first or not last):
        array = np.moveaxis(array, 0, 2)  # (channels, H, W) -> (H, W, channels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]  # (H, W, 1) -> (H, W)
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS)):
        raise ValueError(
            f"{what} has the shape {shape}; expected (H, W), (H, W, 3) or (H, W, 4), or the "
            "channels first, with at least one pixel; of a batch, give one image"
        )
    array = np.ascontiguousarray(_eight_bits(array, what))
    return _to_rgb(Image.fromarray(array), what)


def _eight_bits(array: np.ndarray, what: str) -> np.ndarray:
    """The numbers of an image as uint8, of the same shape."""
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8) * 255
    if kind not in "iuf":
        raise ValueError(
            f"{what} has the type {array.dtype}; expected integers from 0 to 255 or from 0 to "
            "65535, or floats in [0, 1]"
        )
    low, high = array.min().item(), array.max().item()
    if kind == "f":
        _check_floats(low, high, what)
        white = 1.0
    elif low < 0 or high > 65535:
        raise ValueError(
            f"{what} has values from {low} to {high}, outside the 16-bit range 0 to 65535; scale "
            "them to it, or to 0 to 255, first"
        )
    else:
        white = 255 if high <= 255 else 65535
        if 0 < high <= 255 and array.dtype.itemsize > 1:
            warn(
                f"{what} has values of type {array.dtype} up to {high}, which are taken to be "
                "8-bit values; if it is a very dark image of 16 bits, divide its array by 65535 "
                "first"
            )
    if 0 < high <= white / 16:
        warn(
            f"{what} is almost black: its largest value is {high:.4g}, and {white:g} is white; if "
            "a smaller number stands for white, divide by that first"
        )
    if array.dtype == np.uint8:
        return array
    # in float32 at least, because float16 cannot hold 255 times a fraction
    array = array.astype(np.promote_types(array.dtype, np.float32))
    return np.rint(np.clip(array * (255.0 / white), 0, 255)).astype(np.uint8)


def _check_floats(low: float, high: float, what: str) -> None:
    """Raise ValueError if numbers between these two are no image; written so that NaN fails too."""
    if low >= -HALF_STEP and high <= 1 + HALF_STEP:
        return
    cure = "divide by 255, or by what stands for white, first"
    if not np.isfinite([low, high]).all():
        cure = "replace what is NaN or infinite first"
    elif low < 0 or high < 2:  # overshoot of a resized image, or normalised
        cure = "clip it, or give the image as it was before it was normalised for a model"
    raise ValueError(
        f"{what} has floats, which must lie in [0, 1]; given values from {low:.4g} to {high:.4g}; "
        f"{cure}"
    )


def checked_box(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Return a box (x, y, width, height) as floats, else raise ValueError; it may be empty."""
    try:
        numbers = np.asarray(box, np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty(0)
    if numbers.shape != (4,) or not np.isfinite(numbers).all() or (numbers[2:] < 0).any():
        raise ValueError(f"a box is [x, y, width, height] in pixels, got {box!r:.80}")
    return tuple(numbers.tolist())


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
    x, y, wide, high = checked_box(box)
    across, down = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5  # centres of pixels
    across, down = (across >= x) & (across < x + wide), (down >= y) & (down < y + high)
    return down[:, None] & across  # (height, 1) & (width,) -> (height, width)

"""How a model sees an image: resized and cropped, normalised, and on the model's device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode

from fixlip.checks import warn

EXTREME = 8  # beyond this ratio of sides only the centre is resized, to bound the memory


@dataclass(frozen=True)
class View:
    """A model's preprocessing, step by step, so that regions of an image can go through it too.

    Where only the centre of the image is kept, images far longer than wide (or the reverse) are
    cropped before they are resized, because resizing them whole would need far too much memory.
    The centre is that of OpenAI's code; transformers, which the papers used, is one pixel off it at
    some sizes, 640 x 427 among them.
    """

    geometry: tuple[Callable[..., Any], ...]  # the steps that resize and crop, from image to image
    normalise: Callable[[Image.Image], torch.Tensor]  # from the result to (3, H, W)
    crops: bool  # whether only the centre of the image is kept
    device: torch.device  # of the pixels: that of the model's weights
    dtype: torch.dtype

    @classmethod
    def of(cls, preprocessing: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> View:
        """Make the view from open_clip's description, ``model.visual.preprocess_cfg``."""
        config = PreprocessCfg(**preprocessing)
        steps = image_transform_v2(config, is_train=False).transforms
        # the last three steps make the mode RGB, make a tensor and normalise it
        geometry, normalise = tuple(steps[:-3]), Compose(steps[-2:])
        return cls(geometry, normalise, config.resize_mode == "shortest", device, dtype)

    def picture(self, image: Image.Image) -> Image.Image:
        """The picture that the model sees: an RGB image resized and cropped as the model does it.

        Warns where less than half of the image is seen.
        """
        short, long = sorted(image.size)
        if self.crops and long > 2 * short:
            warn(
                f"the image is {image.width}x{image.height} pixels, and the model sees only the "
                f"central {100 * short / long:.2g} % of it; crop or pad it to a square to choose "
                "what is seen"
            )
        return self._send(image, self.geometry)

    def pixels(self, picture: Image.Image) -> torch.Tensor:
        """Return the normalised pixels of what `picture` gave, (1, 3, H, W), on the device."""
        return self.normalise(picture)[None].to(self.device, self.dtype)

    def coverage(self, region: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Send a region (H, W), bool, of the original, upright image through resizing and cropping.

        ``size`` is the original's width and height. Returns the part of each pixel of the model's
        picture that the region covers, (h, w), float32, in [0, 1].
        """
        try:
            region = np.asarray(region.cpu() if hasattr(region, "cpu") else region)
        except ValueError:  # lists of different lengths
            region = np.array(region, dtype=object)
        if region.dtype.kind in "iu" and np.isin(region, (0, 1)).all():
            region = region.astype(bool)
        if region.dtype != np.bool_ or region.shape != (size[1], size[0]):
            raise ValueError(
                f"a region of shape {region.shape} and type {region.dtype} was given; expected "
                f"booleans, or 1 and 0, of shape {(size[1], size[0])}, the height and width of the "
                "image"
            )
        averaging = []
        for step in self.geometry:
            step = copy.copy(step)
            if hasattr(step, "interpolation"):
                step.interpolation = InterpolationMode.BOX  # the mean over the area, no ringing
            averaging.append(step)
        return np.asarray(self._send(Image.fromarray(region.astype(np.float32)), averaging))

    def _send(self, image: Image.Image, steps: list | tuple) -> Image.Image:
        """Apply the steps, after cropping an extreme shape whose ends would be cropped anyway."""
        width, height = image.size
        reach = EXTREME * min(width, height)
        if self.crops and max(width, height) > reach:
            left, top = max(0, (width - reach) // 2), max(0, (height - reach) // 2)
            image = image.crop((left, top, min(width, left + reach), min(height, top + reach)))
        for step in steps:
            image = step(image)
        return image

"""How a model sees an image: the geometry of its preprocessing, also of regions."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize, ToTensor

from fixlip.encoders.view import View

STEPS = [Resize(32, interpolation=InterpolationMode.BICUBIC), CenterCrop((32, 32))]


def view(steps, *, crops):
    return View(tuple(steps), ToTensor(), crops, torch.device("cpu"), torch.float64)


CROPPING = view(STEPS, crops=True)


@pytest.mark.parametrize("size", [(20000, 10), (10, 20000)])
def test_extreme_shapes_are_cropped_before_they_are_resized(size):
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2 - 5, size[1] // 2 - 5, size[0] // 2 + 5, size[1] // 2 + 5))
    with pytest.warns(UserWarning, match=r"sees only the central 0\.\d+ %"):
        seen = CROPPING.picture(image)
    assert seen.size == (32, 32)
    assert (np.asarray(seen)[:, 4:-4] if size[0] > 10 else np.asarray(seen)[4:-4])[
        ..., 2
    ].min() > 250
    squashed = view([Resize((32, 32))], crops=False).picture(image)
    assert squashed.size == (32, 32)


def test_ordinary_shapes_are_seen_as_the_preprocessing_itself_does(noise):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = Image.fromarray(noise[:5, :7])
        seen = CROPPING.picture(image)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(STEPS[1](STEPS[0](image))))
    assert CROPPING.picture(Image.new("RGB", (1, 1))).size == (32, 32)


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 80), (48, 33), (5000, 64)])
def test_regions_follow_the_image(size):
    region = np.zeros(size[::-1], bool)
    region[: size[1] // 2, size[0] // 2 :] = True
    image = Image.fromarray(np.where(region[..., None], np.uint8([0, 255, 0]), np.uint8([0, 0, 0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = np.asarray(CROPPING.picture(image))[..., 1] / 255
    part = CROPPING.coverage(region, size)
    assert part.shape == (32, 32) and part.min() >= 0 and part.max() <= 1
    assert np.abs(part - seen).mean() < 0.03 and ((part > 0.5) == (seen > 0.5)).mean() > 0.95


def test_regions_are_booleans_or_zeros_and_ones():
    """pycocotools gives masks as uint8."""
    region = np.eye(8, dtype=bool)
    right = CROPPING.coverage(region, (8, 8))
    for same in (
        region.astype(np.uint8),
        region.tolist(),
        torch.tensor(region),
        Image.fromarray(region),
    ):
        np.testing.assert_array_equal(CROPPING.coverage(same, (8, 8)), right)


@pytest.mark.parametrize("region", [[[1, 0], [1]], 3, None, "dog", np.full((2, 2), 2)])
def test_what_is_no_region_is_refused(region):
    with pytest.raises(ValueError, match=r"expected booleans, or 1 and 0, of shape \(2, 2\)"):
        CROPPING.coverage(region, (2, 2))


def test_bad_regions():
    with pytest.raises(ValueError, match=r"shape \(3, 3\) and type bool"):
        CROPPING.coverage(np.zeros((3, 3), bool), (4, 3))
    with pytest.raises(ValueError, match="type float64"):
        CROPPING.coverage(np.zeros((3, 4)), (4, 3))

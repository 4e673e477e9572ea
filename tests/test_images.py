"""Tests of fixlip.images: every kind of image, good and bad, and boxes as pixels."""

import numpy as np
import pytest
from PIL import Image

from fixlip import images


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def same(image, array):
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), array)


def test_arrays(colours):
    same(images.open_image(colours), colours)
    same(images.open_image(colours / 255.0), colours)
    same(images.open_image((colours / 255.0).astype(np.float32)), colours)
    same(images.open_image(colours.astype(np.uint16) * 257), colours)
    grey = colours[:, :, 0]
    same(images.open_image(grey), np.stack([grey] * 3, axis=2))
    same(images.open_image(grey[:, :, None]), np.stack([grey] * 3, axis=2))


def test_alpha_is_laid_on_white(colours):
    alpha = np.zeros((5, 7, 1), np.uint8)
    alpha[:2] = 255
    expected = np.where(alpha == 255, colours, 255)
    same(images.open_image(np.concatenate([colours, alpha], axis=2)), expected)
    same(images.open_image(np.concatenate([colours, alpha], axis=2) / 255.0), expected)


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    same(images.open_image(tmp_path / "plain.png"), [[[255, 0, 0], [0, 0, 255]]])
    image.save(tmp_path / "clear.png", transparency=0)
    same(images.open_image(str(tmp_path / "clear.png")), [[[255, 255, 255], [0, 0, 255]]])


def test_sixteen_bit_png_is_scaled(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    same(images.open_image(tmp_path / "deep.png"), [[[v] * 3 for v in (0, 1, 128, 255)]])
    same(
        images.open_image(Image.fromarray(values.astype(np.int32))),
        [[[v] * 3 for v in (0, 1, 128, 255)]],
    )
    with pytest.raises(ValueError, match="outside the 16-bit range"):
        images.open_image(Image.fromarray(np.array([[70000]], np.int32)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "F"])
def test_other_modes(mode):
    image = Image.new("L", (3, 2), 255).convert("RGB").convert("L" if mode == "F" else mode)
    if mode == "F":
        image = Image.fromarray(np.ones((2, 3), np.float32))
    assert image.mode == mode
    np.testing.assert_allclose(np.asarray(images.open_image(image)), 255, atol=2)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="animated; its first frame"):
        same(images.open_image(tmp_path / "moving.gif"), np.full((4, 4, 3), (255, 0, 0)))


def test_camera_orientation_is_applied(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(colours).save(tmp_path / "turned.png", exif=exif)
    same(images.open_image(tmp_path / "turned.png"), np.rot90(colours, -1))


def test_file_errors_name_the_path(tmp_path, colours):
    with pytest.raises(FileNotFoundError, match=r"no image file at .*missing\.png"):
        images.open_image(tmp_path / "missing.png")
    with pytest.raises(FileNotFoundError, match="no image file"):
        images.open_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png' is empty"):
        images.open_image(tmp_path / "empty.png")
    (tmp_path / "notes.png").write_text("no image at all")
    with pytest.raises(ValueError, match=r"notes\.png' is no image"):
        images.open_image(tmp_path / "notes.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind in ("png", "jpg"):
        Image.fromarray(noise).save(tmp_path / f"whole.{kind}")
        data = (tmp_path / f"whole.{kind}").read_bytes()
        (tmp_path / f"half.{kind}").write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=rf"half\.{kind}' cannot be read"):
            images.open_image(tmp_path / f"half.{kind}")


@pytest.mark.parametrize(
    "array,message",
    [
        (np.full((2, 2), np.nan), r"must lie in \[0, 1\]; given values from nan"),
        (np.full((2, 2), np.inf), "to inf"),
        (np.full((2, 2, 3), 200.0), "from 200 to 200; divide by 255"),
        (np.full((2, 2), -0.1), "from -0.1"),
        (np.zeros((2, 2), np.int64), "type int64"),
        (np.zeros((2, 2), bool), "type bool"),
        (np.zeros((3, 4, 5)), r"shape \(3, 4, 5\)"),
        (np.zeros((3,)), r"shape \(3,\)"),
        (np.zeros((0, 4, 3)), "at least one pixel"),
    ],
)
def test_bad_arrays(array, message):
    with pytest.raises(ValueError, match=message):
        images.open_image(array)


def test_no_image_at_all():
    with pytest.raises(TypeError, match="type int was given"):
        images.open_image(3)


def test_a_box_holds_the_pixels_whose_centres_it_holds():
    inside = images.box_pixels((1.4, 0, 1.2, 0.6), (4, 2))
    assert inside.shape == (2, 4) and np.argwhere(inside).tolist() == [[0, 1], [0, 2]]
    assert not images.box_pixels((9, 9, 1, 1), (4, 2)).any()

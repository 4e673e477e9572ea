"""Tests of fixlip.images: every kind of image, good and bad, and boxes as pixels."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
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
    for dtype in (np.int32, ">u2", np.uint32, np.int64):
        same(images.open_image(values.astype(dtype)), [[[v] * 3 for v in (0, 1, 128, 255)]])
    same(
        images.open_image(Image.fromarray(values.astype(np.int32))),
        [[[v] * 3 for v in (0, 1, 128, 255)]],
    )
    for value in (-1, 70000):
        with pytest.raises(ValueError, match=f"values from {value} to .* outside the 16-bit range"):
            images.open_image(Image.fromarray(np.array([[value]], np.int32)))


def test_eight_bit_values_in_wider_integers_keep_their_brightness(colours):
    """Public tools put them there: scaled like 16 bits, they would be black."""
    grey = Image.fromarray(colours[:, :, 0])
    shown = np.stack([colours[:, :, 0]] * 3, axis=2)
    wide = Image.fromarray(colours[:, :, 0].astype(np.uint16))
    assert wide.mode == "I;16"
    for image in (grey.convert("I"), wide):
        with pytest.warns(UserWarning, match=r"up to \d+, which are taken to be 8-bit values; if"):
            same(images.open_image(image), shown)
    for dtype in (np.uint16, np.int32, np.int64, np.uint64):
        with pytest.warns(UserWarning, match=f"of type {np.dtype(dtype)} up to"):
            same(images.open_image(colours.astype(dtype)), colours)
    black = np.zeros((2, 3), np.int32)  # nothing to choose: no warning
    same(images.open_image(black), np.zeros((2, 3, 3)))


@pytest.mark.parametrize(
    "array, told",
    [
        (np.array([[0, 4095]], np.uint16), "largest value is 4095, and 65535 is white"),
        (np.array([[0, 1]], np.uint8), "largest value is 1, and 255 is white"),
        (np.array([[0, 1 / 255]]), "largest value is 0.003922, and 1 is white"),
    ],
)
def test_an_array_of_another_range_that_looks_black_warns(array, told):
    with pytest.warns(UserWarning, match=f"almost black: its {told}; .* divide by that first"):
        images.open_image(array)


def test_rounding_errors_beyond_the_range_are_no_fault(colours):
    for high in (1 + 1e-7, np.float32(1.0000002), np.nextafter(1, 2), 1 + 1e-3):
        same(images.open_image(np.array([[-1e-7, 0.5, high]])), [[[0] * 3, [128] * 3, [255] * 3]])
    half = (colours / 255).astype(np.float16)
    wrong = np.asarray(images.open_image(half)).astype(int) - colours
    assert np.abs(wrong).max() <= 1 and (wrong == 0).mean() > 0.9  # 11 bits hold 8


def test_booleans_are_black_and_white():
    drawn = np.eye(3, dtype=bool)
    same(images.open_image(drawn), np.where(drawn[:, :, None], 255, [0, 0, 0]))


def test_tensors_and_arrays_with_the_channels_first(colours):
    tensor = torch.from_numpy(colours).permute(2, 0, 1)  # (3, 5, 7), as torchvision gives it
    same(images.open_image(tensor), colours)
    same(images.open_image(tensor.numpy()), colours)
    same(images.open_image(tensor[None] / 255), colours)  # a batch of one, float32
    same(images.open_image((tensor / 255.0).requires_grad_()), colours)
    same(images.open_image(tensor[:1]), np.stack([colours[:, :, 0]] * 3, axis=2))
    same(images.open_image(tensor[0]), np.stack([colours[:, :, 0]] * 3, axis=2))
    same(images.open_image(torch.from_numpy(colours)), colours)
    same(images.open_image(torch.ones(3, 2, 2, dtype=torch.bfloat16)), np.full((2, 2, 3), 255))
    small = colours[:3, :4]  # (3, 4, 3): either axis could be that of the channels
    same(images.open_image(small), small)
    same(images.open_image(torch.from_numpy(small)), np.moveaxis(small, 0, 2))


@pytest.mark.parametrize(
    "mode",
    [
        *("1", "L", "LA", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LAB", "F"),
        *("P", "PA", "La", "I", "I;16", "I;16B", "I;16L"),
    ],
)
def test_every_mode(mode):
    image = Image.new("L", (3, 2), 255).convert("RGB")
    if mode == "La":
        image = image.convert("LA").convert("La")
    elif mode == "RGBa":
        image = image.convert("RGBA").convert("RGBa")
    elif mode in ("P", "PA"):
        image = image.convert("P").convert(mode)
    elif mode == "F" or mode.startswith("I"):
        image = Image.new(mode, (3, 2), 1 if mode == "F" else 65535)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    np.testing.assert_allclose(np.asarray(images.open_image(image)), 255, atol=2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_one_is_used(tmp_path, kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    path = tmp_path / f"moving.{kind.lower()}"
    lossless = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], **lossless)
    with pytest.warns(UserWarning, match="has 2 frames, of which number 1 is used"):
        found = images.open_image(path)
    np.testing.assert_allclose(np.asarray(found), np.full((16, 16, 3), (255, 0, 0)), atol=2)
    with Image.open(path) as opened:
        opened.seek(1)  # the user's choice
        with pytest.warns(UserWarning, match="number 2 is used"):
            found = images.open_image(opened)
        assert opened.tell() == 1
    np.testing.assert_allclose(np.asarray(found), np.full((16, 16, 3), (0, 0, 255)), atol=2)


def test_camera_orientation_is_applied(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(colours).save(tmp_path / "turned.png", exif=exif)
    same(images.open_image(tmp_path / "turned.png"), np.rot90(colours, -1))
    same(images.open_image(tmp_path / "turned.png", upright=False), colours)
    assert images.stored_size(tmp_path / "turned.png") == (7, 5)


def test_a_broken_orientation_is_left_out(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "odd.png", exif=b"Exif\0\0garbage!!")
    with pytest.warns(UserWarning, match=r"orientation of .*odd\.png' cannot be read"):
        same(images.open_image(tmp_path / "odd.png"), colours)


def test_the_content_of_a_file(tmp_path, colours):
    path = tmp_path / "a.png"
    Image.fromarray(colours).save(path)
    packed = io.BytesIO()
    Image.fromarray(colours).save(packed, "PNG")  # left at its end
    for content in (path.read_bytes(), bytearray(path.read_bytes()), packed):
        same(images.open_image(content), colours)
    with path.open("rb") as file:
        same(images.open_image(file), colours)
        assert not file.closed
    for content in (b"", b"GIF89a", io.StringIO("text")):
        with pytest.raises(ValueError, match=r"the image .* (is no image|cannot be read)"):
            images.open_image(content)


@pytest.mark.parametrize(
    "address",
    [
        *("https://example.org/a/cat.jpg", "HTTP://example.org/cat.jpg", "s3://bucket/cat.jpg"),
        *("file:///home/cat.jpg", "data:image/png;base64,iVBORw0KGgo" + "A" * 5000),
    ],
)
def test_addresses_are_no_paths(address):
    with pytest.raises(ValueError, match="is an address, and fixlip downloads nothing") as told:
        images.open_image(address)
    assert address[:40] in str(told.value) and len(str(told.value)) < 250
    with pytest.raises(ValueError, match="is an address"):
        images.open_image(Path(address))  # which joins its slashes
    with pytest.raises(FileNotFoundError, match="no image file"):
        images.open_image("C:/cat.jpg")


def test_file_errors_name_the_path(tmp_path, colours):
    with pytest.raises(FileNotFoundError, match=r"no image file at .*missing\.png"):
        images.open_image(tmp_path / "missing.png")
    with pytest.raises(FileNotFoundError, match=r"no image file .* which is a folder"):
        images.open_image(tmp_path)
    with pytest.raises(FileNotFoundError, match="no image file"):
        images.open_image("a" * 5000)
    for path, message in (("a\0b", "names no file"), ("~nobody-of-that-name/a", "no home folder")):
        with pytest.raises(ValueError, match=message):
            images.open_image(path)
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
        with (
            Image.open(tmp_path / f"half.{kind}") as opened,  # Pillow reads its pixels later
            pytest.raises(ValueError, match="the image cannot be read"),
        ):
            images.open_image(opened)
    closed = Image.open(tmp_path / "whole.png")
    closed.close()
    with pytest.raises(ValueError, match="the image cannot be read: Operation on closed image"):
        images.open_image(closed)


@pytest.mark.parametrize(
    "array,message",
    [
        (np.full((2, 2), np.nan), r"must lie in \[0, 1\]; given values from nan"),
        (np.full((2, 2), np.inf), "to inf"),
        (np.full((2, 2, 3), 200.0), "from 200 to 200; divide by 255"),
        (np.full((2, 2), -0.1), "from -0.1 .* clip it"),
        (np.array([[-1.8, 2.1]]), "from -1.8 to 2.1; .* before it was normalised"),
        (np.full((2, 2), 1.004), "from 1.004 to 1.004; clip it"),
        (np.array([[-1, 3]], np.int8), "values from -1 to 3, outside"),
        (np.array([[2**40]]), "values from 1099511627776 to"),
        (np.zeros((2, 2), complex), "type complex128; expected integers"),
        (np.array([["a"]], object), "type object"),
        (np.array([["a"]]), "type <U1"),
        (np.zeros((2, 4, 4, 3)), r"shape \(2, 4, 4, 3\); .* of a batch, give one image"),
        (np.zeros((2, 5, 6)), r"shape \(2, 5, 6\)"),
        (np.zeros((3,)), r"shape \(3,\)"),
        (np.zeros((0, 4, 3)), "at least one pixel"),
    ],
)
def test_bad_arrays(array, message):
    with pytest.raises(ValueError, match=message):
        images.open_image(array)


def test_masked_pixels_are_not_shown_as_if_they_were_there():
    array = np.ma.masked_equal(np.arange(4, dtype=np.uint8).reshape(2, 2) * 80, 80)
    with pytest.raises(ValueError, match="the image array has masked pixels; fill them"):
        images.open_image(array)
    assert images.open_image(array.filled(0)).size == (2, 2)


def test_sparse_tensors_are_images():
    same(images.open_image(torch.eye(3).to_sparse()), np.eye(3)[..., None].repeat(3, 2) * 255)


def test_an_image_that_pillow_takes_for_an_attack_has_a_cure(tmp_path, monkeypatch):
    Image.new("1", (60, 50)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"large.png' is not opened, .*3000 pixels.*MAX_IMAGE_PIX"):
        images.open_image(tmp_path / "large.png")


@pytest.mark.parametrize("value", [3, None, [[0, 1]], [Image.new("L", (2, 2))], {}])
def test_no_image_at_all(value):
    with pytest.raises(TypeError, match=f"type {type(value).__name__} was given; expected a PIL"):
        images.open_image(value)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_the_smallest_and_the_thinnest_images(size):
    assert images.open_image(Image.new("P", size)).size == size


def test_a_box_holds_the_pixels_whose_centres_it_holds():
    inside = images.box_pixels((1.4, 0, 1.2, 0.6), (4, 2))
    assert inside.shape == (2, 4) and np.argwhere(inside).tolist() == [[0, 1], [0, 2]]
    assert not images.box_pixels((9, 9, 1, 1), (4, 2)).any()

"""A stranger with a photo and a checkpoint: the installed wheel, in an empty folder, many inputs.

Every input ends in a right answer or in one sentence; nothing of the checkout is in reach.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import fixlip

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "data/scenes/val/000000000209.png"
DEMO = ROOT / "fixlip" / "demo" / "models" / "demo-clip"
CAPTION = "a blue heart left of a red arrow"

LOOP = """
import contextlib, io, json, sys
import fixlip
from fixlip.cli import main

print(fixlip.__file__)
for arguments in json.loads(sys.stdin.read()):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


@pytest.fixture(scope="module")
def stranger(installed, tmp_path_factory):
    """A function that runs the command, as installed, for many lists of arguments."""
    base, site = tmp_path_factory.mktemp("stranger"), installed
    empty = base / "empty"
    empty.mkdir()

    def run(cases):
        todo = json.dumps([["explain", "--masks", "16", "--json", *case] for case in cases])
        environment = os.environ | {"PYTHONPATH": str(site), "HOME": str(base)}
        done = subprocess.run(
            [sys.executable, "-c", LOOP],
            cwd=empty,
            env=environment,
            input=todo,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        file, *lines = done.stdout.splitlines()
        assert file.startswith(str(site))
        return [json.loads(line) for line in lines]

    run.folder = empty
    return run


def score(case):
    """What the command gives as the score, and its first term."""
    status, out, err = case
    assert status == 0, err
    found = json.loads(out)
    assert all(np.isfinite(term["estimate"]) for term in found["terms"])
    return found["score"]


def sentence(case):
    """What the command says where it fails: one line, warnings left out."""
    status, out, err = case
    lines = [line for line in err.splitlines() if "warning: " not in line]
    assert (status, out, len(lines)) == (1, "", 1), err
    return lines[0]


@pytest.mark.slow
def test_pictures_of_every_kind_are_explained_as_what_they_show(stranger):
    folder = stranger.folder
    colours = Image.open(SCENE).convert("RGB")
    grey = colours.convert("L")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned by 90 degrees
    palette = colours.quantize(256)
    saved = {
        "rgb.png": (colours, {}),
        "palette.png": (palette, {}),
        "grey.png": (grey, {}),
        "grey and alpha.png": (grey.convert("LA"), {}),
        "16 bits.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), {}),
        "integers.tif": (grey.convert("I"), {}),
        "cmyk.jpg": (colours.convert("CMYK"), {"quality": 95}),
        "photo.webp": (colours, {"lossless": True}),
        "turned.jpg": (colours.rotate(90), {"exif": turned, "quality": 95}),
        "straight.jpg": (colours, {"quality": 95}),
        "pixel.png": (colours.resize((1, 1)), {}),
    }
    for name, (picture, options) in saved.items():
        picture.save(folder / name, **options)
    found = dict(zip(saved, map(score, stranger([[n, CAPTION] for n in saved])), strict=True))
    truth = fixlip.load("demo-clip", device="cpu")
    assert found["rgb.png"] == pytest.approx(truth.logit(colours, CAPTION), abs=1e-3)
    assert found["photo.webp"] == pytest.approx(found["rgb.png"], abs=1e-3)
    assert found["palette.png"] == pytest.approx(
        truth.logit(palette.convert("RGB"), CAPTION), abs=1e-3
    )
    of_grey = truth.logit(grey.convert("RGB"), CAPTION)
    for name in ("grey.png", "grey and alpha.png", "16 bits.png", "integers.tif"):
        assert found[name] == pytest.approx(of_grey, abs=1e-3), name
    assert found["turned.jpg"] == pytest.approx(found["straight.jpg"], abs=1.0)
    assert found["cmyk.jpg"] == pytest.approx(found["rgb.png"], abs=2.0)
    one = Image.new("RGB", (1, 1), colours.resize((1, 1)).getpixel((0, 0)))
    assert found["pixel.png"] == pytest.approx(truth.logit(one, CAPTION), abs=1e-3)


@pytest.mark.slow
def test_captions_of_every_kind_are_explained_or_refused(stranger):
    Image.open(SCENE).save(stranger.folder / "scene.png")
    good = [
        *(CAPTION, "a blue heart 😀", "a heart for 5$ or $6$", "hearts &amp; arrows"),
        *("לב כחול", "قلب أزرق", "a\nblue\theart", "A BLUE HEART!", "é́ café", "<b>heart</b>"),
        " ".join(["heart"] * 200),
    ]
    answers = stranger([["scene.png", "--", text] for text in good])
    for text, answer in zip(good, answers, strict=True):
        score(answer)
        assert ("does not see its end" in answer[2]) == (len(text) > 500), answer[2]
    for answer in stranger([["scene.png", text] for text in ("", "   ", "\n")]):
        assert "the caption is empty" in sentence(answer)


@pytest.mark.slow
def test_checkpoints_of_every_kind_are_loaded_or_refused(stranger):
    folder = stranger.folder
    Image.open(SCENE).save(folder / "scene.png")
    weights = load_file(DEMO / "open_clip_model.safetensors")
    good, bad = {}, {}

    def model(name, write):
        (folder / name).mkdir()
        for file in DEMO.iterdir():
            if file.suffix == ".json":
                shutil.copy(file, folder / name)
        write(folder / name)

    def torch_file(content):
        return lambda path: torch.save(content, path / "open_clip_model.pt")

    prefixes = ("", "module.", "_orig_mod.", "model.", "clip.", "module._orig_mod.")
    for prefix in prefixes:
        good[f"prefix {prefix}"] = torch_file({f"{prefix}{k}": v for k, v in weights.items()})
    for key in ("state_dict", "model", "state_dict_ema"):
        good[f"within {key}"] = torch_file({key: weights, "epoch": 3, "optimizer": {}})
    good["safetensors"] = lambda path: save_file(weights, path / "open_clip_model.safetensors")
    whole = (DEMO / "open_clip_model.safetensors").read_bytes()

    def bytes_of(content, name="open_clip_model.safetensors"):
        return lambda path: (path / name).write_bytes(content)

    longer = {
        k: torch.cat([v, v[-3:]]) if k.endswith("visual.positional_embedding") else v
        for k, v in weights.items()
    }
    nan = {k: v * float("nan") if k == "logit_scale" else v for k, v in weights.items()}
    less = dict(list(weights.items())[3:])
    bad |= {
        "cut": (bytes_of(whole[: len(whole) // 2]), "cut off"),
        "pointer": (bytes_of(b"version https://git-lfs.github.com/spec/v1\noid"), "Git LFS"),
        "page": (bytes_of(b"<!DOCTYPE html><html>", "open_clip_model.pt"), "web page"),
        "empty": (bytes_of(b""), "empty"),
        "positions": (torch_file(longer), "must be"),
        "not finite": (torch_file(nan), "logit_scale"),
        "parts": (torch_file(less), "missing"),
        "words": (torch_file({"epoch": 3}), "no tensors"),
    }
    for name, write in good.items():
        model(name, write)
    for name, (write, _) in bad.items():
        model(name, write)
    cases = [["scene.png", CAPTION, "--model", f"local-dir:{name}"] for name in (*good, *bad)]
    answers = dict(zip((*good, *bad), stranger(cases), strict=True))
    expected = fixlip.load("demo-clip", device="cpu").logit(SCENE, CAPTION)
    for name in good:
        assert score(answers[name]) == pytest.approx(expected, abs=1e-3), name
    for name, (_, words) in bad.items():
        said = sentence(answers[name])
        assert words in said, (name, said)

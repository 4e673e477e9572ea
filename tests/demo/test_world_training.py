"""The programs of data/world: a model is trained, stopped, resumed and loaded."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import fixlip
from fixlip.demo import sample_scene
from fixlip.paths import root

PROGRAM = root() / "data" / "world" / "train.py"


def train(name, out, *options):
    command = [sys.executable, PROGRAM, name, "--out", out, "--steps", "4", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(root())}
    done = subprocess.run(
        [*map(str, command), *options], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return load_file(out / "open_clip_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo-clip", "demo-siglip"])
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_weights(name, tmp_path):
    """Of four steps, the last two have hidden words and patches."""
    whole = train(name, tmp_path / "whole")
    train(name, tmp_path / "parts", "--stop", "2")
    parts = train(name, tmp_path / "parts", "--resume")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())
    lines = (tmp_path / "parts" / "train_log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert log[0]["name"] == name and [entry["step"] for entry in log[1:]] == [2, 4]
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()

    encoder = fixlip.load(tmp_path / "whole")
    scene = sample_scene(0, things=["butterfly"])
    found = fixlip.explain(encoder, scene.image, "a butterfly", masks=64, progress=False)
    assert found.info["image"]["grid"] == {"demo-clip": [7, 7], "demo-siglip": [8, 8]}[name]
    assert found.players[found.n_image :] == ("a", "butter", "fly")
    words = encoder.text("a butterfly", players="words")
    assert words.names == ("a", "butterfly")


@pytest.mark.slow
def test_weights_alone_are_gone_on_from(tmp_path):
    train("demo-clip", tmp_path, "--stop", "2")
    (tmp_path / "checkpoint.pt").unlink()
    train("demo-clip", tmp_path, "--restart", "2")
    head, *_, last = (tmp_path / "train_log.jsonl").read_text().splitlines()
    assert json.loads(head)["restarts"] == [2] and json.loads(last)["step"] == 4


@pytest.mark.slow
def test_a_card_has_what_was_measured(tmp_path):
    train("demo-clip", tmp_path)
    programs = root() / "data" / "world"
    measuring = [programs / "evaluate.py", tmp_path, "--scenes", "4", "--write"]
    for command in ([*measuring, "--only", "swaps", "monotony"], [programs / "card.py", tmp_path]):
        environment = os.environ | {"PYTHONPATH": str(root())}
        subprocess.run([sys.executable, *map(str, command)], env=environment, check=True)
    measures = json.loads((tmp_path / "evaluation.json").read_text())["measures"]
    card = (tmp_path / "README.md").read_text()
    assert "4 of 6,000 steps" in card and len(measures) == 8
    for found in measures:
        assert f"| {found['name']} | {found['value']:.3f} ± {found['stderr']:.3f} |" in card
        assert 0 <= found["value"] <= 1 and found["count"] == 4

"""Tests of the demo models' training, of their files, and of what the committed ones reach."""

import json
import math
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from batches import FALSE, TRUE, make_batch, orders_of, places_of
from evaluate import MODELS, evaluate
from losses import ExactClipLoss, ExactSigLipLoss, PlaceProbe
from recipes import RECIPES, model_config
from safetensors.torch import load_file
from train import (
    build_model,
    encode_text,
    start_from,
    train,
    write_model,
)

from fixlip.demo.drawing import COLOURS, SHAPES
from fixlip.demo.grammar import Caption
from fixlip.demo.scenes import HELD_OUT, Scene, Thing
from fixlip.demo.tokenizers import encode, vocabulary

NAMES = list(RECIPES)


def tiny(name: str, **changes):
    """A recipe of 3 steps that passes through every stage of the curriculum."""
    stages = {"singles": 1, "relations": 1, "masking": 2, "places": ((1, 2),)}
    stages["softmax"] = ((1, 2),)
    short = {"steps": 3, "images": 8, "cycles": ((0, 3, 1e-3),), "start_from": None}
    changes = short | stages | changes
    return replace(RECIPES[name], **changes)


@pytest.mark.parametrize("name", NAMES)
def test_three_steps_write_a_folder_that_open_clip_loads(name, tmp_path):
    model = train(name, tmp_path, recipe=tiny(name))
    loaded = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    assert type(loaded) is (open_clip.CLIP if name == "demo-clip" else open_clip.CustomTextCLIP)
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    batch = make_batch(1, 0, images=4, kind=RECIPES[name].kind, length=model.context_length)
    with torch.no_grad():
        assert torch.equal(loaded.encode_image(batch.images), model.encode_image(batch.images))
    log = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert log[0]["steps"] == 3 and log[-1]["step"] == 3 and math.isfinite(log[-1]["loss"])
    assert (tmp_path / "open_clip_model.safetensors").stat().st_size < 8e6


@pytest.mark.parametrize("name", ["demo-clip", "demo-siglip"])
def test_a_resumed_run_ends_with_the_same_weights(name, tmp_path):
    recipe = tiny(name, steps=4, patch_dropout=0.25)
    whole = train(name, tmp_path / "whole", recipe=recipe)
    train(name, tmp_path / "parts", recipe=recipe, stop=2)
    resumed = train(name, tmp_path / "parts", recipe=recipe, resume=True)
    other = train(name, tmp_path / "other", recipe=recipe, seed=1)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert not torch.equal(whole.logit_scale, other.logit_scale)
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train(name, tmp_path / "none", recipe=recipe, resume=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_files_give_the_training_ids(name, tmp_path):
    config = model_config(name)["model_cfg"]["text_cfg"]
    kind, length = RECIPES[name].kind, config["context_length"]
    write_model(build_model(name), name, tmp_path)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    texts = ["a red star", "Star, ring\n moon.", "a red dog", "", " ".join(["star"] * 30)]
    assert tokenizer(texts).tolist() == [encode(text, kind, length=length) for text in texts]
    ids = vocabulary(kind)
    assert ids["<pad>"] == 0 and ids["<unk>"] in tokenizer("a red dog")[0]
    if kind == "clip":
        assert ids["<end_of_text>"] == max(ids.values())  # where argmax pooling looks
    else:
        assert ids["<end_of_text>"] == 1 and "<start_of_text>" not in ids  # as in SigLIP-2


def test_batches_depend_on_seed_and_step_alone():
    def draw(seed, step):
        return make_batch(seed, step, images=8, kind="clip", length=20, masking=True)

    first, second, other = draw(0, 5), draw(0, 5), draw(0, 6)
    assert torch.equal(first.images, second.images) and torch.equal(first.ids, second.ids)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("stage", ["singles", "binding", "relations"])
@pytest.mark.parametrize("masking", [False, True])
def test_batches_show_no_held_out_combination(stage, masking):
    words = list(vocabulary("siglip"))
    for step in range(10):
        batch = make_batch(
            0, step, images=32, kind="siglip", length=18, stage=stage, masking=masking
        )
        texts = [" ".join(words[i] for i in row) for row in batch.ids]
        for colour, shape in HELD_OUT:
            assert not any(f"{colour} {shape}" in text for text in texts)
        own = batch.truth[batch.own[:, 0], batch.own[:, 1]]
        assert (own == TRUE).all() and (batch.truth == FALSE).float().mean() > 0.5
        assert batch.images.abs().max() <= 1 and batch.keep.all() != masking


@pytest.mark.parametrize("name", ["demo-clip", "demo-siglip"])
def test_a_hidden_token_cannot_be_read(name):
    model, kind = build_model(name).eval(), RECIPES[name].kind
    length = model.context_length
    texts = ["a red star and a blue ring", "a green star and a blue ring", "star moon"]
    ids = torch.tensor([encode(text, kind, length=length) for text in texts])
    keep = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        visible = encode_text(model, ids, keep)
        torch.testing.assert_close(visible, model.encode_text(ids, normalize=True))
        keep[:2, 2 if kind == "clip" else 1] = False  # the first colour
        hidden = encode_text(model, ids, keep)
    torch.testing.assert_close(hidden[0], hidden[1])
    torch.testing.assert_close(hidden[2], visible[2])
    assert not torch.allclose(hidden[0], visible[0])


def test_losses_equal_their_definitions():
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(3, 5, generator=generator), dim=1)
    texts = torch.nn.functional.normalize(torch.randn(4, 5, generator=generator), dim=1)
    truth = torch.tensor([[1, 0, 1, 0], [0, 1, 0, -1], [1, 0, 0, 1]], dtype=torch.int8)
    own = torch.tensor([[0, 0], [1, 1], [2, 3], [0, 2]])
    logits = 10 * images @ texts.T
    by_image, by_text = [], []
    for i, j in own.tolist():
        rivals = [logits[i, c] for c in range(4) if truth[i, c] == 0]
        by_image.append(torch.logsumexp(torch.stack([logits[i, j], *rivals]), 0) - logits[i, j])
        rivals = [logits[b, j] for b in range(3) if truth[b, j] == 0]
        by_text.append(torch.logsumexp(torch.stack([logits[i, j], *rivals]), 0) - logits[i, j])
    expected = (sum(by_image) / 4 + sum(by_text) / 4) / 2
    torch.testing.assert_close(ExactClipLoss()(images, texts, 10, truth, own), expected)

    expected = 0
    for b in range(3):
        for c in range(4):
            sign = {1: 1, 0: -1, -1: 0}[truth[b, c].item()]
            if sign:
                expected -= torch.nn.functional.logsigmoid(sign * (logits[b, c] - 2)) / 3
    torch.testing.assert_close(ExactSigLipLoss()(images, texts, 10, -2, truth), expected)


def test_places_and_orders_say_what_the_scene_says():
    left, right = Thing("red", "star", 0, 0, 2), Thing("red", "ring", 2, 3, 3)
    places = torch.from_numpy(places_of([Scene((left, right), 0)]))  # (1, 18, 2)
    attributes = [*SHAPES, *COLOURS]
    star, ring, red = (attributes.index(name) for name in ("star", "ring", "red"))
    assert places[0, star].tolist() == pytest.approx([1 / 3 - 1, 1 / 3 - 1])
    assert places[0, ring].tolist() == pytest.approx([1.5 - 1, 3.5 / 3 - 1])
    assert places[0, red].isnan().all()  # two objects are red: nowhere in particular
    caption = Caption((("red", "star"), ("red", "ring")), "left of")
    readable = np.ones(8, dtype=bool)
    assert orders_of([caption], [readable]) == [(0, 0, -1, star, ring)]
    assert orders_of([caption], [~readable]) == []
    probe = PlaceProbe(18 * 2)
    torch.nn.init.eye_(probe.weight), torch.nn.init.zeros_(probe.bias)
    exact = places.nan_to_num().view(1, -1)
    texts = torch.zeros(1, 36)
    orders = torch.tensor([[0, 0, -1, star, ring]])
    assert probe(exact, texts, places, orders).item() == pytest.approx(math.log(2))
    texts[0, 2 * ring] = 100.0
    assert probe(exact, texts, places, orders).item() == pytest.approx(0)


def test_the_fine_model_can_start_from_the_coarse_one(tmp_path):
    coarse, fine = build_model("demo-siglip"), build_model("demo-siglip-fine")
    write_model(coarse, "demo-siglip", tmp_path)
    start_from(fine, tmp_path)
    weights = load_file(tmp_path / "open_clip_model.safetensors")
    for key, value in fine.state_dict().items():
        same = value.shape == weights[key].shape and torch.equal(value, weights[key])
        assert same != (key.endswith("pos_embed") or key.endswith("patch_embed.proj.weight")), key


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="demo-clip"):
        model_config("demo")
    with pytest.raises(FileNotFoundError, match="open_clip_config"):
        evaluate("no-such-model")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_committed_model_reaches_its_accuracy(name):
    """On a small sample; evaluation.json beside the weights has the full table."""
    table = json.loads((MODELS / name / "evaluation.json").read_text())
    for measure in evaluate(name, scenes=48):
        expected = table[measure.name]["accuracy"]
        noise = math.sqrt(max(expected * (1 - expected), 0.02) / measure.count)
        assert abs(measure.accuracy - expected) < 4 * noise, measure

"""The anatomy of every kind of tower, written down by hand, and the kinds that are refused."""

from types import SimpleNamespace

import literal
import open_clip
import pytest
import torch

from fixlip.encoders.towers import image_tower, text_tower

ANATOMY = {  # grid, patch, pooled token, attention pool, attention layers; text: pooling, causal
    "clip": ((4, 4), (8, 8), 0, False, 2, "argmax", True),
    "quickgelu": ((4, 4), (8, 8), 0, False, 2, "argmax", True),
    "siglip": ((6, 6), (8, 8), None, True, 5, "last", False),
    "average-eos": ((4, 4), (8, 8), None, False, 2, "eos", True),
    "oblong-first": ((2, 3), (8, 8), 0, False, 2, "first", False),
    "custom-blocks": ((4, 4), (8, 8), 0, False, 2, "argmax", False),
    "timm-token": ((10, 10), (16, 16), 0, False, 6, "argmax", True),
    "pe-core": ((24, 24), (16, 16), None, True, 13, "argmax", True),
    "timm-average": ((10, 10), (16, 16), None, False, 6, "argmax", True),
}


@pytest.mark.parametrize("kind", literal.KINDS)
def test_anatomy(tiny_model, tokenizer_folder, kind):
    model = literal.build(tiny_model, tokenizer_folder, kind).model
    image, text = image_tower(model, kind), text_tower(model, kind)
    grid, patch, pooled, pool, layers, pooling, causal = ANATOMY[kind]
    assert (image.grid, image.patch, image.pooled) == (grid, patch, pooled)
    assert (image.pool is not None, len(image.attention)) == (pool, layers)
    assert (text.pooling, text.causal is not None) == (pooling, causal)
    assert len(text.attention) == len(text.blocks) == 2 and text.width == 32
    assert all(isinstance(part, torch.nn.Module) for part in (*image.attention, *text.attention))
    if pooled is not None:  # head and project agree on the token that is read
        hidden = torch.randn(2, 1, image.width)
        torch.testing.assert_close(image.head(hidden), image.project(hidden)[:, 0])


def test_patches_of_convolutions_are_not_embedded_one_by_one(tiny_model):
    vision = {"timm_model_name": "vitamin_small_224", "image_size": 224, "timm_pool": "avg"}
    text = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 4, "layers": 1}
    vision["timm_proj"] = "linear"
    model = tiny_model("x", {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    tower = image_tower(model, "ViTamin")
    assert tower.grid == (14, 14) and tower.patch is None and tower.embedding is None


def test_where_a_caption_is_read(tiny_model):
    ids = torch.tensor([[7, 1, 9, 1, 0]])
    tower = text_tower(tiny_model("average-eos"), "x")
    for pooling, position in {"first": 0, "last": 4, "argmax": 2, "eos": 1}.items():
        assert tower._replace(pooling=pooling).pooled(ids) == position
    with pytest.raises(ValueError, match=r"pooling must be .* got 'none'"):
        tower._replace(pooling="none").pooled(ids)


def test_towers_without_blocks_are_refused_by_name():
    resnet = open_clip.modified_resnet.ModifiedResNet([1, 1, 1, 1], 16, heads=1, image_size=32)
    convnext = open_clip.timm_model.TimmModel("convnext_atto", 16, 64, "", "linear")
    for visual, kind in ((resnet, "ModifiedResNet"), (convnext, "ConvNeXt")):
        with pytest.raises(ValueError, match=rf"'x' is no plain .* \({kind}\), .*; choose a ViT"):
            image_tower(SimpleNamespace(visual=visual), "x")

"""Tests of fixlip.encoders.opened: from a block on, a tower is open_clip's own."""

import open_clip
import pytest
import torch
from tiny import CONFIGS

from fixlip.encoders import Encoder, load
from fixlip.encoders.opened import OpenTower, forward_mode
from fixlip.encoders.sides import ImageSide, TextSide

CAPTION = "a red star and a cross"


@pytest.fixture
def make(tiny_model, tokenizer_folder):
    """Wrap a tiny model in an encoder."""

    def build(kind, config=None):
        model = tiny_model(kind, config)
        name = "siglip2" if kind in ("siglip", "average-eos") else "clip"
        read = open_clip.tokenizer.HFTokenizer(
            str(tokenizer_folder(name, 12)), context_length=model.context_length
        )
        return Encoder(model, read, name=kind)

    return build


def sides(encoder, image, **options):
    return encoder.image(image, **options), encoder.text(CAPTION)


def own_embedding(side):
    """What the model itself makes of a side's input, not normalised."""
    model = side.encoder.model
    with torch.no_grad():
        if isinstance(side, ImageSide):
            return model.encode_image(side.pixels)
        return model.encode_text(side.ids)


def check_every_layer(side):
    own = own_embedding(side)
    depth = len(OpenTower(side).blocks)
    for layer in (*range(depth), -depth, -1):
        tower = OpenTower(side, layer)
        assert tower.layer == layer % depth
        hidden = tower.hidden.expand(3, -1, -1)
        with torch.no_grad():
            found = tower.embed(hidden)
        torch.testing.assert_close(found, own.expand(3, -1), rtol=1e-5, atol=1e-5)
    return tower


@pytest.mark.parametrize("kind", CONFIGS)
def test_tiny_models_are_their_own(make, noise, kind):
    for side in sides(make(kind), noise):
        check_every_layer(side)


@pytest.mark.parametrize("tower", ["vit_pe_core_tiny_patch16_384", "vitamin_small_224"])
def test_other_timm_towers_are_their_own(make, noise, tower):
    vision = {"timm_model_name": tower, "image_size": int(tower[-3:]), "timm_proj": "linear"}
    vision["timm_pool"] = "map" if "pe_core" in tower else "avg"
    text = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 4, "layers": 1}
    encoder = make(tower, {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    side = encoder.image(noise)
    own = own_embedding(side)
    found = OpenTower(side)  # rotary positions, a class token that is pooled with the others
    with torch.no_grad():
        torch.testing.assert_close(found.embed(found.hidden), own, rtol=1e-5, atol=1e-5)
    assert found.special_names == (("CLS",) if "pe_core" in tower else ())


@pytest.mark.parametrize("name", ["demo-clip", "demo-siglip", "demo-siglip-fine"])
def test_demo_models_are_their_own(noise, name):
    for side in sides(load(name, device="cpu"), noise):
        check_every_layer(side)


def test_clip_of_two_layers_is_its_own(noise, name="ViT-B-32-quickgelu"):
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta")
    for tower in (model.visual.transformer, model.transformer):
        tower.resblocks = tower.resblocks[:2]
    model.to_empty(device="cpu")
    model.attn_mask = torch.full((77, 77), -torch.inf).triu(1)
    generator = torch.Generator().manual_seed(0)
    for weights in model.parameters():
        weights.data.normal_(0, 0.05, generator=generator)
    for side in sides(Encoder(model, open_clip.SimpleTokenizer(), name=name), noise):
        check_every_layer(side)


def test_every_token_is_in_one_row(make, noise):
    clip, siglip = make("clip"), make("siglip")
    tower = OpenTower(clip.image(noise, players="2x2"))
    assert tower.special_names == ("CLS",) and tower.rows.shape == (1 + 4, 17)
    assert tower.rows[1].nonzero().flatten().tolist() == [1, 2, 5, 6]  # the top left block
    tower = OpenTower(clip.text("a starfish", players="words"))
    assert tower.special_names == ("BOS", "EOS") and tower.pooled == 4
    assert tower.rows.int().tolist() == [
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],  # star, fish
    ]
    tower = OpenTower(siglip.text("a red star"))
    assert tower.special_names == ("EOS", "pads") and tower.rows.sum(1).tolist() == [1, 8, 1, 1, 1]
    assert OpenTower(siglip.image(noise)).special_names == ()
    for kind in CONFIGS:
        for side in sides(make(kind), noise):
            assert (OpenTower(side).rows.sum(0) == 1).all()


def test_causal_towers_stop_at_the_pooled_token(make):
    side = make("clip").text("a red star")
    tower = OpenTower(side, 0)
    assert tower.hidden.shape[1] == 5 == tower.pooled + 1
    other = tower.read(side.ids.flip(1))  # read at the caption's own positions
    assert other.shape == tower.hidden.shape and not torch.equal(other, tower.hidden)


def test_projected_tokens(make, noise):
    """The pooled token's projection is the embedding."""
    for kind in ("clip", "oblong-first", "custom-blocks"):
        for side in sides(make(kind), noise):
            tower = OpenTower(side)
            with torch.no_grad():
                tokens = tower.project(tower.run(tower.hidden))
            torch.testing.assert_close(
                tokens[:, tower.pooled], own_embedding(side), rtol=1e-5, atol=1e-5
            )
    side = make("siglip").image(noise)
    tower = OpenTower(side)
    with torch.no_grad():  # attention pooling of a single token
        outputs = tower.run(tower.hidden)
        trunk = side.encoder.model.visual.trunk
        alone = [trunk.attn_pool(trunk.norm(outputs[:, [i]])) for i in range(36)]
        torch.testing.assert_close(
            tower.project(outputs)[0], torch.cat(alone), rtol=1e-5, atol=1e-4
        )


def test_bad_layers_and_sides(make, noise):
    side = make("clip").image(noise)
    for layer in (2, -3, 1.0, True):
        with pytest.raises(ValueError, match="the tower has 2 blocks, so expected 0 to 1, or -2"):
            OpenTower(side, layer)
    with pytest.raises(
        TypeError, match=r"encoder\.image\(\.\.\.\) or encoder\.text\(\.\.\.\), got"
    ):
        OpenTower(noise)


def test_the_model_is_left_as_it_was(make, noise):
    encoder = make("clip")
    model = encoder.model
    weights = next(model.visual.parameters()).requires_grad_(True)
    image, text = sides(encoder, noise)
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError), forward_mode():
        assert not torch.backends.mha.get_fastpath_enabled()
        raise ZeroDivisionError
    broken = model.transformer.resblocks[1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        OpenTower(text)
    broken.remove()
    tower = OpenTower(image)
    tower.embed(tower.hidden.clone().requires_grad_(True))
    hooks = [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    assert hooks == [] and torch.backends.mha.get_fastpath_enabled() == fast
    assert not model.training and weights.requires_grad and weights.grad is None
    assert not tower.hidden.requires_grad and isinstance(text, TextSide)

"""Tests of fixlip.explainers.itsm: similarities of tokens that are embedded one by one."""

import numpy as np
import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from fixlip import pair
from fixlip.encoders import Encoder
from fixlip.encoders.opened import OpenTower
from fixlip.explainers import itsm

CAPTION = "a red star and a cross"


@pytest.fixture
def make(tiny_model, tokenizer_folder):
    """Wrap a tiny model in an encoder."""

    def build(kind, tokenizer="clip"):
        model = tiny_model(kind)
        read = open_clip.tokenizer.HFTokenizer(
            str(tokenizer_folder(tokenizer, 12)), context_length=model.context_length
        )
        return Encoder(model, read, name=kind)

    return build


def states(module, run):
    """The one input and output of a module."""
    seen = []
    with torch.no_grad(), module.register_forward_hook(lambda m, i, o: seen.append((i[0], o))):
        run()
    return seen[0]


def literal(side, variant, normalised):
    """Token vectors (L, D) of both towers of the tiny CLIP, written out."""
    model = side.encoder.model
    if hasattr(side, "pixels"):
        visual = model.visual
        block, end, matrix = visual.transformer.resblocks[-1], visual.ln_post, visual.proj
        ins, outs = states(block, lambda: model.encode_image(side.pixels))
    else:
        block, end, matrix = model.transformer.resblocks[-1], model.ln_final, model.text_projection
        ins, outs = states(block, lambda: model.encode_text(side.ids))
    with torch.no_grad():
        tokens = end((outs if variant == "output" else ins)[0]) @ matrix
    return (normalize(tokens, dim=1) if normalised else tokens).double().numpy()


@pytest.mark.parametrize("variant", ["output", "hidden"])
@pytest.mark.parametrize("normalised", [True, False])
def test_clip_is_literal(make, noise, variant, normalised):
    encoder = make("clip")
    image, text = encoder.image(noise), encoder.text(CAPTION)
    first, second = literal(image, variant, normalised), literal(text, variant, normalised)
    options = {"variant": variant, "normalise": normalised}
    image, words = itsm.factor(image, **options), itsm.factor(text, **options)
    full = pair(image.with_special(), words.with_special(), scale=3.0).cross
    atol = 1e-4 * np.abs(first @ second.T).max()
    expected = 3 * first[1:] @ second[text.span].T
    np.testing.assert_allclose(pair(image, words, scale=3.0).cross, expected, rtol=0, atol=atol)
    last = text.span.stop
    special = 3 * first[:1] @ second[[0, last]].T
    np.testing.assert_allclose(full[:1, :2], special, rtol=0, atol=atol)
    assert image.method == f"itsm-{variant[0]}"
    assert image.options == {"normalise": normalised} | (
        {"layer": 1} if variant == "hidden" else {}
    )


def test_the_pooled_tokens_give_the_cosine(make, noise):
    """CLS and the end token, which the model itself embeds."""
    encoder = make("clip")
    image, text = itsm.factor(encoder.image(noise)), itsm.factor(encoder.text(CAPTION))
    assert text.special_names == ("BOS", "EOS")
    full = pair(image.with_special(), text.with_special(), scale=1).cross
    cosine = encoder.logit(noise, CAPTION) / encoder.logit_scale
    assert full[0, 1] == pytest.approx(cosine, abs=1e-5)


def test_attention_pooling_of_single_tokens(make, noise):
    """Attention over one token is 1: value, output projection, and the layers after it."""
    encoder = make("siglip", "siglip2")
    side = encoder.image(noise)
    trunk = encoder.model.visual.trunk
    tower, pool = OpenTower(side), trunk.attn_pool
    with torch.no_grad():
        tokens = trunk.norm(tower.run(tower.hidden))[0]  # (T, width)
        tokens = pool.proj(pool.kv(tokens)[:, 128:])
        tokens = tokens + pool.mlp(pool.norm(tokens))
    found = itsm.factor(side, normalise=False)
    np.testing.assert_allclose(found.first, tokens.numpy(), rtol=1e-4, atol=1e-4)
    text = itsm.factor(encoder.text(CAPTION))
    cross = pair(itsm.factor(side), text, scale=1).cross
    assert np.abs(cross).max() <= 1 + 1e-6 and text.special_names == ("EOS", "pads")


def test_groups_are_sums(make, noise):
    encoder = make("clip")
    fine = itsm.factor(encoder.image(noise), variant="hidden", layer=0)
    coarse = itsm.factor(encoder.image(noise, players="4x4"), variant="hidden", layer=0)
    np.testing.assert_allclose(coarse.first[0], fine.first.sum(0), rtol=0, atol=1e-6)


def test_what_is_not_defined(make, noise, tiny_model):
    side = make("clip").image(noise)
    with pytest.raises(ValueError, match='variant must be "output" or "hidden", got'):
        itsm.factor(side, variant="o")
    with pytest.raises(ValueError, match="layer 5 does not exist"):
        itsm.factor(side, layer=5)
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 1}
    text = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 4, "layers": 1}
    vision |= {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 3}
    model = tiny_model("x", {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
    pooled = Encoder(model, side.encoder.tokenizer, name="x").image(noise)
    with pytest.raises(ValueError, match="pools its tokens with several queries"):
        itsm.factor(pooled)
    tower = OpenTower(pooled)
    with torch.no_grad():
        torch.testing.assert_close(tower.embed(tower.hidden), model.encode_image(pooled.pixels))

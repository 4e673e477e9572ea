"""Tests of fixlip.encoders.attention and game, against a forward pass that is spelled out."""

import warnings

import numpy as np
import pytest
import torch
from literal import Spelled, build, image_terms, state, text_terms
from toy_games import Smooth

import fixlip
from fixlip.encoders.attention import embed, readout
from fixlip.explainers.generic_attention import explain

CAPTION = "a red star and a cross"


@pytest.fixture
def make(tiny_model, tokenizer_folder):
    def make(kind, **options):
        if kind.startswith("demo"):
            return fixlip.load(kind, device="cpu", **options)
        return build(tiny_model, tokenizer_folder, kind, **options)

    return make


def caption_of(kind):
    return "a red star" if kind.startswith("demo") else CAPTION


def all_layers(side):
    """Every attention layer that can be recomputed, however the tower pools."""
    if hasattr(side, "ids"):
        return readout(side, method="test").layers
    visual = side.encoder.model.visual
    blocks = visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks
    pool = getattr(getattr(visual, "trunk", visual), "attn_pool", None)
    return [block.attn for block in blocks] + ([pool] if pool is not None else [])


@pytest.mark.parametrize(
    "kind",
    [
        *("clip", "quickgelu", "siglip", "average-eos", "oblong-first", "custom-blocks"),
        *("timm-token", "demo-clip", "demo-siglip", "demo-siglip-fine"),
    ],
)
def test_recomputed_attention_gives_the_models_own_embedding(make, noise, kind):
    encoder = make(kind)
    for side in (encoder.image(noise), encoder.text(caption_of(kind))):
        layers = all_layers(side)
        own = side.embed(torch.ones(1, side.n, dtype=torch.bool))[0]
        with torch.enable_grad():
            found, attentions = embed(side, layers)
            one, _ = embed(side, layers, heads="one")
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5)
        assert (one - own).abs().max() > 1e-4  # one head is another model
        assert len(attentions) == len(layers) and all(a.output.requires_grad for a in attentions)
        for attention in attentions:
            p = attention.probabilities
            torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:2]))
            torch.testing.assert_close(  # (heads, queries, keys) @ (heads, keys, width / heads)
                (p @ attention.v.unflatten(1, (len(p), -1)).transpose(0, 1)).transpose(0, 1),
                attention.output.unflatten(1, (len(p), -1)),
            )
            if hasattr(side, "ids") and kind in ("clip", "average-eos", "demo-clip"):
                assert not p.triu(1).any()  # causal


def literal_map(side, other, start, scale):
    """GAME's equations: gradients by zero nudges of the probabilities, loops over heads."""
    natural = Spelled(side)
    layers = range(natural.depth)[start:]
    nudges = {i: torch.zeros_like(natural.steps[i].probabilities).requires_grad_() for i in layers}
    run = Spelled(side, nudges=nudges)
    (scale * run.embedding @ Spelled(other).embedding).backward()
    positions = natural.steps[layers[0]].k.shape[0]
    relevance = torch.eye(positions)
    for i in layers:
        heads = len(nudges[i])
        p = natural.steps[i].probabilities
        cam = sum((nudges[i].grad[h] * p[h]).clamp(min=0) for h in range(heads)) / heads
        pooled = len(cam) == 1
        relevance = cam @ relevance if pooled else relevance + cam @ relevance
    if hasattr(side, "ids"):
        return relevance[side.pooled, side.span].detach().numpy()
    return relevance[0, -len(side.players.owner) :].detach().numpy()


@pytest.mark.parametrize("start", [-1, -2, 0])
@pytest.mark.parametrize("kind", ["clip", "quickgelu", "siglip", "demo-clip", "demo-siglip"])
def test_the_maps_follow_the_equations(make, noise, kind, start):
    encoder = make(kind)
    image, text = encoder.image(noise), encoder.text(caption_of(kind))
    found = explain(image, text, start_layer=start)
    scale = encoder.logit_scale
    assert found.grand_value == pytest.approx(encoder.logit(noise, caption_of(kind)), abs=1e-4)
    for values, side, other in [
        (image_terms(found), image, text),
        (text_terms(found), text, image),
    ]:
        expected = literal_map(side, other, start, scale)
        assert values.dtype == np.float64 and (values >= 0).all() and values.max() > 1e-4
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5 * values.max())
    assert found.players == image.names + text.names
    info = found.info
    assert info["fit"]["method"] == "GAME" and info["fit"]["start_layer"] == start


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_gradients_by_probabilities_are_finite_differences(make, noise, kind):
    encoder = make(kind, dtype=torch.float64)
    image, text = encoder.image(noise), encoder.text(CAPTION)
    for side, other in [(image, text), (text, image)]:
        towards = Spelled(other).embedding
        layers = all_layers(side)
        with torch.enable_grad():
            embedding, attentions = embed(side, layers)
            gradients = torch.autograd.grad(
                embedding @ towards, [a.probabilities for a in attentions]
            )
        generator = torch.Generator().manual_seed(0)
        for i, gradient in enumerate(gradients):
            direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            ends = [
                Spelled(side, nudges={i: step * direction}).embedding @ towards
                for step in (1e-6, -1e-6)
            ]
            expected = (ends[0] - ends[1]) / 2e-6
            assert (gradient * direction).sum().item() == pytest.approx(expected.item(), rel=1e-5)


def test_groups_sum_and_captions_can_be_normalised(make, noise):
    encoder = make("quickgelu")
    single = explain(encoder.image(noise), encoder.text("a starfish and a dog"))
    image = encoder.image(noise, players="2x2")
    text = encoder.text("a starfish and a dog", players="words")
    grouped = explain(image, text, text_normalised=True)
    blocks = image_terms(single).reshape(2, 2, 2, 2).sum((1, 3)).ravel()
    np.testing.assert_allclose(image_terms(grouped), blocks, rtol=1e-6)
    words = np.bincount(text.players.owner, text_terms(single))
    np.testing.assert_allclose(text_terms(grouped), words / text_terms(single).sum(), rtol=1e-6)
    assert text_terms(grouped).sum() == pytest.approx(1) and grouped.info["fit"]["text_normalised"]


def test_a_score_of_another_scale_scales_the_maps(make, noise):
    encoder = make("siglip")
    image, text = encoder.image(noise), encoder.text(CAPTION)
    one, ten = (explain(image, text, scale=scale) for scale in (1, 10))
    np.testing.assert_allclose(ten.e1, 10 * one.e1, rtol=1e-5)
    cosine = (explain(image, text).grand_value - encoder.logit_bias) / encoder.logit_scale
    assert one.grand_value - encoder.logit_bias == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_any_two_sides_will_do(make, noise, kind):
    encoder = make(kind)
    image, text = encoder.image(noise), encoder.text(CAPTION)
    mirrored = explain(text, image)
    np.testing.assert_allclose(text_terms(mirrored), image_terms(explain(image, text)), rtol=1e-5)
    assert mirrored.n_image == text.n and mirrored.picture is None
    other = encoder.image(noise[::-1].copy())
    expected = literal_map(other, image, -1, encoder.logit_scale)
    np.testing.assert_allclose(text_terms(explain(image, other)), expected, rtol=1e-4, atol=1e-6)
    assert text_terms(explain(text, encoder.text("a star"))).shape == (2,)


def test_attention_without_effect_gives_zeros(make, noise):
    encoder = make("clip")
    for blocks in (encoder.model.visual.transformer, encoder.model.transformer):
        blocks.resblocks[-1].attn.out_proj.weight.data.zero_()
    found = explain(encoder.image(noise), encoder.text(CAPTION), text_normalised=True)
    assert not found.e1.any()  # and no 0 / 0


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_model_is_left_as_it_was(make, noise, kind):
    encoder = make(kind)
    image, text = encoder.image(noise), encoder.text(CAPTION)
    before, logit = state(encoder.model), encoder.logit(noise, CAPTION)
    first = explain(image, text, start_layer=0).e1
    with torch.no_grad():
        assert np.array_equal(explain(image, text, start_layer=0).e1, first)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        inside = explain(encoder.image(noise), encoder.text(CAPTION), start_layer=0)
        assert np.array_equal(inside.e1, first)
    assert torch.is_grad_enabled()
    encoder.model.requires_grad_(True)  # someone may have thawed it
    np.testing.assert_allclose(explain(image, text, start_layer=0).e1, first, rtol=1e-4)
    assert all(p.requires_grad and p.grad is None for p in encoder.model.parameters())
    encoder.model.requires_grad_(False)

    def fail(*_):
        raise RuntimeError("the tower fails")

    visual = encoder.model.visual
    norm = visual.trunk.norm if hasattr(visual, "trunk") else visual.ln_post
    with norm.register_forward_hook(fail), pytest.raises(RuntimeError, match="the tower fails"):
        explain(image, text)
    assert state(encoder.model) == before and encoder.logit(noise, CAPTION) == logit


def test_towers_of_timm(make, noise):
    found = explain(*pair(make("timm-token"), noise))
    assert image_terms(found).shape == (100,) and image_terms(found).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pooled = explain(*pair(make("pe-core"), noise))  # rotary blocks, and a pool like SigLIP's
    assert image_terms(pooled).any()
    with pytest.raises(ValueError, match=r"attention of the kind \w+, which cannot be recomputed"):
        explain(*pair(make("pe-core"), noise), start_layer=-2)


def pair(encoder, noise):
    return encoder.image(noise), encoder.text(CAPTION)


def test_refusals(make, noise):
    for kind in ("average-eos", "timm-average"):
        with pytest.raises(ValueError, match=rf"image tower of '{kind}' has neither .*by 'avg'"):
            explain(*pair(make(kind), noise))
    image, text = pair(make("clip"), noise)
    with pytest.raises(ValueError, match="make both sides with the same encoder"):
        explain(image, make("siglip").text(CAPTION))
    with pytest.raises(TypeError, match=r"GAME looks into the model .* got Smooth"):
        explain(Smooth(4), text)
    with pytest.raises(ValueError, match=r"start_layer must be from -2 to 1.* got 2"):
        explain(image, text, start_layer=2)
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match=r"load it with dtype=torch\.float32"):
            explain(*pair(make("clip", dtype=dtype), noise))

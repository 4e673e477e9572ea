"""Tests of fixlip.explainers.grad_eclip, against a forward pass that is spelled out."""

import numpy as np
import pytest
import torch
from literal import Spelled, build, image_terms, state, text_terms
from toy_games import Smooth

import fixlip
from fixlip.encoders.attention import embed, readout
from fixlip.explainers.grad_eclip import explain

CAPTION = "a red star and a cross"


@pytest.fixture
def make(tiny_model, tokenizer_folder):
    def make(kind, **options):
        if kind.startswith("demo"):
            return fixlip.load(kind, device="cpu", **options)
        return build(tiny_model, tokenizer_folder, kind, **options)

    return make


def pair(encoder, noise):
    return encoder.image(noise), encoder.text(
        "a red star" if encoder.name.startswith("demo") else CAPTION
    )


def projections(side):
    """Weight and bias of each layer's output projection."""
    model = side.encoder.model
    if hasattr(side, "ids"):
        layers = [b.attn.out_proj for b in getattr(model, "text", model).transformer.resblocks]
    elif hasattr(model.visual, "trunk"):
        trunk = model.visual.trunk
        layers = [b.attn.proj for b in trunk.blocks] + [trunk.attn_pool.proj]
    else:
        layers = [b.attn.out_proj for b in model.visual.transformer.resblocks]
    return [(layer.weight, layer.bias) for layer in layers]


def literal_map(side, other, heads, blocks):
    """Grad-ECLIP's equations, position by position: gradients by zero shifts of the outputs."""
    text = hasattr(side, "ids")
    depth = Spelled(side).depth
    layers = range(depth)[-blocks if text else -1 :]
    one = len(layers) if heads == "one" else 0
    natural = Spelled(side, one=one)
    shifts = {i: torch.zeros_like(natural.steps[i].output).requires_grad_() for i in layers}
    run = Spelled(side, one=one, shifts=shifts)
    (run.embedding @ Spelled(other).embedding).backward()  # the other side is the model's own
    query = side.pooled if text else 0
    n = len(side.players.owner)
    total = 0
    for i in layers:
        q, k, v, *_ = natural.steps[i]
        positions = range(len(k)) if text else range(len(k) - n, len(k))
        W, b = projections(side)[i]
        ends = [(W @ q[query] + b, W @ k[t] + b) for t in positions]
        cosines = torch.stack([a @ c / (a.norm() * c.norm()) for a, c in ends])
        weights = (cosines - cosines.min()) / (cosines.max() - cosines.min())
        dots = torch.stack([(shifts[i].grad[query] * v[t]).sum() for t in positions])
        total = total + dots * weights
    total = total[side.span] if text else total
    return total.clamp(min=0).detach().numpy()


@pytest.mark.parametrize("heads", ["one", "own"])
@pytest.mark.parametrize(
    "kind,blocks",
    [
        ("clip", 8),
        ("clip", 1),
        ("quickgelu", 8),
        ("siglip", 8),
        ("demo-clip", 3),
        ("demo-siglip", 8),
    ],
)
def test_the_maps_follow_the_equations(make, noise, kind, blocks, heads):
    image, text = pair(make(kind), noise)
    found = explain(image, text, heads=heads, text_blocks=blocks)
    # of one side it may be 0: random weights, which differ between versions, and no negative values
    assert max(image_terms(found).max(), text_terms(found).max()) > 1e-3
    for values, side, other in [
        (image_terms(found), image, text),
        (text_terms(found), text, image),
    ]:
        expected = literal_map(side, other, heads, blocks)
        assert values.dtype == np.float64 and (values >= 0).all()
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5 * values.max())
    cosine = Spelled(image).embedding @ Spelled(text).embedding
    scale, bias = image.encoder.logit_scale, image.encoder.logit_bias
    assert found.grand_value == pytest.approx(scale * float(cosine) + bias, abs=1e-4)
    assert found.players == image.names + text.names
    fit = found.info["fit"]
    assert (fit["method"], fit["heads"], fit["text_blocks"]) == ("Grad-ECLIP", heads, blocks)


@pytest.mark.parametrize("heads", ["one", "own"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_gradients_by_outputs_are_finite_differences(make, noise, kind, heads):
    image, text = pair(make(kind, dtype=torch.float64), noise)
    for side, other in [(image, text), (text, image)]:
        towards = Spelled(other).embedding
        layers = readout(side, method="test").layers
        with torch.enable_grad():
            embedding, attentions = embed(side, layers, heads=heads)
            gradients = torch.autograd.grad(embedding @ towards, [a.output for a in attentions])
        one = len(layers) if heads == "one" else 0
        torch.testing.assert_close(embedding, Spelled(side, one=one).embedding, rtol=0, atol=1e-12)
        generator = torch.Generator().manual_seed(0)
        for i, gradient in enumerate(gradients):
            direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            ends = [
                Spelled(side, one=one, shifts={i: step * direction}).embedding @ towards
                for step in (1e-6, -1e-6)
            ]
            expected = (ends[0] - ends[1]) / 2e-6
            assert (gradient * direction).sum().item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_head_and_own_heads_agree_where_there_is_one_head(make, noise):
    encoder = make("clip")
    for tower in (encoder.model.visual.transformer, encoder.model.transformer):
        for block in tower.resblocks:
            block.attn.num_heads, block.attn.head_dim = 1, block.attn.embed_dim
    image, text = pair(encoder, noise)
    one, own = (explain(image, text, heads=heads).e1 for heads in ("one", "own"))
    np.testing.assert_allclose(one, own, rtol=1e-5)


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


def test_any_two_sides_will_do(make, noise):
    encoder = make("siglip")
    image, text = pair(encoder, noise)
    mirrored = explain(text, image)
    np.testing.assert_allclose(text_terms(mirrored), image_terms(explain(image, text)), rtol=1e-5)
    assert mirrored.n_image == text.n and mirrored.picture is None
    other = encoder.image(noise[::-1].copy())
    expected = literal_map(other, image, "one", 8)
    np.testing.assert_allclose(text_terms(explain(image, other)), expected, rtol=1e-4, atol=1e-6)
    assert text_terms(explain(text, encoder.text("a star"))).shape == (2,)


def test_attention_without_effect_gives_zeros(make, noise):
    encoder = make("clip")
    for tower in (encoder.model.visual.transformer, encoder.model.transformer):
        for block in tower.resblocks:
            block.attn.out_proj.weight.data.zero_()  # all projected keys are the bias: alike
    found = explain(*pair(encoder, noise), text_normalised=True)
    assert not found.e1.any()  # and no 0 / 0


def test_keys_that_are_all_alike_count_fully(make, noise):
    encoder = make("clip")
    attn = encoder.model.visual.transformer.resblocks[-1].attn
    attn.in_proj_weight.data[32:64] = 0  # keys are their bias
    image, text = pair(encoder, noise)
    layers = readout(image, method="test").layers[-1:]
    with torch.enable_grad():
        embedding, (attention,) = embed(image, layers, heads="one")
        towards = Spelled(text).embedding
        (gradient,) = torch.autograd.grad(embedding @ towards, attention.output)
    expected = (attention.v[1:] @ gradient[0]).clamp(min=0)
    np.testing.assert_allclose(image_terms(explain(image, text)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_model_is_left_as_it_was(make, noise, kind):
    encoder = make(kind)
    image, text = pair(encoder, noise)
    before, logit = state(encoder.model), encoder.logit(noise, CAPTION)
    first = explain(image, text).e1
    with torch.no_grad():
        assert np.array_equal(explain(image, text).e1, first)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert np.array_equal(explain(*pair(encoder, noise)).e1, first)
    encoder.model.requires_grad_(True)  # someone may have thawed it
    np.testing.assert_allclose(explain(image, text).e1, first, rtol=1e-4, atol=1e-7)
    assert all(p.requires_grad and p.grad is None for p in encoder.model.parameters())
    encoder.model.requires_grad_(False)

    def fail(*_):
        raise RuntimeError("the tower fails")

    tower = getattr(encoder.model, "text", encoder.model)
    with tower.transformer.resblocks[-1].register_forward_hook(fail):
        with pytest.raises(RuntimeError, match="the tower fails"):
            explain(image, text)
    assert state(encoder.model) == before and encoder.logit(noise, CAPTION) == logit


def test_refusals(make, noise):
    for kind in ("average-eos", "timm-average"):
        with pytest.raises(ValueError, match=rf"image tower of '{kind}' has neither .*by 'avg'"):
            explain(*pair(make(kind), noise))
    image, text = pair(make("clip"), noise)
    with pytest.raises(ValueError, match="make both sides with the same encoder"):
        explain(image, make("siglip").text(CAPTION))
    with pytest.raises(TypeError, match=r"Grad-ECLIP looks into the model .* got Smooth"):
        explain(Smooth(4), text)
    with pytest.raises(ValueError, match='heads must be "own" or "one", got \'two\''):
        explain(image, text, heads="two")
    with pytest.raises(ValueError, match="text_blocks must be a whole number of 1 or more, got 0"):
        explain(image, text, text_blocks=0)
    with pytest.raises(ValueError, match=r"load it with dtype=torch\.float32"):
        explain(*pair(make("clip", dtype=torch.bfloat16), noise))


def test_a_captions_keys_may_be_compared_before_the_projection():
    """As the authors' notebook on captions does; spelled out for one layer."""
    encoder = fixlip.load("demo-clip", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    sides = encoder.image(pixels), encoder.text("a red star and a cross")
    options = {"text_blocks": 1, "heads": "own"}
    raw = explain(*sides, text_keys="raw", **options)
    projected = explain(*sides, **options)
    n = sides[0].n
    assert np.array_equal(raw.e1[:n], projected.e1[:n])  # of captions only
    read = readout(sides[1], method="test")
    other = sides[0].embed(torch.ones(1, n, dtype=torch.bool))[0]
    with torch.enable_grad():
        embedding, (attention,) = embed(sides[1], read.layers[-1:], heads="own")
        (gradient,) = torch.autograd.grad(embedding @ other, [attention.output])
    q, k = attention.q[read.query].double(), attention.k.double()
    cosine = k @ q / (k.norm(dim=1) * q.norm())
    share = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    terms = share * (attention.v.double() @ gradient[read.query].double())
    expected = terms[read.units].relu().detach().numpy()
    assert np.allclose(raw.e1[n:], expected, rtol=1e-5, atol=1e-8)
    assert not np.allclose(raw.e1[n:], projected.e1[n:], rtol=1e-3)
    assert raw.info["fit"]["text_keys"] == "raw"

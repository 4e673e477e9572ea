"""Tests of fixlip.explainers.exclip, icam and integrated: equal to the Jacobians written out."""

import itertools
import json

import numpy as np
import open_clip
import pytest
import torch
from tiny import CONFIGS

from fixlip import pair
from fixlip.encoders import Encoder
from fixlip.encoders.opened import OpenTower
from fixlip.encoders.sides import ImageSide
from fixlip.explainers import exclip, icam
from fixlip.explainers.integrated import Line, _reference

CAPTION = "a red star and a cross"


@pytest.fixture
def make(tiny_model, tokenizer_folder):
    """Wrap a tiny model in an encoder."""

    def build(kind, tokenizer=None, **options):
        model = tiny_model(kind)
        own = {"clip": "demo-clip", "siglip": "siglip2", "average-eos": "siglip2"}
        tokenizer = tokenizer or own.get(kind, "clip")
        read = open_clip.tokenizer.HFTokenizer(
            str(tokenizer_folder(tokenizer, 12)), context_length=model.context_length
        )
        return Encoder(model, read, name=kind, **options)

    return build


def sides(encoder, image, **options):
    return encoder.image(image, **options), encoder.text(CAPTION)


# --- a slow twin: the model itself, with a hook that swaps hidden states, and whole Jacobians ----


def own_tower(side, layer):
    """The model's own function of an input, and the block whose input is explained."""
    model = side.encoder.model
    if isinstance(side, ImageSide):
        trunk = getattr(model.visual, "trunk", None)
        blocks = trunk.blocks if trunk else model.visual.transformer.resblocks
        return model.encode_image, side.pixels, blocks[layer]
    return model.encode_text, side.ids, getattr(model, "text", model).transformer.resblocks[layer]


def hidden_states(encode, inputs, block):
    seen = []
    with torch.no_grad(), block.register_forward_pre_hook(lambda m, args: seen.append(args[0])):
        encode(inputs)
    return seen[0][0]  # (L, width)


def literal(side, layer, steps, reference=None):
    """Vectors of all tokens (L, D), by eq. 6 to 10; reference: an input, or None for zeros."""
    encode, inputs, block = own_tower(side, layer)
    a = hidden_states(encode, inputs, block)
    r = torch.zeros_like(a) if reference is None else hidden_states(encode, reference, block)

    def g(x):
        with block.register_forward_pre_hook(lambda m, args: (x[None], *args[1:])):
            return encode(inputs)[0]

    jacobian = sum(
        torch.autograd.functional.jacobian(g, r + n / steps * (a - r)) for n in range(1, steps + 1)
    )  # (D, L, width)
    vectors = (jacobian.double() / steps * (a - r)).sum(2).T  # (L, D)
    return (vectors / g(a).double().norm()).numpy()


def by_row(side, tokens):
    """Sum token vectors (L, D) to special rows and players, and name the special rows."""
    owner, L = side.players.owner, len(tokens)
    if isinstance(side, ImageSide):
        first = L - len(owner)
        special = {"CLS": tokens[:first]} if first else {}
    else:
        first, stop = side.span.start, side.span.stop
        special = {
            "BOS": tokens[:first],
            "EOS": tokens[stop : stop + 1],
            "pads": tokens[stop + 1 :],
        }
    vectors = np.zeros((side.n, tokens.shape[1]))
    for i, player in enumerate(owner):
        vectors[player] += tokens[first + i]
    return vectors, {name: part.sum(0) for name, part in special.items() if len(part)}


def check(factor, side, tokens, tolerance=1e-5):
    vectors, special = by_row(side, tokens)
    np.testing.assert_allclose(factor.first, vectors, rtol=0, atol=tolerance)
    for name, vector in special.items():
        if name in factor.special_names:
            row = factor.special[factor.special_names.index(name)]
            np.testing.assert_allclose(row, vector, rtol=0, atol=tolerance)
        else:  # causal towers are cut where nothing is read any more
            assert name == "pads" and not vector.any()


def padded(side, count):
    """Start, padding, end, padding: the caption's reference."""
    empty = side.encoder.tokenizer([""])[0].tolist()
    start, pad = side.span.start, empty[-1]
    return torch.tensor([[*empty[:start], *[pad] * count, *empty[start:]][: len(empty)]])


# --- equality with the twin ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer,dtype,tolerance", [(-1, torch.float32, 1e-5), (-2, torch.float64, 1e-8)]
)
@pytest.mark.parametrize("kind", CONFIGS)
def test_equal_to_the_jacobians(make, noise, kind, layer, dtype, tolerance):
    for side in sides(make(kind, dtype=dtype), noise):
        image = isinstance(side, ImageSide)
        reference = torch.zeros_like(side.pixels) if image else padded(side, 1)
        tokens = literal(side, layer, 2, reference)
        assert np.abs(tokens).max() > 1e-2
        for method in ("forward", "reverse"):
            found = exclip.factor(side, layer=layer, steps=2, mode=method)
            check(found, side, tokens, tolerance)
            assert found.first.dtype == torch.float64


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_icam_is_jacobian_times_activation(make, noise, kind):
    for side in sides(make(kind), noise):
        tokens = literal(side, -1, 1)
        check(icam.factor(side), side, tokens)
        found, same = icam.factor(side), exclip.factor(side, steps=1, reference="vectors")
        np.testing.assert_allclose(found.first, same.first, rtol=0, atol=1e-6)
    image, text = sides(make(kind), noise)
    image, text = icam.factor(image), icam.factor(text)
    expected = 2 * image.first.numpy() @ text.first.numpy().T
    np.testing.assert_allclose(pair(image, text, scale=2.0).cross, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_finite_differences(make, noise, kind):
    """In one step V[s] is the derivative where only row s moves on."""
    for side in sides(make(kind, dtype=torch.float64), noise):
        found = exclip.factor(side, layer=0, steps=1, normalise=False)
        path = Line(side, 0, None)
        tower, h = path.tower, 1e-6
        move = tower.rows.double()[:, :, None] * path.delta  # (k + n, T, width)
        with torch.no_grad():
            slope = tower.embed(tower.hidden + h * move) - tower.embed(tower.hidden - h * move)
        expected = slope.numpy() / (2 * h)
        rows = np.concatenate([found.special, found.first])
        # differences of numbers around 1 in steps of 1e-6 are known to about 1e-7
        np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-6)


# --- completeness -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind,most", [("clip", 80), ("siglip", 40)])
def test_all_interactions_sum_to_the_corners(make, noise, kind, most):
    image, text = sides(make(kind), noise)
    factors = {
        (reference, *how): exclip.factor(side, reference=reference, steps=how[0], rule=how[1])
        for side, references in ((image, ("zero", "gaussian")), (text, ("padding", "empty")))
        for reference in references
        for how in ((5, "right"), (20, "right"), (most, "right"), (most, "midpoint"))
    }
    for references in itertools.product(("zero", "gaussian"), ("padding", "empty")):
        total = exclip.corners(image, text, references=references).total

        def error(*how, references=references, total=total):
            both = (factors[reference, *how].with_special() for reference in references)
            return abs(pair(*both, scale=1).cross.sum() - total)

        assert error(most, "right") < 0.5 / most
        assert error(most, "right") < max(error(5, "right"), error(20, "right")) / 1.5
        assert error(most, "midpoint") < 1.6 / most**2


def test_corners_are_the_models_own_similarities(make, noise):
    encoder = make("clip")
    image, text = sides(encoder, noise)
    model = encoder.model
    found = exclip.corners(image, text, references=("gaussian", "padding"), seed=3)
    noise = torch.randn(image.pixels.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        a, r_a = model.encode_image(torch.cat([image.pixels, noise])).double()
        b = model.encode_text(text.ids)[0].double()
        ids = padded(text, 1)  # pooled where the caption ends, not where the reference does
        hidden = model.token_embedding(ids) + model.positional_embedding
        hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask))
        r_b = (hidden[0, text.span.stop] @ model.text_projection).double()
    constant = a.norm() * b.norm()
    for value, (x, y) in zip(found, [(a, b), (r_a, b), (a, r_b), (r_a, r_b)], strict=True):
        assert value == pytest.approx(float(x @ y / constant), abs=1e-6)
    assert found.total == pytest.approx(found[0] - found[1] - found[2] + found[3])
    assert found.inputs == pytest.approx(
        (encoder.logit(image.picture, CAPTION) - encoder.logit_bias) / encoder.logit_scale, abs=1e-5
    )
    twice = exclip.corners(image, text, references=("gaussian", "padding"), seed=3, scale=2)
    assert twice.inputs == pytest.approx(2 * found.inputs)


def test_references_of_captions_are_the_published_ones(tiny_model):
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 16,
            "width": 32,
            "head_width": 8,
            "layers": 1,
        },
        "text_cfg": {"context_length": 8, "width": 8, "heads": 1, "layers": 1},
    }
    read = open_clip.SimpleTokenizer(context_length=8)
    side = Encoder(tiny_model("bpe", config), read, name="bpe").text("a dog")
    start, end = 49406, 49407
    for reference, count, ids in [
        ("padding", 1, [start, 0, end, 0, 0, 0, 0, 0]),  # TMLR
        ("padding", 2, [start, 0, 0, end, 0, 0, 0, 0]),  # FIxLIP's experiments
        ("empty", 1, [start, end, 0, 0, 0, 0, 0, 0]),
    ]:
        assert _reference(side, reference, count, 0).tolist() == [ids]


# --- options ------------------------------------------------------------------------------------


def test_groups_are_the_sums_of_their_tokens(make, noise):
    encoder = make("clip", "clip")
    fine = exclip.factor(encoder.image(noise), steps=2)
    coarse = exclip.factor(encoder.image(noise, players="2x2"), steps=2)
    expected = fine.first.reshape(2, 2, 2, 2, 16).sum((1, 3)).reshape(4, 16)
    np.testing.assert_allclose(coarse.first, expected, rtol=0, atol=1e-6)
    tokens = exclip.factor(encoder.text("a starfish"), steps=2)
    words = exclip.factor(encoder.text("a starfish", players="words"), steps=2)
    assert words.names == ("a", "starfish") and words.special_names == ("BOS", "EOS")
    np.testing.assert_allclose(words.first[1], tokens.first[1:].sum(0), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forward", "reverse"])
def test_batches_do_not_matter(make, noise, method):
    for side in sides(make("siglip"), noise):
        whole = exclip.factor(side, steps=3, mode=method)
        apart = exclip.factor(side, steps=3, mode=method, memory=1e-9)
        np.testing.assert_allclose(apart.first, whole.first, rtol=0, atol=1e-6)


def test_the_mode_with_fewer_passes_is_taken(make, noise, monkeypatch):
    taken = []
    for mode in ("_forward", "_reverse"):
        own = getattr(Line, mode)
        monkeypatch.setattr(Line, mode, lambda *args, m=mode, f=own: taken.append(m) or f(*args))
    encoder = make("clip")
    exclip.factor(encoder.image(noise), steps=1)  # 17 rows, 16 dimensions
    exclip.factor(encoder.text(CAPTION), steps=1)  # 8 rows
    assert taken == ["_reverse", "_forward"]


def test_the_variant_of_the_fixlip_experiments(make, noise):
    encoder = make("clip")
    image, text = sides(encoder, noise)
    with torch.no_grad():
        a, r_a = encoder.model.encode_image(
            torch.cat([image.pixels, torch.zeros_like(image.pixels)])
        )
        b, r_b = encoder.model.encode_text(torch.cat([text.ids, padded(text, 2)]))
    for side, shift in ((image, a - r_a), (text, b - r_b)):
        raw = exclip.factor(side, steps=20, variant="fixlip", normalise=False)
        found = exclip.factor(side, variant="fixlip")
        np.testing.assert_allclose(found.first * float(shift.norm()), raw.first, rtol=1e-5)
        assert found.options["steps"] == 20
    raw = exclip.factor(image, steps=3, normalise=False)
    found = exclip.factor(image, steps=3)
    np.testing.assert_allclose(found.first * float(a.norm()), raw.first, rtol=1e-5)


def test_any_two_sides_of_one_encoder_pair(make, noise):
    encoder = make("clip")
    image, text = sides(encoder, noise)
    for one, two in ((image, encoder.image(noise[::-1])), (text, encoder.text("a cross"))):
        first, second = (exclip.factor(s, steps=50, rule="midpoint") for s in (one, two))
        assert pair(first, second).cross.shape == (one.n, two.n)
        total = exclip.corners(one, two).total
        full = pair(first.with_special(), second.with_special(), scale=1).cross
        assert full.sum() == pytest.approx(total, abs=0.02)
    with pytest.raises(ValueError, match="make both sides with the same encoder"):
        other = make("siglip").text(CAPTION)
        pair(exclip.factor(image, steps=1), exclip.factor(other, steps=1))
    with pytest.raises(ValueError, match=r"'exclip', .* by 'icam'"):
        pair(exclip.factor(image, steps=1), icam.factor(text))


def test_info_says_what_was_done(make, noise):
    side = make("clip").image(noise)
    found = exclip.factor(side, steps=2, reference="gaussian", seed=4)
    assert found.method == "exclip" and found.options == {
        "layer": 1,
        "reference": "gaussian",
        "variant": "tmlr",
        "normalise": True,
        "seed": 4,
        "steps": 2,
        "rule": "right",
    }
    assert json.loads(json.dumps(found.options)) == found.options
    assert np.array_equal(found.picture, side.picture) and found.names == side.names


@pytest.mark.parametrize(
    "options,message",
    [
        ({"steps": 0}, "steps must be a whole number of 1 or more, got 0"),
        ({"layer": 2}, "layer 2 does not exist: the tower has 2 blocks"),
        ({"variant": "iclr"}, 'variant must be "tmlr" or "fixlip"'),
        ({"reference": "padding"}, "the reference of the image side must be"),
        ({"mode": "both"}, 'mode must be "auto", "forward" or'),
        ({"rule": "left"}, 'rule must be "right" or'),
        ({"memory": 0}, "memory, in GiB, must be a number above 0"),
    ],
)
def test_bad_options(make, noise, options, message):
    with pytest.raises(ValueError, match=message):
        exclip.factor(make("clip").image(noise), **options)


def test_what_cannot_be_explained(make, noise):
    with pytest.raises(ValueError, match=r"torch\.bfloat16, too coarse .*dtype=torch\.float32"):
        exclip.factor(make("clip", dtype=torch.bfloat16).image(noise))
    grey = np.full((32, 32, 3), 128, np.uint8)
    encoder = make("clip")
    encoder.model.visual.proj.data.zero_()
    with pytest.raises(ValueError, match=r"length 0\.0, so its map cannot be normalised"):
        exclip.factor(encoder.image(grey), steps=1)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_model_is_left_as_it_was(make, noise, kind):
    encoder = make(kind)
    model, fast = encoder.model, torch.backends.mha.get_fastpath_enabled()
    next(model.parameters()).requires_grad_(True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wanted = [p.requires_grad for p in model.parameters()]
    for side, method in itertools.product(sides(encoder, noise), ("forward", "reverse")):
        with torch.no_grad():
            exclip.factor(side, steps=1, mode=method)
        broken = OpenTower(side).blocks[-1].mlp.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            exclip.factor(side, steps=1, mode=method)
        broken.remove()
    assert wanted == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast and torch.is_grad_enabled()

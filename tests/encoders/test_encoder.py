"""Masked embeddings are those that open_clip gives for masked inputs."""

import copy
import gc
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny import CONFIGS, tiny_config
from torch.nn.functional import normalize

import fixlip.encoders
from fixlip.encoders import Encoder, load
from fixlip.encoders.masking import fitting_rows

CAPTION = "a red star and a cross"
ENDS_ONLY = ("siglip", "average-eos")  # tiny models whose captions need no start token
MODELS = Path(fixlip.__file__).parent / "demo" / "models"


def literal_image(side, masks):
    """Embed an image with its removed patches set to zero, mask by mask and patch by patch."""
    rows, cols = side.grid
    size = getattr(side.encoder.model.visual, "patch_size", None)
    high, wide = size or (side.pixels.shape[2] // rows, side.pixels.shape[3] // cols)
    embeddings = []
    for mask in masks:
        pixels = side.pixels.clone()
        for patch, owner in enumerate(side.players.owner):
            if not mask[owner]:
                top, left = patch // cols * high, patch % cols * wide
                pixels[:, :, top : top + high, left : left + wide] = 0
        embeddings.append(side.encoder.model.encode_image(pixels, normalize=True))
    return torch.cat(embeddings)


def literal_text(side, masks):
    """Embed a caption with its removed tokens taken out, the others at their old positions."""
    model = side.encoder.model
    text = getattr(model, "text", model)
    kind = text.text_pool_type if text is model else text.pool_type
    embeddings = []
    for mask in masks:
        gone = {
            side.span.start + t for t, owner in enumerate(side.players.owner) if not mask[owner]
        }
        kept = [i for i in range(side.ids.shape[1]) if i not in gone]
        ids = side.ids[:, kept]
        x = text.token_embedding(ids) + text.positional_embedding[kept]  # (1, kept, width)
        causal = None if text.attn_mask is None else text.attn_mask[: len(kept), : len(kept)]
        x = text.ln_final(text.transformer(x, attn_mask=causal))
        if kind == "eos":
            pooled = kept.index(side.ids[0].tolist().index(text.eos_id))
        else:
            pooled = {"first": 0, "last": -1, "argmax": int(ids.argmax())}[kind]
        projection = text.text_projection
        x = x[:, pooled]
        x = projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection
        embeddings.append(normalize(x, dim=-1))
    return torch.cat(embeddings)


def some_masks(n, m=3, seed=0):
    """Random masks, with everything removed and everything kept among them."""
    masks = torch.rand(m, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    masks[0], masks[1] = False, True
    return masks


def check_exact(encoder, image, *, tolerance=1e-5, text="tokens", patches="patches", m=3):
    """Compare both sides with the literal twins, and the grand coalition with open_clip's logit."""
    sides = encoder.image(image, players=patches), encoder.text(CAPTION, players=text)
    embedded = []
    with torch.no_grad():
        for side, literal in zip(sides, (literal_image, literal_text), strict=True):
            masks = some_masks(side.n, m)
            found = side.embed(masks)
            torch.testing.assert_close(found, literal(side, masks), rtol=0, atol=tolerance)
            torch.testing.assert_close(found.norm(dim=1), torch.ones(m), rtol=0, atol=1e-5)
            embedded.append(found)
    whole = encoder.logit_scale * float(embedded[0][1] @ embedded[1][1]) + encoder.logit_bias
    assert whole == pytest.approx(encoder.logit(image, CAPTION), rel=1e-5, abs=1e-5)
    return embedded


@pytest.fixture
def make(tiny_model, tokenizer_folder):
    """Wrap a tiny model in an encoder."""

    def build(kind, tokenizer=None, **options):
        model = tiny_model(kind)
        tokenizer = tokenizer or ("siglip2" if kind in ENDS_ONLY else "clip")
        read = open_clip.tokenizer.HFTokenizer(
            str(tokenizer_folder(tokenizer, 12)), context_length=model.context_length
        )
        return Encoder(model, read, name=kind, **options)

    return build


@pytest.mark.parametrize("text,patches", [("tokens", "patches"), ("words", "2x2")])
@pytest.mark.parametrize(
    "kind,tokenizer",
    [
        ("clip", "clip"),
        ("clip", "demo-clip"),
        ("siglip", "siglip1"),
        ("siglip", "siglip2"),
        ("siglip", "demo-siglip"),
        ("average-eos", "siglip2"),  # causal without a start token: rows that could see nothing
        ("oblong-first", "clip"),
        ("custom-blocks", "clip"),
    ],
)
def test_tiny_models_are_exact(make, noise, kind, tokenizer, text, patches):
    encoder = make(kind, tokenizer)
    embedded = check_exact(encoder, noise, text=text, patches=patches, m=6)
    for found in embedded:  # the masks matter far more than the tolerance
        assert (found[0] - found[1]).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["clip", "siglip", "average-eos", "oblong-first"])
def test_towers_of_one_layer_are_exact(tiny_model, tokenizer_folder, noise, kind):
    """The block that answers for one token is then the one in which that token meets the masks."""
    config = tiny_config(kind)
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 1
    if kind == "siglip":  # the image tower is timm's, and stays
        del config["vision_cfg"]["layers"]
    tokenizer = "siglip2" if kind in ENDS_ONLY else "clip"
    read = open_clip.tokenizer.HFTokenizer(str(tokenizer_folder(tokenizer, 12)), context_length=12)
    encoder = Encoder(tiny_model(kind, config), read, name=kind)
    for found in check_exact(encoder, noise, m=16):
        assert torch.pdist(found).median() > 0.01


# tokens that the last block's MLP sees of the image and of the caption; None: all of them
@pytest.mark.parametrize(
    "kind,tokens",
    [
        ("clip", (1, 1)),
        ("siglip", (None, 1)),  # attention pooling reads all patches
        ("average-eos", (None, 1)),
        ("oblong-first", (1, 1)),
        ("custom-blocks", (None, None)),
    ],
)
def test_the_last_block_runs_for_the_tokens_that_are_read(make, noise, kind, tokens):
    encoder = make(kind)
    visual, text = encoder.model.visual, getattr(encoder.model, "text", encoder.model)
    native = hasattr(visual, "transformer")
    towers = (
        (visual.transformer.resblocks if native else visual.trunk.blocks),
        (text.transformer.resblocks),
    )
    for side, blocks, last in zip(
        (encoder.image(noise), encoder.text(CAPTION)), towers, tokens, strict=True
    ):
        seen = []
        hooks = [
            block.mlp.register_forward_pre_hook(lambda m, args, s=seen: s.append(args[0].shape[:2]))
            for block in blocks
        ]
        side.embed(some_masks(side.n, 5))
        for hook in hooks:
            hook.remove()
        whole = seen[0][1]
        assert whole >= side.n
        assert seen == [(5, whole)] * (len(blocks) - 1) + [(5, last or whole)]


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["vit_pe_core_tiny_patch16_384", "vitamin_small_224"])
def test_other_timm_towers_are_exact(tiny_model, tokenizer_folder, noise, tower):
    size = int(tower[-3:])
    vision = {"timm_model_name": tower, "image_size": size, "timm_pool": "", "timm_proj": "linear"}
    vision["timm_pool"] = "map" if "pe_core" in tower else "avg"
    text = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 4, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    read = open_clip.tokenizer.HFTokenizer(str(tokenizer_folder("clip", 12)), context_length=12)
    encoder = Encoder(tiny_model(tower, config), read, name=tower)
    check_exact(encoder, noise, patches="2x2")


REAL = {
    "ViT-B-32-quickgelu": ("clip", 7),
    "ViT-B-16": ("clip", 14),
    "ViT-B-16-SigLIP": ("siglip1", 14),
    "ViT-B-32-SigLIP2-256": ("siglip2", 8),
    "ViT-L-16-SigLIP2-256": ("siglip2", 16),
}


def small_vocabulary(monkeypatch, name):
    """Shrink the token table of a SigLIP model: the tiny tokenizers need no more."""
    config = open_clip.get_model_config(name)
    config["text_cfg"]["vocab_size"] = 600
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_models_are_exact(name, tokenizer_folder, noise, monkeypatch):
    kind, side = REAL[name]
    tokenizer = None
    if "SigLIP" in name:
        small_vocabulary(monkeypatch, name)
        tokenizer = tokenizer_folder(kind, 64)
    encoder = load(name, pretrained="random", tokenizer=tokenizer, device="cpu")
    assert encoder.image(noise).grid == (side, side)
    check_exact(encoder, noise)
    assert encoder.logit_bias == (-10 if "SigLIP" in name else 0)
    mean = encoder.model.visual.preprocess_cfg["mean"][0]
    assert mean == pytest.approx(0.5 if "SigLIP" in name else 0.48145466)
    del encoder
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REAL if "SigLIP" in name])
def test_siglip_architectures_of_two_layers_are_exact(name, tokenizer_folder, noise, monkeypatch):
    """As above in a fraction of the time, and with weights that make masks matter."""
    small_vocabulary(monkeypatch, name)
    kind, side = REAL[name]
    with torch.device("meta"):  # no time is spent on weights that are cut off
        model = open_clip.create_model(name, device="meta")
    model.visual.trunk.blocks = model.visual.trunk.blocks[:2]
    model.text.transformer.resblocks = model.text.transformer.resblocks[:2]
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weights in model.parameters():
        if weights.ndim > 1:
            weights.data.normal_(0, 3 / weights.shape[-1] ** 0.5, generator=generator)
        else:
            weights.data.fill_(1.0)
    read = open_clip.tokenizer.HFTokenizer(
        str(tokenizer_folder(kind, 64)), context_length=64, clean="canonicalize"
    )
    encoder = Encoder(model, read, name=name)
    assert encoder.image(noise).grid == (side, side)
    for found in check_exact(encoder, noise):
        assert (found[0] - found[1]).abs().max() > 0.005


@pytest.mark.parametrize("name", ["demo-clip", "demo-siglip", "demo-siglip-fine"])
def test_demo_models_are_exact(name, noise):
    if not (MODELS / name).is_dir():
        with pytest.raises(FileNotFoundError, match=f"'{name}' is not part of this copy"):
            load(name)
        pytest.skip(f"{name} is not there")
    encoder = load(name, device="cpu")
    masks = some_masks(3)
    side = encoder.text("a red star")
    assert side.names == ("a", "red", "star")
    with torch.no_grad():
        torch.testing.assert_close(side.embed(masks), literal_text(side, masks), rtol=0, atol=1e-5)
        image = encoder.image(noise)
        masks = some_masks(image.n)
        torch.testing.assert_close(
            image.embed(masks), literal_image(image, masks), rtol=0, atol=1e-5
        )


def test_one_forward_pass_for_all_rows(make, noise):
    encoder = make("siglip")
    seen = []
    hooks = [
        module.register_forward_hook(lambda m, args, out, k=k: seen.append((k, len(args[0]))))
        for k, module in [
            ("pixels", encoder.model.visual.trunk.patch_embed.proj),
            ("patches", encoder.model.visual.trunk.blocks[0]),
            ("text", encoder.model.text.transformer.resblocks[0]),
        ]
    ]
    image, text = encoder.image(noise), encoder.text(CAPTION)
    image.embed(some_masks(image.n, 5))
    text.embed(some_masks(text.n, 7))
    for hook in hooks:
        hook.remove()
    # one row of pixels for the image and one for the zero patches, however many masks there are
    assert seen == [("pixels", 1), ("pixels", 1), ("patches", 5), ("text", 7)]


def test_the_model_is_left_as_it_was(make, noise):
    encoder = make("clip")
    image, text = encoder.image(noise), encoder.text(CAPTION)
    before = encoder.logit(noise, CAPTION), image.embed(some_masks(image.n, 4))
    text.embed(some_masks(text.n, 4))
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert not encoder.model.training
    for side, tower in ((image, encoder.model.visual), (text, encoder.model)):
        # towers that fail half-way, in their last block
        with tower.transformer.resblocks[-1].attn.register_forward_hook(_fail):
            with pytest.raises(RuntimeError, match="the tower fails"):
                side.embed(some_masks(side.n))
    hooks = [
        hook
        for module in encoder.model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    assert hooks == []
    assert encoder.logit(noise, CAPTION) == before[0]
    assert torch.equal(image.embed(some_masks(image.n, 4)), before[1])


def _fail(*_):
    raise RuntimeError("the tower fails")


def test_rows_do_not_depend_on_the_batch(make, noise):
    encoder = make("siglip")
    for side in (encoder.image(noise), encoder.text(CAPTION)):
        masks = some_masks(side.n, 6)
        apart = torch.cat([side.embed(masks[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(side.embed(masks), apart, rtol=0, atol=1e-6)
        assert side.embed(masks).dtype == torch.float32 and not side.embed(masks).requires_grad


def test_batches_suit_the_device(make, noise, monkeypatch):
    encoder = make("clip")
    image, text = encoder.image(noise), encoder.text(CAPTION)
    cpu = torch.device("cpu")
    assert image.batch_size == fitting_rows(cpu, 16, 32) == 2**20 // (16 * 32)
    assert text.batch_size == fitting_rows(cpu, 8, 32)  # start, six tokens, end: not the padding
    assert fitting_rows(cpu, 49, 768) == 27 and fitting_rows(cpu, 2**12, 2**12) == 16
    found = []
    for gigabytes in (8, 80):
        about = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, a=about: a)
        found.append(fitting_rows(torch.device("cuda"), 49, 768))
        assert found[-1] * 49 * 768 * 64 == pytest.approx(gigabytes * 2**30 / 8, rel=0.01)
    assert found[1] > 9 * found[0]


@pytest.mark.parametrize("side", ["image", "text"])
def test_bad_masks(make, noise, side):
    encoder = make("clip")
    side = encoder.image(noise) if side == "image" else encoder.text(CAPTION)
    for shape in [(side.n,), (2, side.n + 1), (0, side.n), (1, 2, side.n)]:
        with pytest.raises(ValueError, match=rf"\(masks, {side.n}\)|no masks"):
            side.embed(torch.ones(shape, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"1 and 0.*got dtype torch\.float32"):
        side.embed(torch.full((2, side.n), 0.5))
    assert torch.equal(  # numpy masks are as good
        side.embed(np.ones((1, side.n), bool)), side.embed(torch.ones(1, side.n, dtype=torch.bool))
    )


def test_causal_towers_stop_at_the_end_token_exactly(make):
    encoder = make("clip", "demo-clip")
    side = encoder.text("a red star")
    lengths = []
    block = encoder.model.transformer.resblocks[0]
    with block.register_forward_pre_hook(lambda m, args: lengths.append(args[0].shape[1])):
        found = side.embed(torch.ones(1, 3, dtype=torch.bool))
    assert lengths == [5]  # start, three words, end
    with torch.no_grad():
        whole = encoder.model.encode_text(side.ids, normalize=True)  # all 12 positions
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)


def test_removed_patches_of_regions_and_names(make, noise):
    encoder = make("clip")
    dog = np.zeros((40, 56), bool)
    dog[:20, 8:28] = True  # the top left quarter of the central square
    side = encoder.image(noise, players={"dog": dog})
    assert side.names == ("dog", "rest") and side.info["players"] == "regions"
    owner = np.array(side.info["owner"]).reshape(4, 4)
    assert (owner[:2, :2] == 0).all() and (owner == 0).sum() == 4
    for several in ([dog, ~dog], np.stack([dog, ~dog])):
        assert encoder.image(noise, players=several).names == ("region 1", "region 2")
    for one in (dog, dog.astype(np.uint8), torch.tensor(dog)):
        assert encoder.image(noise, players=one).names == ("region 1", "rest")
    for none in (None, 4):
        with pytest.raises(TypeError, match=f"of type {type(none).__name__} .* regions by name"):
            encoder.image(noise, players=none)
    with torch.no_grad():
        masks = some_masks(2)
        torch.testing.assert_close(side.embed(masks), literal_image(side, masks), rtol=0, atol=1e-5)
    outside = np.zeros((40, 56), bool)
    outside[:, :6] = True
    with pytest.raises(ValueError, match="'edge' owns no patch: it covers at most 0%"):
        encoder.image(noise, players={"edge": outside})
    with pytest.raises(ValueError, match="booleans, or 1 and 0, of shape"):
        encoder.image(noise, players=[dog[:10]])
    for players in ("3x2", "patch", "0x0", "9x9"):
        with pytest.raises(ValueError, match=r"unknown; expected 'patches'|do not fit the grid"):
            encoder.image(noise, players=players)
    with pytest.raises(ValueError, match='must be "tokens" or "words", got \'sentences\''):
        encoder.text(CAPTION, players="sentences")


def test_the_picture_is_what_the_model_sees(make, noise):
    encoder = make("clip")
    side = encoder.image(noise)
    config = open_clip.transform.PreprocessCfg(**encoder.model.visual.preprocess_cfg)
    own = open_clip.transform.image_transform_v2(config, is_train=False)
    assert torch.equal(side.pixels[0], own(Image.fromarray(noise)))
    assert side.picture.dtype == np.uint8 and side.picture.shape == (32, 32, 3)
    mean, std = (torch.tensor(encoder.model.visual.preprocess_cfg[k]) for k in ("mean", "std"))
    again = side.pixels[0].permute(1, 2, 0) * std + mean  # (3, H, W) -> (H, W, 3)
    np.testing.assert_allclose(again * 255, side.picture, atol=1e-3)


def test_info_is_json_and_tells_models_apart(make, noise, tmp_path):
    encoder, other = make("clip"), make("siglip")
    path = tmp_path / "dogs.png"
    Image.fromarray(noise).save(path)
    image, text = encoder.image(path).info, encoder.text(CAPTION, players="words").info
    assert json.loads(json.dumps([image, text])) == [image, text]
    assert image["source"] == "dogs.png" and encoder.image(noise).info["source"] == "array"
    assert encoder.image(Image.open(path)).info["source"] == "dogs.png"
    assert (
        image["grid"] == [4, 4] and image["owner"] == list(range(16)) and image["size"] == [56, 40]
    )
    assert text["tokens"] == CAPTION.split() and text["cut"] is None and text["kind"] == "text"
    assert len(text["token_ids"]) == 6 and text["owner"] == [0, 1, 2, 3, 4, 5]
    assert image["model"] == text["model"] == encoder.info
    model = encoder.info
    assert (
        len(model["fingerprint"]) == 16 and model["fingerprint"] == make("clip").info["fingerprint"]
    )
    assert model["fingerprint"] != other.info["fingerprint"]
    assert (model["name"], model["pretrained"], model["dtype"]) == ("clip", None, "float32")
    assert model["logit_scale"] == pytest.approx(1 / 0.07) and model["logit_bias"] == 0.0
    assert other.info["logit_bias"] == -10.0
    assert repr(encoder) == "Encoder('clip', device='cpu', dtype=torch.float32)"


@pytest.mark.parametrize("kind", CONFIGS)
def test_other_precisions(make, noise, kind):
    exact = make(kind, dtype=torch.float64)
    masks = {}
    for dtype, tolerance in [(torch.bfloat16, 0.1), (torch.float16, 0.02), (torch.float32, 1e-5)]:
        encoder = make(kind, dtype=dtype)
        assert encoder.logit_scale == exact.logit_scale
        assert {w.dtype for w in encoder.model.parameters()} == {torch.float32}  # never rounded
        for door in ("image", "text"):
            given = noise if door == "image" else CAPTION
            side, reference = getattr(encoder, door)(given), getattr(exact, door)(given)
            masks = some_masks(side.n)
            found, expected = side.embed(masks), reference.embed(masks)
            assert found.dtype == torch.float32 and expected.dtype == torch.float64
            assert (found.double() - expected).abs().max() < tolerance
        assert np.isfinite(encoder.logit(noise, CAPTION))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_of_images_alone(make, noise, dtype):
    whole, half = make("clip"), make("clip", dtype=dtype)
    assert half.half and not whole.half
    sides = [(e.image(noise), e.text(CAPTION)) for e in (whole, half)]
    masks = [some_masks(side.n) for side in sides[0]]
    (image, text), (coarse, same) = (
        [side.embed(m) for side, m in zip(pair, masks, strict=True)] for pair in sides
    )
    assert torch.equal(text, same)
    assert not torch.equal(image, coarse)
    assert not torch.equal(coarse, coarse.to(dtype).float())  # the embedding is not rounded


def test_half_precision_ends_with_the_block_that_fails(make, noise):
    side = make("clip", dtype=torch.bfloat16).image(noise)
    block = side.encoder.model.visual.transformer.resblocks[0]
    with (
        block.mlp.register_forward_pre_hook(lambda *_: 1 / 0),
        pytest.raises(ZeroDivisionError),
    ):
        side.embed(some_masks(side.n))
    assert not torch.is_autocast_enabled("cpu") and not block._forward_hooks


def test_rows_lie_by_position_for_attention_in_half_precision(make, noise):
    encoder, seen = make("clip", dtype=torch.bfloat16), []
    for module in encoder.model.visual.modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            module.register_forward_pre_hook(lambda _, args: seen.append(args))
    side = encoder.image(noise)
    side.embed(some_masks(side.n))
    assert len(seen) == 2 and [len(args[0][0]) for args in seen] == [17, 1]  # the last reads one
    for query, key, value in seen:
        assert key is value and query.transpose(0, 1).is_contiguous()
        assert key.transpose(0, 1).is_contiguous()
    assert seen[0][0] is seen[0][1]  # one product for queries, keys and values


def test_embeddings_that_are_not_finite_are_refused(make, noise):
    encoder = make("clip")
    encoder.model.visual.proj.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"not finite in torch\.float32"):
        encoder.image(noise).embed(torch.ones(1, 16, dtype=torch.bool))


def test_tokenizers_of_another_model_are_refused(make):
    # without CLIP's end token, the highest id is some word: the model would read that one
    with pytest.raises(ValueError, match="which is no end token"):
        make("clip", "siglip2").text(CAPTION)


def test_extreme_images(make):
    with pytest.warns(UserWarning, match="sees only the central"):
        side = make("clip").image(np.zeros((10, 20000, 3), np.uint8))
    assert side.picture.shape == (32, 32, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make("clip").image(np.zeros((1, 1), np.uint8)).picture.shape == (32, 32, 3)


def test_towers_that_cannot_be_masked(tiny_model):
    text = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 4, "layers": 1}
    native = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 1}
    convnext = {
        "timm_model_name": "convnext_atto",
        "image_size": 64,
        "timm_pool": "",
        "timm_proj": "linear",
    }
    resnet = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "image_size": 32}
    read = open_clip.SimpleTokenizer()
    for vision in (convnext, resnet):
        model = tiny_model("x", {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})
        with pytest.raises(ValueError, match="image tower of 'x' is no plain vision transformer"):
            Encoder(model, read, name="x")
    config = {"embed_dim": 16, "vision_cfg": native, "custom_text": True}
    model = tiny_model("x", config | {"text_cfg": text | {"embed_cls": True}})
    with pytest.raises(ValueError, match="text tower of 'x' is not open_clip's plain"):
        Encoder(model, read, name="x")


def test_wrapped_models_are_the_model_in_them(make, noise):
    plain = make("clip")
    expected = plain.logit(noise, CAPTION)
    for wrap in (
        torch.nn.DataParallel,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: torch.compile(torch.nn.DataParallel(model), backend="eager"),
    ):
        encoder = Encoder(wrap(plain.model), plain.tokenizer, name="clip")
        assert encoder.model is plain.model and encoder.info == plain.info
        assert encoder.logit(noise, CAPTION) == expected


def test_compiled_parts_are_refused(make, noise):
    """Compiled before, a tower passes hooks by, and with them the masks, without a word."""
    plain = make("clip")
    side = plain.image(noise)
    masks = some_masks(side.n)
    expected = side.embed(masks)
    plain.model.visual.compile(backend="eager")
    with pytest.raises(ValueError, match=r"part 'visual' is compiled in place.*copy.deepcopy"):
        Encoder(plain.model, plain.tokenizer, name="x")
    again = Encoder(copy.deepcopy(plain.model), plain.tokenizer, name="x")
    assert torch.equal(again.image(noise).embed(masks), expected)
    for wrap in (torch.nn.DataParallel, lambda part: torch.compile(part, backend="eager")):
        model = make("clip").model
        model.visual.transformer = wrap(model.visual.transformer)
        with pytest.raises(ValueError, match=r"part 'visual.transformer' is wrapped by torch.comp"):
            Encoder(model, plain.tokenizer, name="x")


def test_other_things_than_models_are_refused_by_name():
    for model, kind in (
        (("model", "preprocess"), "builtins.tuple"),
        ("ViT-B-32", "builtins.str"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (torch.nn.DataParallel(torch.nn.Linear(2, 2)), "torch.nn.modules.linear.Linear"),
    ):
        with pytest.raises(TypeError, match=f"a model from open_clip.create_model, got {kind}; "):
            Encoder(model, open_clip.SimpleTokenizer(), name="x")


def test_models_at_hand_with_weights_that_are_not_finite(tiny_model):
    for name in ("logit_scale", "visual.conv1.weight"):
        model = tiny_model("clip")
        model.get_parameter(name).data.view(-1)[0] = torch.nan
        with pytest.raises(ValueError, match=f"values of '{name}' in 'x' are NaN or infinite"):
            Encoder(model, open_clip.SimpleTokenizer(), name="x")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_token_can_stand_in_a_removed_ones_place(make, kind):
    encoder = make(kind)
    side = encoder.text(CAPTION, stand_in=7)
    masks = torch.rand(5, side.n, generator=torch.Generator().manual_seed(0)) < 0.5
    ids = side.ids.repeat(5, 1)
    ids[:, side.span][~masks] = 7  # spelled out: every token plays by itself
    with torch.no_grad():
        expected = encoder.model.encode_text(ids, normalize=True)
    assert torch.allclose(side.embed(masks), expected, atol=1e-6)
    hidden = encoder.text(CAPTION)
    assert not torch.allclose(side.embed(masks), hidden.embed(masks), atol=1e-3)
    assert torch.allclose(side.embed(masks | True), hidden.embed(masks | True), atol=1e-5)
    assert side.info["stand_in"] == 7 and "stand_in" not in hidden.info


def test_tokens_that_cannot_stand_in_are_refused(make):
    encoder = make("clip")
    end = int(encoder.text(CAPTION).ids.max())
    with pytest.raises(ValueError, match="would read the meaning there"):
        encoder.text(CAPTION, stand_in=end)
    with pytest.raises(ValueError, match="is the id of a token, below"):
        encoder.text(CAPTION, stand_in=10**6)
    with pytest.raises(ValueError, match="stand_in must be a whole number"):
        encoder.text(CAPTION, stand_in="[MASK]")


def test_gelu_by_its_tanh_approximation(make):
    exact, approximate = make("clip"), make("clip", gelu="tanh")
    pixels = exact.image(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).pixels
    with torch.no_grad():
        one, two = (e.model.encode_image(pixels, normalize=True) for e in (exact, approximate))
        for module in exact.model.modules():
            if isinstance(module, torch.nn.GELU):
                module.approximate = "tanh"
        switched = exact.model.encode_image(pixels, normalize=True)
    assert torch.equal(two, switched) and not torch.equal(one, two)
    assert approximate.info["gelu"] == "tanh" and "gelu" not in exact.info
    for module in exact.model.modules():
        if hasattr(module, "gelu"):
            module.gelu = open_clip.transformer.QuickGELU()
    with pytest.raises(ValueError, match="another activation than GELU"):
        fixlip.Encoder(exact.model, exact.tokenizer, name="quick", gelu="tanh")
    with pytest.raises(ValueError, match='gelu must be None or "tanh"'):
        make("clip", gelu="erf")

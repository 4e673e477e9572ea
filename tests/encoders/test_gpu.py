"""Masked embeddings on a device are those of the CPU, in every precision."""

import numpy as np
import open_clip
import pytest
import torch
from devices import on_every_device

import fixlip
from fixlip.encoders import Encoder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # masks are few here
CAPTION = "a red star and a cross"
KINDS = ("clip", "siglip", "average-eos", "oblong-first", "custom-blocks")
ENDS_ONLY = ("siglip", "average-eos")  # tiny models whose captions need no start token


@pytest.fixture
def make(tiny_model, tokenizer_folder):
    """Wrap a tiny model in an encoder on a device."""

    def build(kind, device, dtype=torch.float32):
        tokenizer = "siglip2" if kind in ENDS_ONLY else "clip"
        read = open_clip.tokenizer.HFTokenizer(
            str(tokenizer_folder(tokenizer, 12)), context_length=12
        )
        return Encoder(tiny_model(kind), read, name=kind, device=device, dtype=dtype)

    return build


def embedded(encoder, image):
    """Both sides under the same random masks, and on which device they came."""
    found = []
    for side in (encoder.image(image), encoder.text(CAPTION)):
        masks = torch.rand(24, side.n, generator=torch.Generator().manual_seed(0)) < 0.5
        masks[0], masks[1] = False, True
        found.append(side.embed(masks))
    return found, {x.device.type for x in found}


# Of images, as distances between embeddings of length 1: convolutions in float32 may use TF32 on a
# GPU, which is torch's default and as coarse as float16.
PRECISIONS = [
    (torch.float64, 1e-9),
    (torch.float32, 0.03),
    (torch.float16, 0.05),
    (torch.bfloat16, 0.3),
]
EXACT = 5e-5  # of captions in every precision, and of images in float32 without TF32


@pytest.mark.parametrize("dtype,tolerance", PRECISIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@on_every_device
def test_masked_embeddings_are_those_of_the_cpu(make, noise, device, kind, dtype, tolerance):
    exact, _ = embedded(make(kind, "cpu", torch.float64), noise)
    found, where = embedded(make(kind, device, dtype), noise)
    assert where == {device}
    for x, y, most in zip(found, exact, (tolerance, min(tolerance, EXACT)), strict=True):
        assert x.dtype == torch.promote_types(dtype, torch.float32)
        assert (x.cpu() - y).norm(dim=1).max() < most
        assert torch.pdist(y).median() > 2 * most  # the masks matter more


@pytest.mark.parametrize("kind", KINDS)
@on_every_device
def test_in_float32_without_tf32_they_are_equal_to_four_digits(make, noise, device, kind):
    exact, _ = embedded(make(kind, "cpu", torch.float64), noise)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found, _ = embedded(make(kind, device), noise)
    for x, y in zip(found, exact, strict=True):
        assert (x.cpu() - y).norm(dim=1).max() < EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
@on_every_device
def test_an_explanation_has_the_same_bits_twice(make, noise, device, kind, dtype):
    encoder = make(kind, device, dtype)
    one, two = (
        fixlip.explain(encoder, noise, CAPTION, masks=(64, 16), seed=4, progress=False)
        for _ in range(2)
    )
    assert np.isfinite(one.e2).all() and np.abs(one.e2).max() > 0
    for x, y in ((one.e1, two.e1), (one.e2, two.e2), (one.deviations, two.deviations)):
        assert np.array_equal(x, y)


@on_every_device
def test_an_explanation_on_a_device_is_that_of_the_cpu(make, noise, device):
    options = {"masks": (64, 16), "seed": 4, "progress": False}
    exact, found = (
        fixlip.explain(make("clip", where, torch.float64), noise, CAPTION, **options)
        for where in ("cpu", device)
    )
    np.testing.assert_allclose(found.e2, exact.e2, rtol=0, atol=1e-7 * np.abs(exact.e2).max())


@on_every_device
def test_the_grand_coalition_is_the_models_own_score(make, noise, device):
    encoder = make("clip", device)
    sides = encoder.image(noise), encoder.text(CAPTION)
    whole = [side.embed(torch.ones(1, side.n, dtype=torch.bool)) for side in sides]
    score = encoder.logit_scale * float((whole[0] * whole[1]).sum()) + encoder.logit_bias
    assert score == pytest.approx(encoder.logit(noise, CAPTION), rel=1e-4)

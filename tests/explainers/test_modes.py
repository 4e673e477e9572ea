"""Methods that need derivatives, where torch keeps none: inference mode and checkpointing."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import fixlip
from fixlip.explainers import exclip, generic_attention, grad_eclip, icam, itsm

CAPTION = "a red star"


def picture() -> np.ndarray:
    """Colours at random."""
    return np.random.default_rng(0).integers(0, 256, size=(48, 48, 3), dtype=np.uint8)


def every_method(encoder: fixlip.Encoder, within=nullcontext) -> dict[str, np.ndarray]:
    """Terms of each method, computed within a context."""
    with within():
        image, text = encoder.image(picture()), encoder.text(CAPTION)
        found = {"itsm": fixlip.pair(itsm.factor(image), itsm.factor(text)).e2}
        for mode in ("forward", "reverse"):
            for method, options in ((exclip, {"steps": 3}), (icam, {})):
                factors = [method.factor(side, mode=mode, **options) for side in (image, text)]
                found[f"{method.__name__} {mode}"] = fixlip.pair(*factors).e2
        for method in (generic_attention, grad_eclip):
            found[method.__name__] = method.explain(image, text).e1
        found["fixlip"] = fixlip.explain(encoder, picture(), CAPTION, masks=64).e2
    return found


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """All methods give what they give elsewhere, which is not nothing."""
    for name, terms in expected.items():
        assert np.array_equal(found[name], terms) and terms.any(), name


@pytest.fixture(scope="module", params=["demo-clip", "demo-siglip"])
def name(request):
    """Of a model that pools by its class token, or by attention."""
    return request.param


@pytest.fixture(scope="module")
def expected(name):
    """What every method gives by default."""
    return every_method(fixlip.load(name, device="cpu"))


def test_methods_work_in_inference_mode(name, expected):
    encoder = fixlip.load(name, device="cpu")
    assert_same(every_method(encoder, torch.inference_mode), expected)


def test_models_loaded_in_inference_mode_have_derivatives(name, expected):
    with torch.inference_mode():
        encoder = fixlip.load(name, device="cpu")
        sides = encoder.image(picture()), encoder.text(CAPTION)
    assert_same(every_method(encoder), expected)
    factors = [icam.factor(side, mode="forward") for side in sides]  # sides made inside, used here
    assert np.array_equal(fixlip.pair(*factors).e2, expected["fixlip.explainers.icam forward"])


def test_models_at_hand_may_come_from_inference_mode_and_checkpoint_their_blocks(name, expected):
    loaded = fixlip.load(name, device="cpu")
    with torch.inference_mode():
        model = copy.deepcopy(loaded.model)
    model.set_grad_checkpointing(True)
    encoder = fixlip.Encoder(model, loaded.tokenizer, name=name)
    assert_same(every_method(encoder), expected)


def test_blocks_may_be_checkpointed_after_the_encoder_was_made(name, expected):
    """torch found other tensors when it ran the blocks a second time."""
    loaded = fixlip.load(name, device="cpu")
    encoder = fixlip.Encoder(copy.deepcopy(loaded.model), loaded.tokenizer, name=name)
    encoder.model.set_grad_checkpointing(True)
    image, text = encoder.image(picture()), encoder.text(CAPTION)
    for method in (grad_eclip, generic_attention):
        encoder.model.set_grad_checkpointing(True)
        assert np.array_equal(method.explain(image, text).e1, expected[method.__name__])
    encoder.model.set_grad_checkpointing(True)
    factors = [exclip.factor(side, mode="reverse", steps=3) for side in (image, text)]
    found = fixlip.pair(*factors).e2
    assert np.array_equal(found, expected["fixlip.explainers.exclip reverse"])


def test_sweeps_made_in_inference_mode_can_be_solved_outside():
    encoder = fixlip.load("demo-clip", device="cpu")
    with torch.inference_mode():
        sides = encoder.image(picture()), encoder.text(CAPTION)
        inside = [fixlip.sweep(side, masks=64, seed=seed) for seed, side in enumerate(sides)]
    outside = [fixlip.sweep(side, masks=64, seed=seed) for seed, side in enumerate(sides)]
    assert np.array_equal(fixlip.solve(*inside).e2, fixlip.solve(*outside).e2)

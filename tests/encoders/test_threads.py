"""Threads that share one encoder get what each would get alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import fixlip
from fixlip.encoders.hooks import hooks
from fixlip.explainers import exclip, generic_attention

CAPTIONS = ("a red star", "a blue heart left of a red arrow", "a green circle")
CAPTIONS += ("a red star above a blue circle",)


@pytest.fixture(scope="module", params=["demo-clip", "demo-siglip"])
def encoder(request):
    return fixlip.load(request.param, device="cpu")


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def task(encoder, seed):
    """A sweep of an image or of a caption, as the seed decides."""
    if seed % 2:
        side = encoder.text(CAPTIONS[seed % 4], players=("tokens", "words")[seed // 4 % 2])
    else:
        side = encoder.image(picture(seed), players=("patches", "2x2")[seed // 2 % 2])
    masks = int(np.random.default_rng(seed).integers(3, 40))
    return fixlip.sweep(side, masks=masks, seed=seed, batch_size=8, progress=False).embeddings


def test_sweeps_in_threads_are_the_serial_ones(encoder):
    serial = [task(encoder, seed) for seed in range(100)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: task(encoder, seed), range(100)))
    for one, other in zip(serial, found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_plain_pass_beside_a_sweep_is_not_masked(encoder):
    """Whoever uses the model without fixlip does not get masked passes either."""
    side = encoder.image(picture(0))
    alone = encoder.model.encode_image(side.pixels)
    with ThreadPoolExecutor(1) as pool:
        swept = pool.submit(lambda: fixlip.sweep(side, masks=300, batch_size=4, progress=False))
        while not swept.done():
            assert torch.equal(encoder.model.encode_image(side.pixels), alone)


def test_gradients_in_threads_are_the_serial_ones(encoder):
    def explain(k):
        sides = encoder.image(picture(k)), encoder.text(CAPTIONS[k % 4])
        if k % 2:
            return fixlip.pair(*(exclip.factor(side, steps=5) for side in sides)).cross
        return generic_attention.explain(*sides).e1

    serial = [explain(k) for k in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(serial, pool.map(explain, range(8)), strict=True):
            # other kernels may run beside forward mode: equal up to rounding
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(one).max())


def test_hooks_act_in_their_own_thread_and_go():
    layer, x = torch.nn.Identity(), torch.ones(2)
    with hooks() as add:
        add(layer.register_forward_hook, lambda module, args, output: output + 1)
        assert layer(x).tolist() == [2, 2]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(layer, x).result().tolist() == [1, 1]
    assert layer(x).tolist() == [1, 1] and not layer._forward_hooks

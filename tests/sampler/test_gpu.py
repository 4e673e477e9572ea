"""Sweeps on a device: embeddings stay there, batches fit its memory, a seed gives the same bits."""

import warnings

import torch
from devices import on_every_device
from toy_games import Smooth

import fixlip
from fixlip.budget.grow import grow


class OnDevice(Smooth):
    """A smooth side whose numbers lie on a device, in float32 as an encoder's."""

    def __init__(self, n, device, *, fits=256):
        super().__init__(n, width=16, seed=1)
        self.device, self.fits = device, fits
        self.inner, self.outer = self.inner.to(device).float(), self.outer.to(device).float()

    def embed(self, masks):
        if len(masks) > self.fits:  # far more memory than any device has: its own error
            torch.empty(2**50, dtype=torch.float32, device=self.device)
        return torch.tanh(masks.to(self.device).float() @ self.inner + 0.3) @ self.outer


@on_every_device
def test_embeddings_stay_on_the_device(device):
    side = OnDevice(12, device)
    swept = fixlip.sweep(side, masks=40, seed=3)
    larger = grow(swept, side, 90)
    for found in (swept, larger):
        assert found.embeddings.device.type == found.ends.device.type == device
        assert found.masks.device.type == found.weights.device.type == "cpu"
    exact = fixlip.sweep(OnDevice(12, "cpu"), masks=90, seed=3)
    assert torch.equal(larger.masks, exact.masks)
    torch.testing.assert_close(larger.embeddings.cpu(), exact.embeddings, rtol=0, atol=1e-5)


@on_every_device
def test_a_batch_beyond_the_devices_memory_is_halved_and_the_sweep_goes_on(device):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fixlip.sweep(OnDevice(12, device, fits=20), masks=100, batch_size=64)
    assert [str(w.message) for w in caught] == [
        "64 masks at once do not fit in memory: going on with 32",
        "32 masks at once do not fit in memory: going on with 16",
    ]
    exact = fixlip.sweep(OnDevice(12, device), masks=100, batch_size=16)
    assert torch.equal(found.embeddings, exact.embeddings)


@on_every_device
def test_a_seed_gives_the_same_bits(device):
    one, two = (fixlip.sweep(OnDevice(12, device), masks=300, seed=7) for _ in range(2))
    assert torch.equal(one.embeddings, two.embeddings) and torch.equal(one.masks, two.masks)
    other = fixlip.sweep(OnDevice(12, device), masks=300, seed=8)
    assert not torch.equal(one.masks, other.masks)

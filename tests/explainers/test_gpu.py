"""exCLIP's factors on a device are those of the CPU."""

import numpy as np
import open_clip
import pytest
import torch
from devices import on_every_device

from fixlip.encoders import Encoder
from fixlip.explainers import exclip

CAPTION = "a red star and a cross"


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
@on_every_device
def test_factors_on_a_device_are_those_of_the_cpu(
    tiny_model, tokenizer_folder, noise, device, kind, mode
):
    name = "siglip2" if kind == "siglip" else "clip"
    read = open_clip.tokenizer.HFTokenizer(str(tokenizer_folder(name, 12)), context_length=12)
    found = []
    for where, how in (("cpu", "auto"), (device, mode)):
        encoder = Encoder(tiny_model(kind), read, name=kind, device=where, dtype=torch.float64)
        sides = encoder.image(noise), encoder.text(CAPTION)
        found.append([exclip.factor(side, steps=3, mode=how) for side in sides])
    for exact, other in zip(*found, strict=True):
        numbers = [x.first.cpu().numpy() for x in (exact, other)]
        assert np.abs(numbers[0]).max() > 1e-3
        np.testing.assert_allclose(numbers[1], numbers[0], rtol=0, atol=1e-9)

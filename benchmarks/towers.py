"""What benchmarks of towers share: random encoders, and the arithmetic of a masked input."""

import torch
from torch.utils.flop_counter import FlopCounterMode

import fixlip
from fixlip.encoders import Encoder
from fixlip.sampler import Side, bernoulli


def stub_tokenizer(length: int, vocabulary: int):
    """Stand in for a tokenizer that lies on a hub: one id per word, end 1, padding 0, as Gemma."""

    def tokenize(texts, context_length=length):
        rows = []
        for text in texts:
            ids = [2 + sum(map(ord, word)) % (vocabulary - 2) for word in text.split()]
            rows.append([*ids[: context_length - 1], 1] + [0] * (context_length - 1 - len(ids)))
        return torch.tensor(rows, device="cpu")

    return tokenize


def load(name: str, device: str | None, dtype: str) -> Encoder:
    """The architecture at random initialisation, which takes as long as a trained one.

    A GPU that is named also draws the weights: for a billion of them a CPU takes half a minute.
    Names of demo models load their trained weights.
    """
    options = {"device": device, "dtype": dtype}
    if not name.startswith("demo-"):
        options["pretrained"] = "random"
    if name.startswith("ViT-") and "SigLIP" in name:
        options["tokenizer"] = stub_tokenizer(64, 32000)
    with torch.device(device or "cpu"):
        return fixlip.load(name, **options)


def operations(side: Side, batch: int) -> float:
    """Arithmetic operations per masked input, counted in one batch."""
    masks = bernoulli(side.n, batch).masks
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch does not count inside it
    with FlopCounterMode(display=False) as counter:
        side.embed(masks)
    torch.backends.mha.set_fastpath_enabled(fast)
    side.embed(masks)  # warms up
    return counter.get_total_flops() / batch

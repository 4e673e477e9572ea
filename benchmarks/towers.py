"""What benchmarks of towers share: random encoders, and their arithmetic beside the machine's."""

import time

import numpy as np
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
        return torch.tensor(rows)

    return tokenize


def load(name: str, device: str | None, dtype: str) -> Encoder:
    """The architecture at random initialisation, which takes as long as a trained one."""
    options = {"pretrained": "random", "device": device, "dtype": dtype}
    if "SigLIP" in name:
        options["tokenizer"] = stub_tokenizer(64, 32000)
    return fixlip.load(name, **options)


def wait(device: torch.device) -> None:
    """Let a GPU finish what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Arithmetic operations per second of a large matrix product, the best of five."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = np.inf
    for _ in range(6):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


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

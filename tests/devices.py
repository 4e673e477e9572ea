"""The devices that tests of tensors run on: the CPU, and under the mark `gpu` a CUDA GPU."""

import pytest
import torch

NO_GPU = "no CUDA GPU that torch can use"
CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)],
)
on_every_device = pytest.mark.parametrize("device", ["cpu", CUDA])

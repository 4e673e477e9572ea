"""Solving on a device gives what solving on the CPU gives, and what the dense fit gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from devices import on_every_device
from pretend import DEVICE, Apple, Pretended, pretending
from toy_games import Smooth

import fixlip
from fixlip.budget.variance import VarianceComponents
from fixlip.metrics.comparison import unit_scale
from fixlip.solver import solve_dense

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # masks are few here


def two_sweeps(sampling="antithetic", dtype=torch.float64, masks=(300, 100)):
    """An image of 13 players and a caption of 7, embedded on the CPU."""
    sides = Smooth(13, seed=0), Smooth(7, seed=1)
    swept = [
        fixlip.sweep(side, masks=m, seed=5 + k, sampling=sampling)
        for k, (side, m) in enumerate(zip(sides, masks, strict=True))
    ]
    return [to(s, "cpu", dtype) for s in swept]


def to(swept, device, dtype=None):
    """The same sweep with its embeddings on a device, as an encoder there gives them."""
    return replace(
        swept, embeddings=swept.embeddings.to(device, dtype), ends=swept.ends.to(device, dtype)
    )


def assert_equal_terms(found, exact, tolerance):
    """Equal up to a tolerance, relative to the largest number of the kind."""
    pairs = [(found.e1, exact.e1), (found.e2, exact.e2), (found.e0, exact.e0)]
    if exact.stderr is not None:
        pairs += [(found.stderr.e1, exact.stderr.e1), (found.stderr.e2, exact.stderr.e2)]
    for x, y in pairs:
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ridge": 0},
        {"order": 1},
        {"basis": "cross"},
        {"basis": "top", "k": 12},
        {"order": "product"},
    ],
    ids=str,
)
@pytest.mark.parametrize("sampling", ["antithetic", "distinct"])
@on_every_device
def test_solving_on_a_device_equals_the_cpu(device, sampling, options, dtype):
    swept = two_sweeps(sampling, dtype)
    exact = fixlip.solve(*swept, **options)
    found = fixlip.solve(*(to(s, device) for s in swept), **options)
    assert_equal_terms(replace(found, deviations=None), replace(exact, deviations=None), 1e-9)
    assert_equal_terms(found, exact, 1e-6)  # deviations are kept in float32
    # negative control: other masks of the same game are seen
    other = fixlip.solve(*two_sweeps(sampling, dtype, masks=(290, 100)), **options)
    with pytest.raises(AssertionError):
        assert_equal_terms(other, exact, 1e-3)


@on_every_device
def test_the_split_fit_on_a_device_is_the_dense_joint_fit(device):
    swept = two_sweeps("independent")
    found = fixlip.solve(*(to(s, device) for s in swept), ridge=0, errors=False)
    assert_equal_terms(found, solve_dense(*swept), 1e-9)


@on_every_device
def test_few_masks_of_an_enumerated_caption(device):
    """The dual system of the image, first-order terms that are shrunk, and no sampling error."""
    swept = two_sweeps(masks=(40, 128))
    assert swept[1].sample.sampling == "enumerated"
    exact = fixlip.solve(*swept)
    found = fixlip.solve(*(to(s, device) for s in swept))
    assert_equal_terms(found, exact, 1e-6)  # few masks, and so a worse condition


@on_every_device
def test_the_same_sweeps_give_the_same_bits(device):
    swept = [to(s, device) for s in two_sweeps(dtype=torch.float32)]
    one, two = fixlip.solve(*swept), fixlip.solve(*swept)
    assert np.array_equal(one.e1, two.e1) and np.array_equal(one.e2, two.e2)
    assert np.array_equal(one.deviations, two.deviations)


@on_every_device
def test_factors_stay_on_the_device(device):
    swept = [to(s, device) for s in two_sweeps(dtype=torch.float32)]
    factors = [fixlip.fit(s) for s in swept]
    for factor in factors:
        assert factor.first.device.type == device and factor.first.dtype == torch.float64
    assert_equal_terms(fixlip.pair(*factors), fixlip.solve(*swept), 1e-9)


@pytest.mark.parametrize(
    "sampling,masks,options",
    [
        ("antithetic", (80, 20), {}),
        ("distinct", (120, 30), {"basis": "top", "k": 12, "ridge": 0}),
        ("distinct", (80, 128), {"order": "product"}),
    ],
)
def test_no_tensor_is_made_on_the_cpu_by_mistake(sampling, masks, options):
    swept = two_sweeps(sampling, torch.float32, masks)
    exact = fixlip.solve(*swept, **options)
    with pretending():
        found = fixlip.solve(*(to(s, DEVICE) for s in swept), **options)
        factor = fixlip.fit(to(swept[0], DEVICE))
    assert_equal_terms(found, exact, 1e-6)
    assert isinstance(factor.first, Pretended) and factor.first.dtype == torch.float64


def test_the_pretended_device_finds_tensors_on_the_cpu():
    """Negative control of the tests above."""
    here, there = torch.ones(3), Pretended(torch.ones(3))
    with pretending():
        assert torch.ones(3, device=DEVICE).device.type == here.to(DEVICE).device.type == DEVICE
        assert (there @ here.to(DEVICE)).item() == 3 and there.cpu().device.type == "cpu"
        assert there[torch.tensor([0, 2])].device.type == DEVICE  # as torch allows it
        mixed = (lambda: here + there, lambda: torch.outer(there, here), lambda: here[there.long()])
        for mix in mixed:
            with pytest.raises(RuntimeError, match="two devices: meta and cpu"):
                mix()


@pytest.mark.parametrize(
    "ask",
    [
        fixlip.solve,
        lambda a, b: fixlip.solve(a, b, order="product", basis="top", k=12),
        lambda a, b: solve_dense(a, b, order=1),
        unit_scale,
        lambda a, b: VarianceComponents.of(a, b).s2,
    ],
)
def test_nothing_asks_an_apple_gpu_for_float64(ask):
    swept = two_sweeps(dtype=torch.float32)
    there = [
        replace(s, embeddings=s.embeddings.as_subclass(Apple), ends=s.ends.as_subclass(Apple))
        for s in swept
    ]
    found, exact = ask(*there), ask(*swept)
    if isinstance(found, float):
        assert found == pytest.approx(exact, rel=1e-9)
    else:
        assert_equal_terms(found, exact, 1e-9)


def test_the_pretended_apple_gpu_has_no_float64():
    """Negative control of the test above."""
    x = torch.ones(3).as_subclass(Apple)
    assert (x + x).device.type == "mps" and type(x.to("cpu", torch.float64)) is torch.Tensor
    for ask in (x.double, lambda: x.to(torch.float64), lambda: x.mul(torch.ones(3).double())):
        with pytest.raises(TypeError, match="float64"):
            ask()

"""A pretended device, for machines without a GPU: what mixes its tensors with the CPU's fails.

Tensors of it report the device "meta", which no other code uses, and hold their numbers on the CPU.
An operation on one of them and on a tensor of the CPU raises RuntimeError, as it does with a GPU;
torch allows it for numbers without dimensions, copies, and indices on the CPU. Another pretended
device is the GPU of Apple's computers, which has no float64.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
MIXED = ("aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_", "aten::_index_put_")


class Pretended(torch.Tensor):
    """A tensor of the pretended device; ``inner`` is the one that holds the numbers."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        found = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE
        )
        found.inner = inner
        return found

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """Products with vectors as products of matrices: torch would reshape results in place."""
        if function in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):
            row, column = args[0].ndim == 1, args[1].ndim == 1
            a, b = args[0][None] if row else args[0], args[1][:, None] if column else args[1]
            args = (a, b)
            found = torch._C._disabled_torch_function_impl(function, types, args, kwargs or {})
            found = found[..., 0] if column else found
            return found[0] if row else found
        if function is torch.Tensor.tolist:
            return args[0].inner.tolist()
        return torch._C._disabled_torch_function_impl(function, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class pretending(TorchDispatchMode):  # noqa: N801
    """Inside, ``device="meta"`` is the pretended device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    name = function._schema.name
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    here = [x for x in tensors if isinstance(x, Pretended)]
    there = [x for x in tensors if not isinstance(x, Pretended) and x.ndim]
    mixed = name in MIXED and (isinstance(args[0], Pretended) or "index" not in name)
    if here and there and not mixed:
        raise RuntimeError(f"{name} of tensors on two devices: {DEVICE} and cpu")
    pretend = bool(here)
    if kwargs.get("device") is not None:
        pretend = torch.device(kwargs["device"]).type == DEVICE
        kwargs = {**kwargs, "device": "cpu"}
    args, kwargs = tree_map(_inner, (args, kwargs))
    given, found = tensors[0] if tensors else None, function(*args, **kwargs)
    if isinstance(found, torch.Tensor) and isinstance(given, Pretended) and found is given.inner:
        return given  # an operation in place
    return tree_map(lambda x: _wrapped(x) if pretend else x, found)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, Pretended) else x


def _wrapped(x: Any) -> Any:
    return Pretended(x) if isinstance(x, torch.Tensor) else x


class Apple(torch.Tensor):
    """A tensor that says it is on "mps", and refuses float64 until it is brought to the CPU."""

    device = property(lambda self: torch.device("mps"))

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.cpu or (function is torch.Tensor.to and args[1] == "cpu"):
            args = args[0].as_subclass(torch.Tensor), *args[1:]
            return function(*args, **(kwargs or {}))
        found = super().__torch_function__(function, types, args, kwargs)
        if any(isinstance(x, cls) and x.dtype == torch.float64 for x in tree_leaves(found)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found

"""The device and the type that a model computes in: chosen, or refused in one line."""

from __future__ import annotations

import re

import torch

from fixlip.checks import one_of, warn


def choose_device(device: torch.device | str | None) -> torch.device:
    """Return a device that can be used: the given one, or the best that there is.

    Raises ValueError for a device that is not there, or that torch has no code for.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda" if _supported() else "cpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.ones(1, device=device).item()  # runs a kernel, for which a GPU may be too new or old
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the device {str(device)!r} cannot be used here: {reason}; leave device out to use "
            "the best there is"
        ) from None
    return torch.device(device)


def _supported() -> bool:
    """Whether the installed torch has code for the GPU; if not, warn."""
    device, built = torch.cuda.get_device_capability(), torch.cuda.get_arch_list()
    if torch.version.cuda is None or not built:  # AMD's are not numbered
        return True
    for kind, major, minor, only in re.findall(r"(sm|compute)_(\d+)(\d)([a-z]?)", " ".join(built)):
        code = int(major), int(minor)
        # machine code runs on later devices of its generation, PTX on all later ones
        later = device >= code and (kind == "compute" or device[0] == code[0])
        if device == code or (later and not only):
            return True
    warn(
        f"the CPU is used: this GPU, {torch.cuda.get_device_name()}, has compute capability "
        f"{device[0]}.{device[1]}, and the installed torch {torch.__version__} is built for "
        f"{', '.join(built)}; install a torch that is built for it"
    )
    return False


def choose_type(dtype: torch.dtype | str | None) -> torch.dtype:
    """Return a type that the towers can compute in, by default float32; else raise ValueError."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    known["float64"] = torch.float64
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    return known[one_of("dtype", name, known)]

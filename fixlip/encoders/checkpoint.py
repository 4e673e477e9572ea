"""The tensors in a checkpoint file of any common kind, read without running code in it."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from fixlip.checks import out_of_memory

TYPES = {  # of torch's storages, as pickles name them
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
PART = re.compile(r"^[^/\\]+-\d{5}-of-\d{5}\.[a-z]+$")  # one file of a checkpoint in several
OTHERS = (  # what files called .pt often are instead, by their first bytes
    (b"version https://git-lfs", "it is a pointer of Git LFS; fetch the file with 'git lfs pull'"),
    (b"<", "it is a web page; download the file itself, not the page that shows it"),
    (b"\x1f\x8b", "it is packed with gzip; unpack it first"),
)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return every tensor in a file, by name.

    Reads safetensors, and what `torch.save` and `torch.jit.save` write, whatever the file is
    called; and a checkpoint in several files by its index, such as "model.safetensors.index.json",
    in whose folder they are. In a name, "/" stands between a dictionary and what it holds, as in
    "state_dict/visual.proj".

    Raises ValueError for a file that is cut off, holds no tensors, or is something else.
    """
    try:
        if PART.search(path.name):
            raise ValueError("it is one part of several; give the file that ends in .index.json")
        content = _read(path)
    except Exception as error:
        if out_of_memory(error) or isinstance(error, OSError):
            raise
        reason = first_line(error)
        if type(error) is not ValueError:  # ours say what the file is
            reason = f"it is cut off or changed ({reason}); download or copy it again"
        raise ValueError(f"the checkpoint {str(path)!r} cannot be read: {reason}") from None
    tensors = dict(_tensors(content))
    if not tensors:
        raise ValueError(f"the checkpoint {str(path)!r} holds no tensors; give a file of weights")
    return tensors


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, not too long."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _read(path: Path) -> Any:
    """Return what a file holds, told by its first bytes; objects of unknown classes are inert."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError("it is empty; download or copy it again")
    if head.lstrip().startswith(b"{"):
        return _read_parts(path)
    if head[8:9] == b"{":  # after the length of the header
        return safetensors.torch.load_file(path)
    if head.startswith(b"PK"):
        return _read_zip(path)
    for start, reason in OTHERS:
        if head.lstrip().lower().startswith(start):
            raise ValueError(reason)
    if not head.startswith(b"\x80"):  # as pickles, which torch wrote before zip archives
        raise ValueError("it is neither of safetensors nor of torch; give a file of weights")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error):  # what torch says is no help then
            raise ValueError("it is cut off or changed; download or copy it again") from None
        raise ValueError(
            "it holds Python objects beside the weights, whose code is not run; where you trust "
            "the file, read it with torch.load(..., weights_only=False) and save its state_dict()"
        ) from None


def _read_parts(path: Path) -> dict[str, Any]:
    """Read the files that an index names: {"weight_map": {tensor: file}}."""
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        names = set()
    if not names or not all(isinstance(name, str) and PART.search(name) for name in names):
        raise ValueError("it is JSON, and no index of a checkpoint in several files")
    missing = sorted(name for name in names if not path.with_name(name).is_file())
    if missing:
        raise ValueError(
            f"{len(missing)} of its {len(names)} parts are not in the same folder, such as "
            f"{missing[0]!r}; put them there"
        )
    parts = [dict(_tensors(_read(path.with_name(name)))) for name in sorted(names)]
    return {name: tensor for part in parts for name, tensor in part.items()}


def _read_zip(path: Path) -> Any:
    """Read what torch writes today: tensors in a zip archive, and a pickle that refers to them."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        inside = [name for name in names if name.endswith("/data.pkl") or name == "data.pkl"]
        if not inside:
            listed = ", ".join(map(repr, names[:3]))
            raise ValueError(
                f"it is a zip archive of something else ({listed} ...); unpack it if the weights "
                "are in it"
            )
        folder = inside[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" not in names:  # as TorchScript has
            with contextlib.suppress(pickle.UnpicklingError):  # objects of unknown classes
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with archive.open(inside[0]) as file:
            return _Reader(file, archive, folder).load()


class _Inert(dict):
    """Stands for any class or function that a pickle names: holds what it is given, does nothing.

    A module's parts and tensors are in its state, in a whole pickled model and in TorchScript.
    """

    __hash__ = object.__hash__

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.update(state)

    def append(self, _: Any) -> None:
        """For pickled kinds of list."""

    def add(self, _: Any) -> None:
        """For pickled kinds of set."""

    def extend(self, _: Any) -> None:
        """For pickled kinds of list."""


class _Reader(pickle.Unpickler):
    """Reads tensors, dictionaries, lists and numbers of a pickle, and anything else as inert."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
        }
        if module == "torch" and name.removesuffix("Storage") in TYPES:
            return TYPES[name.removesuffix("Storage")]
        return known.get((module, name), _Inert)

    def persistent_load(self, identity: Any) -> torch.Tensor | None:
        _, dtype, key, _, size = identity
        if not isinstance(dtype, torch.dtype):
            return None
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if size else empty
        return self._storages[key]


def _tensor(
    storage: torch.Tensor | None, offset: int, size: tuple, stride: tuple, *_: Any
) -> torch.Tensor | None:
    return None if storage is None else torch.as_strided(storage, size, stride, offset)


def _parameter(data: torch.Tensor | None, *_: Any) -> torch.Tensor | None:
    return data


def _tensors(
    part: Any, name: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor below a part of a file, with its name; ``above`` are the parts that it is in."""
    if isinstance(part, torch.Tensor):
        yield name, part
    elif isinstance(part, Mapping | list | tuple) and id(part) not in above:
        between = ("." if isinstance(part, _Inert) else "/") if name else ""
        for key, inner in part.items() if isinstance(part, Mapping) else enumerate(part):
            yield from _tensors(inner, f"{name}{between}{key}", (*above, id(part)))

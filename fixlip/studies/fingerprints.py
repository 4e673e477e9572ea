"""What determines a result, as one hash: data by content, encoders by weights, code by source.

A function counts by its own source, the values of the globals, closures and defaults that it
reads, and, in turn, the functions and classes among them. Comments, docstrings and layout do not
count. Modules of fixlip count by their source and that of the modules they import, so that a
change of the solver changes the hash of a study that solves, and a change of the plots does not.
Installed packages count by their version. What has no fingerprint is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fixlip.studies import sources

WRITTEN = (complex, range, slice, date, time, timedelta, Decimal, Fraction, np.dtype)
CODE = (FunctionType, BuiltinFunctionType, MethodType, type, np.ufunc)


def fingerprint(value: object, what: str = "the value") -> str:
    """Hash of everything that a value consists of: 64 hexadecimal digits of a SHA-256.

    Parameters
    ----------
    value : object
        Numbers, strings, containers, arrays, tensors and tables count by their content; a Path by
        its file's name and content; a PIL image by its pixels; a dataclass by its fields; a
        function, class or module by its code; any other object by its attribute ``info``, a dict
        of everything that determines it, such as that of an Encoder.
    what : str
        What to call it in an error.

    Raises
    ------
    TypeError
        For something that none of these describes.
    ValueError
        For a folder, for code whose source cannot be found, and for a module whose file was
        changed after Python had loaded it.

    Examples
    --------
    >>> fingerprint([1, 2.0]) == fingerprint([1, 2.0]), fingerprint([1, 2]) == fingerprint([1, 2.0])
    (True, False)
    """
    reader = _Reader()
    parts = [reader.value(value, what), sources.used(reader.modules)]
    return _sha(json.dumps(parts).encode())


class _Reader:
    """Describes values by strings, numbers and lists; every function and class once."""

    def __init__(self) -> None:
        self.modules: set[str] = set()  # those of fixlip that are used
        self.met: dict[int, tuple[int, object]] = {}  # id -> number; holds the object alive

    def value(self, value: Any, what: str) -> Any:
        """Describe a value so that different values have different descriptions."""
        if isinstance(value, Enum):
            return ["enum", self.value(type(value), what), value.name]
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return ["float", repr(float(value))]
        if isinstance(value, bytes | bytearray):
            return ["bytes", _sha(value)]
        if isinstance(value, WRITTEN):
            return [type(value).__name__, repr(value)]
        if isinstance(value, PurePath):
            return ["file", value.name, _file(Path(value), what)]
        if isinstance(value, list | tuple):
            name = "list" if isinstance(value, list) else "tuple"
            return [name, *(self.value(v, f"{what}[{i}]") for i, v in enumerate(value))]
        if isinstance(value, set | frozenset):
            return ["set", *sorted(json.dumps(self.value(v, what)) for v in value)]
        if isinstance(value, Mapping):
            pairs = [[k, v] for k, v in value.items()]  # in order: players may be a mapping
            return [
                "map",
                *([self.value(k, what), self.value(v, f"{what}[{k!r}]")] for k, v in pairs),
            ]
        if hasattr(value, "__wrapped__") and sources.is_wrapper(value):
            return ["wrapped", self.value(value.__wrapped__, what)]
        if isinstance(value, CODE) or (hasattr(value, "__qualname__") and callable(value)):
            return self.code(value, what)
        if isinstance(value, ModuleType):
            return self.module(value, what)
        if isinstance(value, functools.partial):
            parts = value.func, value.args, value.keywords
            return ["partial", *(self.value(part, what) for part in parts)]
        return self.content(value, what)

    def content(self, value: Any, what: str) -> Any:
        """Describe arrays, tensors, tables, images, dataclasses and objects with `info`."""
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.hasobject:
                return ["objects", list(value.shape), self.value(value.ravel().tolist(), what)]
            shape = list(value.shape)
            return ["array", str(value.dtype), shape, _sha(np.ascontiguousarray(value).tobytes())]
        torch = sys.modules.get("torch")
        if torch and isinstance(value, torch.dtype | torch.device):
            return ["torch", str(value)]
        if torch and isinstance(value, torch.Tensor):  # as bytes, because numpy has no bfloat16
            flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            return ["tensor", str(value.dtype), list(value.shape), _sha(flat.numpy().tobytes())]
        if isinstance(value, pd.DataFrame):
            table = [value.index.tolist(), *([k, c.tolist()] for k, c in value.items())]
            return ["table", self.value(table, what)]
        if isinstance(value, pd.Series | pd.Index):
            return ["column", self.value([*getattr(value, "index", []), value.tolist()], what)]
        if isinstance(value, Image.Image):
            looks = value.getpalette(), value.info.get("transparency"), value.getexif().get(0x0112)
            pixels = [value.mode, list(value.size), _sha(value.tobytes())]
            return ["picture", *pixels, self.value(looks, what)]
        kind = self.value(type(value), what)
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return ["fields", kind, *([k, self.value(v, f"{what}.{k}")] for k, v in fields.items())]
        if isinstance(getattr(value, "info", None), Mapping):
            # an image side's `info` names its file, which pixels in memory do not have
            seen = getattr(value, "pixels", None)
            return ["info", kind, self.value(value.info, what), self.value(seen, what)]
        raise TypeError(
            f"{what} is a {type(value).__name__}, which has no fingerprint: nobody could tell "
            "later whether it was the same. Use numbers, strings, arrays, a Path or a dataclass "
            "instead, or give it an attribute `info`, a dict of everything that determines it"
        )

    # --- code ------------------------------------------------------------------------------

    def code(self, value: Any, what: str) -> Any:
        """Describe a function or a class."""
        bound = getattr(value, "__self__", None)
        if isinstance(value, MethodType):
            return ["method", self.value(value.__func__, what), self.value(bound, what)]
        if bound is not None and not isinstance(bound, ModuleType | type):  # of built-in types
            return ["method", value.__qualname__, self.value(bound, what)]
        name = getattr(value, "__module__", None) or type(value).__module__
        if sources.is_ours(name):
            self.modules.add(name)
            return ["fixlip", name, value.__qualname__]
        if sources.is_installed(name, value):
            qualname = getattr(value, "__qualname__", repr(value))
            return ["installed", *sources.version(name), qualname]
        if id(value) in self.met:
            return ["again", self.met[id(value)][0]]
        self.met[id(value)] = (len(self.met), value)
        return self.own_class(value) if isinstance(value, type) else self.own(value, what)

    def own(self, function: FunctionType, what: str) -> Any:
        """Describe a function of the user: its source and the values that it reads."""
        sources.check_loaded(function)
        source, name = sources.source_of(function, what), function.__qualname__
        defaults = [function.__defaults__, function.__kwdefaults__]
        read = sources.globals_read(function) | sources.closure(function)
        return [
            "function",
            source,
            self.value(defaults, f"the defaults of {name}"),
            [[k, self.value(v, f"{k!r}, which {name} reads,")] for k, v in read.items()],
        ]

    def own_class(self, cls: type) -> Any:
        """Describe a class of the user by its bases, its methods and its other members."""
        types = {k: str(v) for k, v in getattr(cls, "__annotations__", {}).items()}
        members = [("bases", cls.__bases__), ("types", types)]
        if dataclasses.is_dataclass(cls):
            defaults = [d for f in dataclasses.fields(cls) for d in (f.default, f.default_factory)]
            members.append(("defaults", [d for d in defaults if d is not dataclasses.MISSING]))
        if issubclass(cls, Enum):
            members.append(("values", {k: v.value for k, v in cls.__members__.items()}))
        for name, member in vars(cls).items():
            member = getattr(member, "fget", getattr(member, "func", member))  # properties
            member = getattr(member, "__func__", member)  # class and static methods
            if isinstance(member, FunctionType):
                file = inspect.unwrap(member).__code__.co_filename
                told = file != "<string>" and not sources.is_library(file)  # else generated
            else:
                inner = name.startswith(("__", "_abc_")) or hasattr(type(member), "__get__")
                told = not (inner or issubclass(cls, Enum))
            members += [(name, member)] if told else []
        name = cls.__qualname__
        return ["class", name, *([k, self.value(v, f"{name}.{k}")] for k, v in members)]

    def module(self, module: ModuleType, what: str) -> Any:
        """Describe a module as a whole: of a user's own, its source and what it imports."""
        name = module.__name__
        if sources.is_ours(name):
            self.modules.update(sources.all_modules() if name == "fixlip" else [name])
            return ["fixlip", name]
        if sources.is_installed(name):
            return ["installed", *sources.version(name)]
        if id(module) in self.met:
            return ["again", self.met[id(module)][0]]
        self.met[id(module)] = (len(self.met), module)
        if not getattr(module, "__file__", None):
            raise ValueError(f"{what} is the module {name}, whose source cannot be found")
        text, _ = sources.module_file(name, Path(module.__file__))
        inside = [
            self.value(v, f"{what} {k}")
            for k, v in vars(module).items()
            if isinstance(v, (*CODE, ModuleType)) and getattr(v, "__module__", "") != name
        ]
        return ["module", text, inside]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file(path: Path, what: str) -> str:
    """Hash of a file's content; "missing" where there is no file, so that its coming counts."""
    if path.is_dir():
        raise ValueError(
            f"{what} is the folder {path.name!r}, whose whole content would count: give the files "
            "that matter as Paths, or the folder as a string if its content never changes"
        )
    try:
        about = path.stat()
    except OSError:
        return "missing"
    return _file_digest(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=2**17)
def _file_digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

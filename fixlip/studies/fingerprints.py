"""What determines a result, as one hash: data by content, encoders by weights, code by what runs.

A function counts by its instructions, its constants and the values of the globals, closures and
defaults that it reads, and so, in turn, do the functions and classes among them. Comments,
docstrings, layout and the names of files and functions do not count, so that a notebook resumes its
study in another kernel. Installed packages count by name and version; fixlip as a whole, as its
files were when `fixlip.studies` was imported, but for the folders that give no numbers.

The price: any numeric change of fixlip computes a study again, whether the study uses the changed
part or not, and so does another minor version of Python, which has other instructions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import functools
import hashlib
import importlib.metadata
import inspect
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fixlip.files import user_path

WRITTEN = (complex, range, slice, date, time, timedelta, Decimal, Fraction, np.dtype, EllipsisType)
CALLABLE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type, np.ufunc)
PARTS = ("fget", "fset", "fdel", "__func__", "func", "args", "keywords", "__wrapped__")
ABOUT = ("__doc__", "__firstlineno__", "__static_attributes__")  # what a class says of its source
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
VIEWS = ("extras", "pages", "plots", "progress", "studies")  # rooms of fixlip that give no numbers
BUILT_ON = ("numpy", "open_clip_torch", "pillow", "scipy", "timm", "torch", "torchvision")
BUILT_ON += ("transformers",)
BUILT_IN, STANDARD = sys.stdlib_module_names, Path(sysconfig.get_path("stdlib"))


def fingerprint(value: object, what: str = "the value") -> str:
    """Hash of everything that a value consists of: 64 hexadecimal digits of a SHA-256.

    Raises TypeError for something that none of these describes; ValueError for a folder.

    Parameters
    ----------
    value, what : object, str
        Numbers, strings, containers, arrays, tensors and tables count by their content; a Path by
        its file's name and content; a PIL image by its pixels; a dataclass by its fields; a
        function, class or module by what it runs; any other object by its attribute ``info``, a
        dict of everything that determines it, such as that of an Encoder. ``what`` names it in an
        error.

    Examples
    --------
    >>> fingerprint([1, 2.0]) == fingerprint([1, 2.0]), fingerprint([1, 2]) == fingerprint([1, 2.0])
    (True, False)
    """
    return _sha(json.dumps([*sys.version_info[:2], _Reader().value(value, what)]).encode())


class _Reader:
    """Describes values by strings, numbers and lists; every function, class and module once."""

    def __init__(self, met: Mapping[int, tuple[int, object]] | None = None) -> None:
        self.met = dict(met or {})  # id -> number, and the object, so that no other gets its id

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
            return ["file", value.name, _file(user_path(value), what)]
        if isinstance(value, list | tuple):
            name = "list" if isinstance(value, list) else "tuple"
            return [name, *(self.value(v, f"{what}[{i}]") for i, v in enumerate(value))]
        if isinstance(value, set | frozenset):  # each by itself: their order is not the same twice
            return ["set", *sorted(json.dumps(_Reader(self.met).value(v, what)) for v in value)]
        if isinstance(value, Mapping):  # in order: players may be a mapping
            keys = [(self.value(k, what), v, f"{what}[{k!r}]") for k, v in value.items()]
            return ["map", *((k, self.value(v, where)) for k, v, where in keys)]
        if isinstance(value, CodeType):
            return self.code(value)
        if isinstance(value, CALLABLE) or (hasattr(value, "__qualname__") and callable(value)):
            return self.callable(value, what)
        if isinstance(value, functools.partial):
            return ["partial", self.value((value.func, value.args, value.keywords), what)]
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
        raise TypeError(_refusal(value, what))

    # --- code ------------------------------------------------------------------------------

    def callable(self, value: Any, what: str) -> Any:
        """Describe a function, a method or a class, or a module as a whole."""
        bound = getattr(value, "__self__", None)
        if isinstance(value, MethodType):
            return ["method", self.value(value.__func__, what), self.value(bound, what)]
        if bound is not None and not isinstance(bound, ModuleType | type):  # of built-in types
            return ["method", value.__qualname__, self.value(bound, what)]
        (author, home), (author_inside, _) = _origin(value), _origin(inspect.unwrap(value))
        name = getattr(value, "__qualname__", getattr(value, "__name__", repr(value)))
        if author == "fixlip":
            return ["fixlip", _fixlip(), home, name]
        if author == "user" and not isinstance(value, FunctionType | type | ModuleType):
            author, home = _origin(type(value))  # functools lends its objects the user's names
        if author == author_inside == "installed":
            return ["installed", *version(home), name]
        if id(value) in self.met:
            return ["again", self.met[id(value)][0]]
        self.met[id(value)] = (len(self.met), value)
        if author == "installed":
            return ["wrapped", *version(home), self.wrapper(value, what)]
        describe = self.own_class if isinstance(value, type) else self.function
        return (self.own_module if isinstance(value, ModuleType) else describe)(value, what)

    def function(self, function: FunctionType, what: str) -> Any:
        """Describe a function of the user: what it runs, and the values that it reads."""
        name, read = function.__qualname__, _globals(function) | _closure(function)
        defaults = [function.__defaults__, function.__kwdefaults__]
        return [
            "function",
            self.code(function.__code__),
            self.value(defaults, f"the defaults of {name}"),
            [[k, self.value(v, f"{k!r}, which {name} reads,")] for k, v in read.items()],
        ]

    def code(self, code: CodeType) -> Any:
        """Describe what a code object runs: its arguments, its instructions and their constants."""
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
        flags = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
        steps = [(step.opname, self.value(_operand(step, code), "")) for step in _steps(code)]
        return ["code", counts, flags, code.co_varnames, steps, _sha(code.co_exceptiontable)]

    def wrapper(self, value: Any, what: str) -> Any:
        """Describe what a library, such as functools or torch, made of a function of the user."""
        inside = getattr(value, "__wrapped__", None)
        if inside is None:  # made by an extension in C
            raise TypeError(_refusal(value, what))
        held = [_settings(v) for v in _closure(value).values() if v is not inside]
        name = getattr(value, "__code__", type(value))
        return [getattr(name, "co_qualname", repr(name)), self.value(inside, what), held]

    def own_class(self, cls: type, what: str) -> Any:
        """Describe a class of the user by its bases, its methods and its other members."""
        types = {k: str(v) for k, v in vars(cls).get("__annotations__", {}).items()}
        members = [("bases", cls.__bases__), ("types", types)]
        if dataclasses.is_dataclass(cls):
            defaults = [d for f in dataclasses.fields(cls) for d in (f.default, f.default_factory)]
            members.append(("defaults", [d for d in defaults if d is not dataclasses.MISSING]))
        if issubclass(cls, Enum):
            members.append(("values", {k: v.value for k, v in cls.__members__.items()}))
        members += [(k, _unbound(v)) for k, v in vars(cls).items() if _is_written(cls, k, v)]
        name = cls.__qualname__
        return ["class", name, *([k, self.value(v, f"{name}.{k}")] for k, v in members)]

    def own_module(self, module: ModuleType, what: str) -> Any:
        """Describe a module of the user by all that it holds."""
        held = sorted((k, v) for k, v in vars(module).items() if not k.startswith("__"))
        return ["module", *([k, self.value(v, f"{what}: {k}")] for k, v in held)]


# --- what code reads -----------------------------------------------------------------------------


def _steps(code: CodeType) -> list[dis.Instruction]:
    """The instructions of a code object, but for those that only say where its source stands."""
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    stores = enumerate(step.argval if step.opname == "STORE_NAME" else "" for step in steps)
    about = {k for k, name in stores if name in ABOUT}
    return [step for k, step in enumerate(steps) if not {k, k + 1} & about]


def _operand(step: dis.Instruction, code: CodeType) -> Any:
    """What an instruction works on; of a jump its length, whatever stands before."""
    if step.opname == "KW_NAMES":  # which `dis` does not look up
        return code.co_consts[step.arg]
    return step.arg if step.opcode in dis.hasjrel else step.argval


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A code object and all that are defined inside it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _nested(inner)


def _globals(function: FunctionType) -> dict[str, Any]:
    """Global values that code reads, by name; of a module of the user the part that it uses."""
    namespace, found = function.__globals__, {}
    for steps in map(_steps, _nested(function.__code__)):
        for k, step in enumerate(steps):
            if step.opname in LOADS and step.argval in namespace:
                name, value = step.argval, namespace[step.argval]
                for after in steps[k + 1 :]:
                    if after.opname not in ATTRIBUTES or not _is_own_module(value):
                        break
                    name, value = f"{name}.{after.argval}", getattr(value, after.argval, None)
                found[name] = value
            elif step.opname == "IMPORT_NAME":  # the two constants before it say which and how
                level, parts = steps[k - 2].argval, steps[k - 1].argval
                found |= _imported(step.argval, namespace, parts, level)
    return found


def _imported(name: str, namespace: dict, parts: tuple | None, level: int) -> dict[str, Any]:
    """What an import statement inside a function brings in; nothing where it will fail."""
    try:
        module = __import__(name, namespace, None, parts, level)
    except ImportError:
        return {name: None}
    if parts and _is_own_module(module):
        return {f"{name}.{part}": getattr(module, part, None) for part in parts}
    return {name: module}


def _closure(function: Any) -> dict[str, Any]:
    """Variables of the functions around that a function reads, but for those not yet set."""
    found, cells = {}, getattr(function, "__closure__", None) or ()
    for name, cell in zip(function.__code__.co_freevars if cells else (), cells, strict=True):
        with contextlib.suppress(ValueError):  # the cell is empty
            found[name] = cell.cell_contents
    return found


def _settings(held: object) -> list:
    """The class of what a library's wrapper holds, for instance torch.autocast, and its numbers."""
    owner = getattr(held, "__self__", held)  # torch.no_grad holds a method
    plain = [
        (name, repr(value))
        for name, value in getattr(owner, "__dict__", {}).items()
        if isinstance(value, bool | int | float | str) or type(value).__name__ == "dtype"
        if not name.startswith("prev")  # what torch found when it was last used
    ]
    return [type(owner).__qualname__, sorted(plain)]


def _is_written(cls: type, name: str, member: Any) -> bool:
    """Whether a member of a class was written, not made by Python or by dataclasses."""
    if hasattr(type(member), "__get__"):  # functions, properties and so on
        code = getattr(member, "__code__", None)
        return not getattr(code, "co_qualname", "").startswith("__create_fn__")
    return not (name.startswith(("__", "_abc_")) or issubclass(cls, Enum))


def _unbound(member: Any) -> Any:
    """A member of a class; of a property, a class method and their like the functions inside."""
    if isinstance(member, FunctionType) or not hasattr(type(member), "__get__"):
        return member
    parts = [getattr(member, name) for name in PARTS if hasattr(member, name)]
    installed = _origin(type(member))[0] == "installed"
    return [type(member), *parts] if parts or installed else member


# --- where code comes from -----------------------------------------------------------------------


def _origin(value: Any) -> tuple[str, str]:
    """Who wrote a function, class or module, "user", "fixlip" or "installed"; and its module."""
    name = getattr(value, "__module__", None) or type(value).__module__
    if isinstance(value, ModuleType):
        name = value.__name__
    elif isinstance(value, FunctionType):  # functools.wraps lends `__module__` of another function
        name = value.__globals__.get("__name__") or ""
    top = name.partition(".")[0]
    file = getattr(sys.modules.get(name, sys.modules.get(top)), "__file__", None)
    if isinstance(value, FunctionType) and not value.__code__.co_filename.startswith("<"):
        file = value.__code__.co_filename
    if top in ("fixlip", "__main__"):
        return ("fixlip" if top == "fixlip" else "user"), name
    library = bool(file) and ({"site-packages", "dist-packages"} & {*Path(file).parts})
    library = library or (Path(file).is_relative_to(STANDARD) if file else top in BUILT_IN)
    return ("installed" if library else "user"), name


def _is_own_module(value: Any) -> bool:
    return isinstance(value, ModuleType) and _origin(value)[0] == "user"


@functools.cache
def version(name: str) -> tuple[str, str]:
    """Name and version of the package that a module belongs to; Python's own have none."""
    top = name.partition(".")[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return top, importlib.metadata.version(top)
    return top, str(getattr(sys.modules.get(top), "__version__", ""))


def read_package(folder: Path) -> dict[str, bytes]:
    """The source files of a package by their names, but for the rooms that give no numbers."""
    names = (path.relative_to(folder) for path in sorted(folder.rglob("*.py")))
    return {
        name.as_posix(): folder.joinpath(name).read_bytes()
        for name in names
        if name.parts[0].removesuffix(".py") not in VIEWS
    }


def digest(files: Mapping[str, bytes]) -> str:
    """Hash of what source files run."""
    codes = [[name, compile(text, name, "exec", dont_inherit=True)] for name, text in files.items()]
    return _sha(json.dumps(_Reader().value(codes, "")).encode())


# as the files are now, because what is edited later does not run
FILES = read_package(Path(__file__).parents[1])


@functools.cache
def _fixlip() -> list:
    """What stands for fixlip: its code, and the versions of the packages it computes with."""
    return [digest(FILES), [version(name) for name in BUILT_ON]]


# --- bytes ---------------------------------------------------------------------------------------


def _refusal(value: object, what: str) -> str:
    return (
        f"{what} is a {type(value).__name__}, which has no fingerprint: nobody could tell "
        "later whether it was the same. Use numbers, strings, arrays, a Path or a dataclass "
        "instead, or give it an attribute `info`, a dict of everything that determines it"
    )


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

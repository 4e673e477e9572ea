"""What determines a result, as one hash: data by content, encoders by weights, code by source.

A function counts by its own source, the values of the globals, closures and defaults that it
reads, and, in turn, the functions and classes among them. Comments, docstrings and layout do not
count. Modules of fixlip count by their source and that of the modules they import, so that a
change of the solver changes the hash of a study that solves, and a change of the plots does not.
Installed packages count by their version. What has no fingerprint is refused.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import linecache
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from importlib.machinery import SourceFileLoader
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

PACKAGE = Path(__file__).parent
VIEWS = ("plots", "html", "paths", "studies", "fingerprints")  # modules that change no number
NUMERIC = ("numpy", "open_clip", "PIL", "scipy", "timm", "torch", "torchvision", "transformers")
DISTRIBUTIONS = {"open_clip": "open_clip_torch", "PIL": "pillow"}  # named unlike their modules
WRITTEN = (complex, range, slice, date, time, timedelta, Decimal, Fraction, np.dtype)
DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
CODE = (FunctionType, BuiltinFunctionType, MethodType, type, np.ufunc)
STANDARD = Path(sysconfig.get_path("stdlib"))


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
    parts = [reader.value(value, what), reader.modules()]
    return _sha(json.dumps(parts).encode())


class _Reader:
    """Describes values by strings, numbers and lists; every function and class once."""

    def __init__(self) -> None:
        self.used: set[str] = set()  # modules of fixlip
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
            pairs = value.items()  # in their order: players may be given as a mapping
            return [
                "map",
                *([self.value(k, what), self.value(v, f"{what}[{k!r}]")] for k, v in pairs),
            ]
        if isinstance(value, CODE):
            return self.code(value, what)
        if isinstance(value, ModuleType):
            return self.module(value, what)
        if isinstance(value, functools.partial):
            return [
                "partial",
                *(self.value(v, what) for v in (value.func, value.args, value.keywords)),
            ]
        if hasattr(value, "__wrapped__"):  # functools.cache and its like
            return ["wrapped", self.value(value.__wrapped__, what)]
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
            fields = [f.name for f in dataclasses.fields(value)]
            return [
                "fields",
                kind,
                *([f, self.value(getattr(value, f), f"{what}.{f}")] for f in fields),
            ]
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
        if isinstance(value, MethodType):
            return ["method", self.value(value.__func__, what), self.value(value.__self__, what)]
        name = getattr(value, "__module__", None) or type(value).__module__
        if _is_ours(name):
            self.used.add(name)
            return ["fixlip", name, value.__qualname__]
        if _is_installed(name):
            return ["installed", *_version(name), getattr(value, "__qualname__", repr(value))]
        if id(value) in self.met:
            return ["again", self.met[id(value)][0]]
        self.met[id(value)] = (len(self.met), value)
        return self.own_class(value) if isinstance(value, type) else self.own(value, what)

    def own(self, function: FunctionType, what: str) -> Any:
        """Describe a function of the user: its source and the values that it reads."""
        code, name = function.__code__, function.__qualname__
        if hasattr(function, "__wrapped__") and _is_library(code.co_filename):
            return ["wrapped", self.value(function.__wrapped__, what)]  # as by torch.no_grad()
        _check_loaded(function)
        defaults = [function.__defaults__, function.__kwdefaults__]
        read = _globals_read(code, function.__globals__) | _closure(function)
        return [
            "function",
            _source(function, what),
            self.value(defaults, f"the defaults of {name}"),
            [[k, self.value(v, f"{k!r}, which {name} reads,")] for k, v in read.items()],
        ]

    def own_class(self, cls: type) -> Any:
        """Describe a class of the user by its bases, its methods and its other members."""
        members = [("bases", cls.__bases__), ("fields", getattr(cls, "__annotations__", None))]
        if dataclasses.is_dataclass(cls):
            defaults = ((f.default, f.default_factory) for f in dataclasses.fields(cls))
            given = [d for pair in defaults for d in pair if d is not dataclasses.MISSING]
            members.append(("defaults", given))
        if issubclass(cls, Enum):
            members.append(("values", {k: v.value for k, v in cls.__members__.items()}))
        for name, member in vars(cls).items():
            member = getattr(member, "fget", getattr(member, "func", member))  # properties
            member = getattr(member, "__func__", member)  # class and static methods
            code = getattr(inspect.unwrap(member), "__code__", None)
            generated = code and (code.co_filename == "<string>" or _is_library(code.co_filename))
            plain = isinstance(member, FunctionType)
            inner = name.startswith(("__", "_abc_")) or hasattr(type(member), "__get__")
            if not generated and (plain or not (inner or issubclass(cls, Enum))):
                members.append((name, member))
        name = cls.__qualname__
        return ["class", name, *([k, self.value(v, f"{name}.{k}")] for k, v in members)]

    def module(self, module: ModuleType, what: str) -> Any:
        """Describe a module as a whole: of a user's own, its source and what it imports."""
        name = module.__name__
        if _is_ours(name):
            self.used.update(_all_modules() if name == "fixlip" else [name])
            return ["fixlip", name]
        if _is_installed(name):
            return ["installed", *_version(name)]
        if id(module) in self.met:
            return ["again", self.met[id(module)][0]]
        self.met[id(module)] = (len(self.met), module)
        if not getattr(module, "__file__", None):
            raise ValueError(f"{what} is the module {name}, whose source cannot be found")
        text, _ = _module_file(
            Path(module.__file__), name, Path(module.__file__).stat().st_mtime_ns
        )
        inside = [
            self.value(v, f"{what} {k}")
            for k, v in vars(module).items()
            if isinstance(v, (*CODE, ModuleType)) and getattr(v, "__module__", "") != name
        ]
        return ["module", text, inside]

    def modules(self) -> list:
        """Sources of all modules of fixlip that are used, and versions of what they build on."""
        todo, done, packages = sorted(self.used), {}, set()
        while todo:
            name = todo.pop()
            path = _module_path(name)
            if name in done or path is None or name.partition(".")[2] in VIEWS:
                continue
            done[name], imports = _module_file(path, name, path.stat().st_mtime_ns)
            packages |= {top for top in imports if top in NUMERIC}
            todo += [other for other in imports if _is_ours(other)]
        return [sorted(done.items()), [_version(top) for top in sorted(packages)]]


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


# --- where code lives ----------------------------------------------------------------------


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "fixlip"


def _is_installed(name: str) -> bool:
    """Whether a module belongs to Python or to an installed package, not to the user."""
    if _is_ours(name) or name in ("__main__", "__mp_main__"):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return name.partition(".")[0] in sys.stdlib_module_names or (bool(file) and _is_library(file))


def _is_library(file: str) -> bool:
    path = Path(file)
    return bool({"site-packages", "dist-packages"} & {*path.parts}) or path.is_relative_to(STANDARD)


@functools.cache
def _version(name: str) -> tuple[str, str]:
    """Name and version of the package that a module belongs to; Python's own have none."""
    top = name.partition(".")[0]
    try:  # not from the module, which may not be loaded yet
        return top, importlib.metadata.version(DISTRIBUTIONS.get(top, top))
    except importlib.metadata.PackageNotFoundError:
        return top, str(getattr(sys.modules.get(top), "__version__", ""))


def _module_path(name: str) -> Path | None:
    """The file of a module of fixlip, without importing it; None where there is none."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return found[0] if found else None


def _all_modules() -> list[str]:
    """Names of all modules of fixlip."""
    paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


@functools.lru_cache(maxsize=4096)
def _module_file(path: Path, name: str, modified: int) -> tuple[str, frozenset[str]]:
    """Hash of a module's code, and the modules that it imports: fixlip's in full, others' tops."""
    text = path.read_text(encoding="utf-8")
    _check_unchanged(name, path, text)
    tree = ast.parse(text)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            inside = [f"{base}.{alias.name}" for alias in node.names]
            modules = [m for m in inside if _is_ours(m) and _module_path(m)]
            found.update(modules, [base] if len(modules) < len(inside) else [])
    imports = (m if _is_ours(m) else m.partition(".")[0] for m in found)
    return _sha(_plain(tree).encode()), frozenset(imports)


def _check_unchanged(name: str, path: Path, text: str) -> None:
    """Raise where a module's file is no longer what Python has loaded and runs."""
    module = sys.modules.get(name)
    if type(getattr(getattr(module, "__spec__", None), "loader", None)) is not SourceFileLoader:
        return
    now = {
        _signature(code) for code in _nested(compile(text, str(path), "exec", dont_inherit=True))
    }
    for value in vars(module).values():
        members = vars(value).values() if isinstance(value, type) else [value]
        for member in members:
            member = getattr(member, "__func__", getattr(member, "fget", member))
            code = getattr(member, "__code__", None)
            if isinstance(code, CodeType) and code.co_filename == str(module.__file__):
                if _signature(code) not in now:
                    raise ValueError(
                        f"{path.name} was changed after Python had loaded it, and Python still "
                        f"runs the old {code.co_qualname}: restart Python (in Jupyter, the kernel)"
                    )


def _check_loaded(function: FunctionType) -> None:
    """The same for the module of a user's function, where it is a file."""
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    if file and function.__code__.co_filename == file:
        path = Path(file)
        _module_file(path, function.__module__, path.stat().st_mtime_ns)


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A code object and all that are defined inside it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _nested(inner)


def _signature(code: CodeType) -> tuple:
    """What a code object does, whatever its lines."""
    plain = [repr(c) for c in code.co_consts if not isinstance(c, CodeType | frozenset)]
    return code.co_qualname, code.co_code, code.co_names, tuple(plain)


# --- the source and the globals of a function ------------------------------------------------


def _plain(tree: ast.AST) -> str:
    """Source without comments, docstrings and layout."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *DEFINED)) and ast.get_docstring(node, False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _source(function: FunctionType, what: str) -> str:
    """The source of one function or lambda, from its file or notebook cell."""
    code = function.__code__
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    found = _definitions(text, code.co_name, code.co_firstlineno)
    if len(found) > 1:  # lambdas on one line: a function's code knows where its body stands
        places = {*code.co_positions()}
        found = {place: source for place, source in found.items() if place in places}
    if len(found) != 1:
        raise ValueError(
            f"{what}: the source of {function.__qualname__} cannot be found, so that nobody could "
            "tell later whether it was the same. Define it with def in a file or in a notebook cell"
        )
    return next(iter(found.values()))


@functools.lru_cache(maxsize=1024)
def _definitions(text: str, name: str, line: int) -> dict[tuple, str]:
    """The functions of a name that begin on a line, by the place of their body."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return {}
    found = {}
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.Lambda) and name == "<lambda>" and node.lineno == line:
            found[_place(node.body)] = _plain(node)
        elif isinstance(node, DEFINED) and node.name == name:
            if min(part.lineno for part in (node, *node.decorator_list)) == line:
                found[_place(node)] = _plain(node)
    return found


def _place(node: ast.AST) -> tuple[int, int, int, int]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _closure(function: FunctionType) -> dict[str, Any]:
    """Variables of the functions around that a function reads, but for those not yet set."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # the cell is empty
            found[name] = cell.cell_contents
    return found


def _globals_read(code: CodeType, namespace: dict) -> dict[str, Any]:
    """Global values that code reads, by name: of a module, as far as can be, the part it uses."""
    found: dict[str, Any] = {}
    for inner in _nested(code):
        steps = list(dis.get_instructions(inner))
        for k, step in enumerate(steps):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in namespace:
                name, value = step.argval, namespace[step.argval]
                for after in steps[k + 1 :]:
                    if not isinstance(value, ModuleType) or _is_installed(value.__name__):
                        break
                    if after.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                        break
                    name, value = f"{name}.{after.argval}", getattr(value, after.argval, None)
                found[name] = value
            elif step.opname == "IMPORT_NAME":
                found |= _imported(step.argval, steps[k - 2].argval, steps[k + 1 :], namespace)
    return found


def _imported(name: str, level: int, after: list, namespace: dict) -> dict[str, Any]:
    """What an import statement inside a function brings in; nothing where it will fail."""
    try:
        module = importlib.import_module("." * level + name, namespace.get("__package__"))
    except ImportError:
        return {name: None}
    names = []
    for step in after:
        if step.opname == "POP_TOP":
            break
        names += [step.argval] if step.opname == "IMPORT_FROM" else []
    values = {f"{name}.{part}": getattr(module, part, module) for part in names}
    return values if values and not _is_installed(module.__name__) else {name: module}

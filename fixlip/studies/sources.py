"""Where code lives: the source of functions, what they read, and the modules of fixlip they use."""

from __future__ import annotations

import ast
import contextlib
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

PACKAGE = Path(__file__).parents[1]
VIEWS = ("fingerprints", "html", "paths", "plots", "sources", "store", "studies")  # no numbers
NUMERIC = ("numpy", "open_clip", "PIL", "scipy", "timm", "torch", "torchvision", "transformers")
DISTRIBUTIONS = {"open_clip": "open_clip_torch", "PIL": "pillow"}  # named unlike their modules
DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
STANDARD = Path(sysconfig.get_path("stdlib"))


def is_ours(name: str) -> bool:
    """Whether a module belongs to fixlip."""
    return name.partition(".")[0] == "fixlip"


def is_installed(name: str, function: Any = None) -> bool:
    """Whether a module, or a function of it, belongs to Python or to an installed package."""
    if is_ours(name):
        return False
    if isinstance(function, FunctionType):  # a name can be lent, as functools.wraps does
        return is_library(function.__code__.co_filename)
    top = name.partition(".")[0]
    file = getattr(sys.modules.get(name, sys.modules.get(top)), "__file__", None)
    return top in sys.stdlib_module_names or (bool(file) and is_library(file))


def is_library(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    path = Path(file)
    installed = {"site-packages", "dist-packages"} & {*path.parts}
    return bool(installed) or path.is_relative_to(STANDARD) or file.startswith("<frozen")


def is_wrapper(value: Any) -> bool:
    """Whether a library wrapped a function of somebody else, as functools and torch do."""
    code = getattr(value, "__code__", None)
    return code is None or is_library(code.co_filename)


@functools.cache
def version(name: str) -> tuple[str, str]:
    """Name and version of the package that a module belongs to; Python's own have none."""
    top = name.partition(".")[0]
    try:  # not from the module, which may not be loaded yet
        return top, importlib.metadata.version(DISTRIBUTIONS.get(top, top))
    except importlib.metadata.PackageNotFoundError:
        return top, str(getattr(sys.modules.get(top), "__version__", ""))


def module_path(name: str) -> Path | None:
    """The file of a module of fixlip, without importing it; None where there is none."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return found[0] if found else None


def all_modules() -> list[str]:
    """Names of all modules of fixlip."""
    paths = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths]


def used(names: set[str]) -> list:
    """Hashes of the modules of fixlip that these rest on, and versions of what they build on."""
    todo, done, packages = sorted(names), {}, set()
    while todo:
        name = todo.pop()
        path = module_path(name)
        if name in done or path is None or name.partition(".")[2] in VIEWS:
            continue
        done[name], imports = module_file(name, path)
        packages |= imports & {*NUMERIC}
        todo += [other for other in imports if is_ours(other)]
    return [sorted(done.items()), [version(top) for top in sorted(packages)]]


def module_file(name: str, path: Path) -> tuple[str, frozenset[str]]:
    """Hash of a module's code, and the modules that it imports: fixlip's in full, others' tops."""
    return _module_file(name, path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _module_file(name: str, path: Path, modified: int) -> tuple[str, frozenset[str]]:
    text = path.read_text(encoding="utf-8")
    _check_unchanged(name, path, text)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            inside = [f"{base}.{alias.name}" for alias in node.names]
            modules = [m for m in inside if is_ours(m) and module_path(m)]
            found.update(modules, [base] if len(modules) < len(inside) else [])
    imports = frozenset(m if is_ours(m) else m.partition(".")[0] for m in found)
    return hashlib.sha256(_plain(tree).encode()).hexdigest(), imports


def _check_unchanged(name: str, path: Path, text: str) -> None:
    """Raise where a module's file holds other code than Python has loaded."""
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


def check_loaded(function: FunctionType) -> None:
    """Raise where the file of a user's function is no longer what Python has loaded and runs."""
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    if file and function.__code__.co_filename == file:
        module_file(function.__module__, Path(file))


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


def source_of(function: Any, what: str) -> str:
    """The source of one function or lambda, from its file or notebook cell."""
    code = getattr(function, "__code__", None)
    found = {}
    if isinstance(code, CodeType):
        linecache.checkcache(code.co_filename)
        text = "".join(linecache.getlines(code.co_filename, function.__globals__))
        found = _definitions(text, code.co_name, code.co_firstlineno)
    if len(found) > 1:  # lambdas on one line: a function's code knows where its body stands
        places = {*code.co_positions()}
        found = {place: text for place, text in found.items() if place in places}
    if len(found) != 1:
        raise ValueError(
            f"{what}: the source of {function.__qualname__} cannot be found, so that nobody could "
            "tell later whether it was the same. Define it with def in a file or in a notebook "
            "cell, and restart Python where the file has changed"
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


def closure(function: FunctionType) -> dict[str, Any]:
    """Variables of the functions around that a function reads, but for those not yet set."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # the cell is empty
            found[name] = cell.cell_contents
    return found


def globals_read(function: FunctionType) -> dict[str, Any]:
    """Global values that code reads, by name: of a module, as far as can be, the part it uses."""
    namespace = function.__globals__
    found: dict[str, Any] = {}
    for inner in _nested(function.__code__):
        steps = list(dis.get_instructions(inner))
        for k, step in enumerate(steps):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in namespace:
                name, value = step.argval, namespace[step.argval]
                for after in steps[k + 1 :]:
                    if not isinstance(value, ModuleType) or is_installed(value.__name__):
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
    return values if values and not is_installed(module.__name__) else {name: module}

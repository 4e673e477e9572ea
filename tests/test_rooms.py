"""Who may import whom: the floor plan of the package, read from its import statements.

A room is a folder of ``fixlip`` or a file beside the folders. An import inside ``TYPE_CHECKING`` or
inside a function counts like any other.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import fixlip

PACKAGE = Path(fixlip.__file__).parent
GROUND = {"checks", "files", "images", "paths", "demo", "renamed"}
EXPLAINING = {"budget", "checks", "encoders", "explanation", "games", "paths", "sampler", "solver"}
ANYBODY = {"extras", "renamed"}  # what is missing, and old names: said wherever it is asked for
MAY_IMPORT = {
    **{room: set() for room in (*GROUND, "extras", "progress")},
    **{room: {"files"} for room in ("demo", "paths")},
    "images": {"checks", "files"},
    "sampler": {"checks", "progress"},
    "explanation": {"checks", "files"},
    "encoders": {"checks", "images", "sampler"},
    "solver": {"checks", "explanation", "sampler"},
    "games": {"checks", "explanation", "sampler", "solver"},
    "budget": {"checks", "explanation", "games", "progress", "sampler", "solver"},
    "plots": {"checks", "explanation", "files", "paths"},
    "pipeline": {*EXPLAINING, "images"},
    "explainers": EXPLAINING,
    "metrics": EXPLAINING,
    "data": {"encoders", *GROUND},
    "studies": {"checks", "files"},
    "cli": {"checks", "encoders", "explanation", "files", "paths", "pipeline", "plots", "studies"},
    "__main__": {"cli"},
}
ORDER = {  # within a room, a file imports only files listed before it
    "sampler": ("masks", "distinct", "sweep"),
    "solver": (
        *("leastsquares", "polynomial", "errors", "factor"),
        *("fit", "product", "solve", "dense"),
    ),
}
OPEN_CLIP = {"open_clip", "timm"}


class Import(NamedTuple):
    """One imported module, or one name of it."""

    file: str  # "solver/fit"
    module: str  # "fixlip.sampler.masks", "numpy.linalg"
    name: str  # "MaskSample"; "" for a whole module


@cache
def imports() -> tuple[Import, ...]:
    """Every import of the package."""
    return tuple(found for path in sorted(PACKAGE.rglob("*.py")) for found in _imports(path))


def _imports(path: Path) -> Iterator[Import]:
    file = path.relative_to(PACKAGE).with_suffix("").as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(file, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            yield from (Import(file, node.module, alias.name) for alias in node.names)


def room(file: str) -> str:
    """The room of a file: its folder, or the file itself."""
    return file.partition("/")[0]


def target(found: Import) -> str | None:
    """The room that an import leads to, if it is one of ours."""
    if found.module == "fixlip":
        return found.name or "fixlip"
    return found.module.split(".")[1] if found.module.startswith("fixlip.") else None


def arrows() -> set[tuple[str, str]]:
    """Pairs of different rooms, the importing one first; the package's own face has none."""
    pairs = {(room(i.file), target(i)) for i in imports() if i.file != "__init__"}
    return {(a, b) for a, b in pairs if b not in (None, a, *ANYBODY)}


def test_every_room_is_in_the_table():
    entries = [p for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
    assert {p.stem for p in entries} - {"__init__"} == set(MAY_IMPORT)


def test_every_arrow_is_in_the_table():
    against = sorted(f"{a} -> {b}" for a, b in arrows() if b not in MAY_IMPORT.get(a, ()))
    assert not against, f"arrows against the table: {', '.join(against)}"


def test_there_are_no_circles():
    below = {a: {b for c, b in arrows() if c == a} for a in MAY_IMPORT}

    def reach(a: str, seen: frozenset) -> None:
        assert a not in seen, f"a circle of rooms through {a}: {sorted(seen)}"
        for b in below.get(a, ()):
            reach(b, seen | {a})

    for a in MAY_IMPORT:
        reach(a, frozenset())


def test_there_are_no_circles_of_files():
    files = {i.file for i in imports()}
    edges: dict[str, set[str]] = {file: set() for file in files}
    for i in imports():
        if i.module.startswith("fixlip."):
            path = "/".join(i.module.split(".")[1:])
            for target_file in (f"{path}/{i.name}", path):
                if target_file in files and target_file != i.file:
                    edges[i.file].add(target_file)
                    break
    done: set[str] = set()

    def visit(file: str, above: tuple[str, ...]) -> None:
        assert file not in above, " -> ".join([*above, file])
        if file not in done:
            for below in edges[file]:
                visit(below, (*above, file))
            done.add(file)

    for file in files:
        visit(file, ())


@pytest.mark.parametrize("folder", sorted(ORDER))
def test_files_of_a_room_import_upwards_in_reading_order(folder):
    order = ORDER[folder]
    files = {p.stem for p in (PACKAGE / folder).glob("*.py")} - {"__init__"}
    assert files == set(order)
    for i in imports():
        if room(i.file) == folder and target(i) == folder and not i.file.endswith("__init__"):
            here, there = i.file.split("/")[1], i.module.split(".")[2]
            assert order.index(there) < order.index(here), f"{here} imports {there}"


def test_private_names_stay_in_their_file():
    crossing = [i for i in imports() if target(i) and i.name.startswith("_")]
    crossing += [i for i in imports() if target(i) and "._" in i.module]
    assert not crossing
    reached = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and _stored(n)}
        own |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _stored(n)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not _stored(node):
                name = node.attr
                if not name.startswith("__") and name not in own and name not in FOREIGN:
                    reached.append(f"{path.relative_to(PACKAGE)}: .{name}")
    assert not reached, f"private names of another file: {reached}"


FOREIGN = {"_asdict", "_pool"}  # of other packages: a named tuple's, and timm's pooling


def _stored(node: ast.Attribute | ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def test_open_clip_and_timm_are_imported_in_one_folder():
    rooms = {room(i.file) for i in imports() if i.module.split(".")[0] in OPEN_CLIP}
    assert rooms == {"encoders"}


def test_the_core_needs_no_open_clip():
    """Neither what the core imports, nor anything that this imports in turn."""
    below, todo = set(), {"sampler", "solver", "explanation", "games", "budget"}
    while todo:
        below |= todo
        todo = {b for a, b in arrows() if a in below} - below
    assert not {"encoders", "data"} & below


def test_the_faces_name_what_they_import():
    """A face (`__init__`) lists what it offers, in order, and every name is there."""
    for path in PACKAGE.glob("*/__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names
        }
        offered = [
            name
            for n in tree.body
            if isinstance(n, ast.Assign | ast.AugAssign)
            and (n.targets[0] if isinstance(n, ast.Assign) else n.target).id == "__all__"
            for name in ast.literal_eval(n.value)
        ]
        assert ast.get_docstring(tree), f"{path}: say in one line what the room is"
        if names:
            assert set(offered) == names - {"need", "renamed"}, path

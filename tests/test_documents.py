"""The documents tell the truth: generated pages are up to date, what is named exists."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
import test_rooms

import fixlip
from fixlip.explanation import explanation
from fixlip.paths import root
from fixlip.solver import errors, polynomial
from fixlip.studies import store

HAND_WRITTEN = (
    "CHANGELOG",
    "CONTRIBUTING",
    "RELEASING",
    "SECURITY",
    "docs/design",
    "docs/glossary",
)
DOCUMENTS = [f"{name}.md" for name in (*HAND_WRITTEN, "docs/models", "benchmarks/README")]


def read(name: str) -> str:
    """A document of the repository."""
    return (root() / name).read_text(encoding="utf-8")


@pytest.fixture
def tables(monkeypatch):
    """The program that writes the generated pages."""
    monkeypatch.syspath_prepend(root() / "benchmarks")
    return importlib.import_module("tables")


def test_generated_pages_are_what_the_files_of_results_give(tables):
    stale = [path.name for path, text in tables.pages().items() if path.read_text("utf-8") != text]
    assert not stale, f"{stale}: python benchmarks/tables.py"


def test_every_file_of_results_is_on_a_page(tables):
    text = "".join(tables.pages().values())
    for path in (root() / "benchmarks" / "results").glob("*.json"):
        for row in json.loads(path.read_text("utf-8"))["rows"]:
            assert f"| {' | '.join(map(str, row.values()))} |" in text, path.name


def test_a_changed_result_changes_its_page(tables, tmp_path, monkeypatch):
    """Tables, sentences and machines come from the files: nothing of them is typed."""
    for path in tables.RESULTS.glob("*.json"):
        found = json.loads(path.read_text("utf-8"))
        found["machine"]["processor"] = "Abacus"
        (tmp_path / path.name).write_text(json.dumps(found))
    solver = json.loads((tmp_path / "solver.json").read_text())
    solver["rows"][-1]["times faster"], solver["notes"] = "98765", ["Measured in a storm."]
    (tmp_path / "solver.json").write_text(json.dumps(solver))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    page = tables.page()
    assert page.count("98765") == 2 and "Measured in a storm." in page
    assert "Abacus" in page


def test_runs_on_a_gpu_are_shown_once_they_are_recorded(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "No run on a GPU is recorded" in tables.gpu()
    machine = {"processor": "P", "cores": 2, "threads": 1, "gpu": "G9", "torch": "2", "date": "d"}
    run = {"machine": machine, "part": "matrix", "command": "gpu.py", "rows": [{"TFLOP/s": 1.5}]}
    (tmp_path / "gpu-matrix.json").write_text(json.dumps(run | {"problem": "stopped"}))
    text = tables.gpu()
    assert "| 1.5 |" in text and "G9" in text and "did not end well: stopped" in text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_files_and_targets_exist(name):
    text, folder = read(name), (root() / name).parent
    for link in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (folder / link).exists(), link
    for file in re.findall(r"`((?:\w+/)+\w+\.(?:py|md|ipynb|json|yml))`", text):
        assert any((place / file).exists() for place in (root(), root() / "fixlip")), file
    targets = re.findall(r"^([a-z]+):.*##", read("Makefile"), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z]+)", text)) <= set(targets)
    for module in re.findall(r"`fixlip((?:\.\w+)+)[`(]", text):
        assert _exists(module), f"fixlip{module}"


def _exists(dotted: str) -> bool:
    """Whether fixlip has a module, or a name in one."""
    found = fixlip
    for part in dotted.strip(".").split("."):
        if inspect.ismodule(found) and not hasattr(found, part):
            try:
                importlib.import_module(f"{found.__name__}.{part}")
            except ImportError:
                return False
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def test_rooms_are_drawn_as_they_are():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", read("docs/design.md"), re.MULTILINE)
    drawn = {room: set(re.findall(r"`(\w+)`", below)) for room, below in rows}
    assert drawn == test_rooms.MAY_IMPORT


def test_file_formats_are_those_of_the_code():
    for name in ("RELEASING.md", "docs/design.md"):
        named = set(re.findall(r"`(fixlip-[a-z]+-\d+)`", read(name)))
        assert named == {explanation.FORMAT, store.FORMAT}, name


@pytest.mark.parametrize("name", ["docs/design.md"])
def test_examples_run(name, capsys):
    for code in re.findall(r"```python\n(.*?)```", read(name), re.DOTALL):
        exec(code, {})
    assert capsys.readouterr().out.split() == ["[[1.", "0.5", "]", "[0.5", "4.25]]"]


def test_the_designs_numbers_are_the_codes():
    text = " ".join(read("docs/design.md").split())
    assert f"up to {errors.GROUPS} groups" in text
    assert f"drawn from it {errors.DRAWS} times" in text
    assert f"fewer than {polynomial.MIN_MASKS_PER_TERM} masks per first-order term" in text


def test_the_glossary_is_in_one_piece():
    """Every entry is said once."""
    words = [
        word
        for names in re.findall(r"\*\*(.+?)\.\*\*", read("docs/glossary.md"))
        for word in names.split(", ")
    ]
    assert len(words) == len(set(words)) > 60


def test_the_changelog_begins_with_this_version():
    version = re.search(r'^version = "(.+)"', read("pyproject.toml"), re.MULTILINE)[1]
    assert re.search(r"^## \[(.+)\]", read("CHANGELOG.md"), re.MULTILINE)[1] == version


def test_documents_name_no_path_of_one_machine():
    for name in DOCUMENTS:
        assert not re.search(
            rf"(?<![\w.])/(home|root|work|tmp)/|{re.escape(str(Path.home()))}/", read(name)
        )

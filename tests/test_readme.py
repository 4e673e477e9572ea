"""The README tells the truth: its tables are the measured ones, its paths and targets exist."""

import re

import pytest

from fixlip.paths import root

README = (root() / "README.md").read_text(encoding="utf-8")
PAGES = ("benchmarks/README.md", "docs/models.md")  # see tests/test_documents.py


def tables(text):
    """Header and rows of every table of a document."""
    for table in re.findall(r"^(\|.+\n\|[-|]+\n(?:\|.+\n)+)", text, re.MULTILINE):
        header, _, *rows = table.splitlines()
        yield header, rows


def test_tables_are_those_of_the_measured_pages():
    """Where the README shows a table of a generated page, it shows the same rows, or some."""
    measured = {}
    for page in PAGES:
        for header, rows in tables((root() / page).read_text(encoding="utf-8")):
            measured.setdefault(header, set()).update(rows)
    for header, rows in tables(README):
        assert set(rows) <= measured.get(header, set(rows)), header


def test_paths_exist_and_targets_are_known():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root() / path).exists(), path
    makefile = (root() / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.slow
def test_the_example_runs(monkeypatch, tmp_path):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    scene = root() / "data/scenes/val/000000000209.png"
    monkeypatch.chdir(tmp_path)
    code = code.replace("data/scenes/val/000000000209.png", scene.as_posix())
    names: dict = {}
    exec(code, names)
    assert (tmp_path / "heart.safetensors").is_file()
    assert names["explanation"].given("heart").shape == (36,)

"""The README tells the truth: numbers are measured, paths exist, the example prints that."""

import contextlib
import io
import itertools
import json
import re
import shlex

import nbformat
import pytest
import run

from fixlip.paths import root

README = (root() / "README.md").read_text(encoding="utf-8")
PAGES = ("benchmarks/README.md", "docs/models.md")  # see tests/test_documents.py


def tables(text):
    """Header and rows of every table of a document."""
    for table in re.findall(r"^(\|.+\n\|[-|]+\n(?:\|.+\n)+)", text, re.MULTILINE):
        header, _, *rows = table.splitlines()
        yield header, rows


def block(language):
    """The first block of code of a language."""
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]


def test_tables_are_those_of_the_measured_pages():
    """Where the README shows a table of a generated page, it shows the same rows, or some."""
    measured = {}
    for page in PAGES:
        for header, rows in tables((root() / page).read_text(encoding="utf-8")):
            measured.setdefault(header, set()).update(rows)
    for header, rows in tables(README):
        assert set(rows) <= measured.get(header, set(rows)), header


def test_claims_of_speed_are_numbers_of_the_section_they_link_to():
    claims = README.partition("\n## How fast\n")[2].partition("\n## ")[0]
    items = claims.strip().split("\n- ")
    page = (root() / "benchmarks" / "README.md").read_text(encoding="utf-8")
    sections = {
        re.sub(r"[^a-z0-9 -]", "", s.splitlines()[0].lower()).replace(" ", "-"): s
        for s in page.split("\n## ")
    }
    assert len(items) >= 3
    for item in items:
        text, _, link = item.partition("([measured](benchmarks/README.md#")
        section = re.findall(r"[\w^.]+", sections[link.partition(")")[0]])
        numbers = re.findall(r"\d[\w^.]*\w|\d", text)
        assert numbers and set(numbers) <= set(section), item


def test_minutes_of_the_notebooks_are_measured():
    found = json.loads((root() / "benchmarks" / "results" / "notebooks.json").read_text("utf-8"))
    measured = {row["notebook"]: float(row["minutes"]) for row in found["rows"]}
    said = re.findall(
        r"^- \[(\w+)\]\(notebooks/\w+.ipynb\) \((under )?([\d.]+) min\)", README, re.M
    )
    assert {name for name, *_ in said} == set(measured) - {"01_theory_solutions"}
    for name, under, minutes in said:
        assert measured[name] < 1 if under else f"{measured[name]:.0f}" == minutes, name


def test_the_first_page_is_short():
    assert len(README.split()) <= 1600
    assert len(README.partition("```python")[0].split()) <= 300
    assert len(block("python").splitlines()) == 10


def test_paths_exist_and_targets_are_known():
    for path in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", README):
        assert (root() / path).exists(), path
    makefile = (root() / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_published_protocol_is_one_command(monkeypatch):
    """Its parameters exist, and its numbers are those of the FIxLIP paper and its code."""
    monkeypatch.setattr(run, "located", lambda name, value: value)  # its folders are examples
    command = re.search(r"run.py figures 06 (.*?)\n```", README, re.DOTALL)[1]
    words = shlex.split(command.replace("\\\n", " "))
    settings = [after for word, after in itertools.pairwise(words) if word == "--set"]
    assert 2 * len(settings) == len(words)
    (path,) = (root() / "notebooks").glob("06_*.ipynb")
    given = run.parse(nbformat.read(path, as_version=4), settings)
    published = {"preset": "published", "budget": 2**21, "joint": 2**17}
    published |= {"ranks": [0, 1000], "pairs": 1000, "words": 1, "dataset": "coco"}
    assert given.items() >= published.items()


@pytest.mark.slow
def test_the_example_prints_what_it_says(monkeypatch, tmp_path):
    scene = root() / "data/scenes/val/000000000209.png"
    monkeypatch.chdir(tmp_path)
    code = block("python").replace("data/scenes/val/000000000209.png", scene.as_posix())
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    assert printed.getvalue() == block("text")
    assert (tmp_path / "heart.safetensors").is_file()

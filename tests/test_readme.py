"""The README tells the truth: its tables are the measured files, its paths and targets exist."""

import json
import re

import pytest

from fixlip.paths import root

README = (root() / "README.md").read_text(encoding="utf-8")
DEMOS = ("demo-clip", "demo-siglip", "demo-siglip-fine")


def accuracy_rows():
    """The table of the demo models' accuracy, from what `data/demo_models/evaluate.py` wrote."""
    folder = root() / "fixlip" / "demo" / "models"
    tables = [json.loads((folder / name / "evaluation.json").read_text()) for name in DEMOS]
    for measure in tables[0]:
        cells = [
            f"{100 * t[measure]['accuracy']:.1f} ± {100 * t[measure]['stderr']:.1f}" for t in tables
        ]
        yield f"| {measure} | " + " | ".join(cells) + " |"


def results():
    """The files of benchmarks/results, but those of `make gpu`: the README quotes none of them."""
    files = sorted((root() / "benchmarks" / "results").glob("*.json"))
    return [path for path in files if not path.name.startswith("gpu-")]


def benchmark_rows():
    """The rows of every table in benchmarks/results."""
    for path in results():
        for row in json.loads(path.read_text())["rows"]:
            yield "| " + " | ".join(map(str, row.values())) + " |"


def estimator_rows():
    """Errors of the estimators that the README names, at p = .5."""
    measured = json.loads((root() / "data" / "estimators.json").read_text())["rows"]
    found = {(r["estimator"], r["budget"]): r for r in measured if r["p"] == 0.5}
    for name in re.findall(r"^\| ((?:split|agnostic|shapiq), [^|]+) \|", README, re.MULTILINE):
        cells = [found[name, budget] for budget in (512, 2048, 4096)]
        yield (
            f"| {name} | "
            + " | ".join(f"{c['cross']:.3f} / {c['within']:.3f}" for c in cells)
            + " |"
        )


@pytest.mark.parametrize("rows", [accuracy_rows, benchmark_rows, estimator_rows])
def test_tables_are_the_measured_ones(rows):
    rows = list(rows())
    missing = [row for row in rows if row not in README]
    assert rows and not missing


def test_machines_are_named():
    for path in results():
        machine = json.loads(path.read_text())["machine"]
        assert machine["processor"] in README and f"torch {machine['torch']}" in README


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

"""The environment: pyproject, lock, environment.yml and Makefile say the same thing."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import wheels
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fixlip.demo.pictograms import HELD_OUT_STYLE, STYLES

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def locked() -> dict[str, set[str]]:
    """Name -> the versions that the lock pins, one for each of its markers."""
    versions: dict[str, set[str]] = {}
    for line in map(Requirement, LOCK):
        (pin,) = line.specifier
        versions.setdefault(canonicalize_name(line.name), set()).add(pin.version)
    return versions


def declared() -> list[Requirement]:
    """Every dependency of every extra, fixlip's references to its own extras left out."""
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [line for names in lists for line in map(Requirement, names) if line.name != "fixlip"]


def test_lock_lines_are_plain_pins():
    pattern = re.compile(r"[a-z0-9-]+==[0-9][A-Za-z0-9.]*( ; [^@#]+)?")  # no URL, index, hash
    assert [line for line in LOCK if not pattern.fullmatch(line)] == []


def test_lock_holds_every_dependency_at_a_version_in_range():
    versions = locked()
    for requirement in declared():
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{requirement} is not in requirements.lock: make lock"
        inside = {version for version in found if version in requirement.specifier}
        right = inside if requirement.marker else inside == found  # a marker: one of several pins
        assert right, f"requirements.lock has {requirement.name} {found}, not {requirement}"


def test_lock_is_closed():
    """Whatever a locked package needs on this machine is locked as well, at a version it admits."""
    versions = locked()
    for line in map(Requirement, LOCK):
        if line.marker is not None and not line.marker.evaluate():
            continue
        for needed in map(Requirement, metadata.requires(line.name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                found = versions.get(canonicalize_name(needed.name), set())
                assert any(needed.specifier.contains(v, prereleases=True) for v in found), (
                    f"{line.name} needs {needed}, requirements.lock has {found or 'nothing'}"
                )


def test_torch_and_torchvision_are_pinned_as_a_pair():
    versions = locked()
    assert versions["torch"] == {"2.11.0"} and versions["torchvision"] == {"0.26.0"}
    for pin in map(Requirement, PYPROJECT["tool"]["uv"]["constraint-dependencies"]):
        assert all(version in pin.specifier for version in versions[pin.name])


def test_everything_asked_for_is_declared():
    asked = "jupyterlab papermill torch open-clip-torch numpy matplotlib seaborn pycocotools nbval"
    names = {canonicalize_name(requirement.name) for requirement in declared()}
    assert set(asked.split()) <= names


LOW, HIGH = (int(minor) for minor in re.findall(r"\(3, (\d+)\)", MAKEFILE))
PYTHONS = [f"3.{minor}" for minor in range(LOW, HIGH)]  # those of the lock


def test_python_versions_agree():
    """The lock ends where torch's wheels end; the package itself sets no upper limit."""
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (python,) = (entry for entry in conda if str(entry).startswith("python "))
    assert SpecifierSet(python.removeprefix("python ")) == SpecifierSet(f">=3.{LOW},<3.{HIGH}")
    assert PYPROJECT["project"]["requires-python"] == f">=3.{LOW}"
    assert f"--python-version 3.{LOW} " in MAKEFILE  # what the lock is resolved for


def test_conda_brings_torch_for_the_cpu_at_the_locks_version_and_pip_the_rest():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = (entry["pip"] for entry in conda if isinstance(entry, dict))
    assert pip == ["-c requirements.lock", "--no-build-isolation", "-e .[test]"]
    pins = dict(entry.split(" ==") for entry in conda if " ==" in entry)
    versions = locked()
    assert {pins["pytorch-cpu"]} == versions["torch"]
    assert {pins["torchvision"]} == versions["torchvision"]


def test_the_workflow_runs_what_is_run_here_on_every_python_and_may_only_read():
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    for name in ("unix", "windows"):
        assert jobs[name]["strategy"]["matrix"]["python"] == PYTHONS
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in jobs.values())
    steps = {
        name: [step.get("run", step.get("uses")) for step in job["steps"]]
        for name, job in jobs.items()
    }
    assert ".ci/run" in steps["unix"]
    assert {"python notebooks/run.py figures", "python -m pytest -n 2"} <= set(steps["windows"])
    used = [step for name in steps for step in steps[name] if step.startswith("actions/")]
    assert used and all(re.fullmatch(r"actions/[a-z-]+@v\d+", step) for step in used)
    assert "never run" in text.split("\n\nname:")[0].splitlines()[0]


def test_classifiers_name_the_pythons_that_are_supported():
    minors = [
        line.rsplit(" ", 1)[1]
        for line in PYPROJECT["project"]["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    ]
    assert minors == PYTHONS


def test_the_packages_addresses_are_those_of_the_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    papers = [entry["identifiers"][0]["value"] for entry in citation["references"]]
    due = {f"https://arxiv.org/abs/{paper.removeprefix('arXiv:')}" for paper in papers}
    due |= {citation[key] for key in ("repository-code", "url") if key in citation}
    assert set(PYPROJECT["project"]["urls"].values()) == due


def test_citation_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PYPROJECT["project"]["version"]
    assert citation["license"] == PYPROJECT["project"]["license"].partition(" AND ")[0]
    papers = {entry["identifiers"][0]["value"] for entry in citation["references"]}
    assert papers == {"arXiv:2508.05430", "arXiv:2408.14153"}


def test_wheel_holds_every_module_and_the_demo_models(tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    for name in ("notebooks/run.py", "notebooks/a.ipynb", "data/a.json", "data/scenes/a.png"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    unused = ("data/demo_models/train.py", "data/openmoji/a.webp", "data/world/train.py")
    for name in (*unused, "notebooks/.ipynb_checkpoints/a.ipynb"):
        (copy / name).parent.mkdir(parents=True)
        (copy / name).touch()
    weights = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.bin", "*.pt")
    shutil.copytree(ROOT / "fixlip", copy / "fixlip", ignore=weights)
    probe = copy / "fixlip" / "demo" / "models" / "some-model" / "open_clip_model.safetensors"
    probe.parent.mkdir(parents=True)
    probe.touch()
    held = set(zipfile.ZipFile(wheels.build(copy)).namelist())
    modules = {path.relative_to(copy).as_posix() for path in copy.glob("fixlip/**/*.py")}
    models = {p.relative_to(copy).as_posix() for p in copy.glob("fixlip/demo/models/**/*.*")}
    due = {"fixlip/py.typed", "fixlip/cli/models.json"}
    assert (modules | models | due) - held == set()
    assert {name for name in held if name.startswith("fixlip/compendium/")} == {
        f"fixlip/compendium/{name}"
        for name in ("notebooks/run.py", "notebooks/a.ipynb", "data/a.json", "data/scenes/a.png")
    }
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert any(name.endswith("pictograms/noto/sheet.webp") for name in held)
    licences = {n for n in held if "licenses/fixlip/demo/pictograms/" in n}
    assert {n.rsplit("/", 2)[-2] for n in licences} == {*STYLES, HELD_OUT_STYLE}
    assert not [name for name in held if "openmoji" in name]


@pytest.fixture
def stub(tmp_path):
    """A folder (with a space in its name) whose `.venv/bin/python` prints what it was given."""
    if shutil.which("make") is None or sys.platform == "win32":
        pytest.skip("needs make")
    folder = tmp_path / "a clone"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    python = folder / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / ".ready").touch()
    return folder


def make(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run make in `cwd`."""
    command = ["env", f"PWD={cwd}", "make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8")


def test_make_explain_passes_words_on_untouched(stub, tmp_path):
    caption = """a "red" star's 5$ — 星 #1 \\o/ `ls` $(HOME) $HOME"""
    given = ["IMAGE=my photos/a b.jpg", f"CAPTION={caption}", "MODEL=ViT-B-32"]
    done = make("-C", str(stub), "explain", *given, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0] == str(tmp_path), "image paths are relative to where make was called"
    assert lines[1:] == [
        *("-m", "fixlip", "explain", f"--out={stub}/runs/explain", "--model=ViT-B-32"),
        *("--", "my photos/a b.jpg", caption),
    ]


def test_make_installs_the_lock_or_leaves_torch_out_of_it(stub):
    lines = make("-nB", ".venv/.ready", cwd=stub).stdout
    assert ".venv/bin/python -m pip install --quiet --requirement requirements.lock\n" in lines
    assert "grep" not in lines and ".pth" not in lines


def test_make_borrows_the_torch_of_another_environment_and_installs_the_rest(stub):
    other = stub.parent / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    (folder,) = other.glob("lib/python*/site-packages")
    for module in ("torch", "torchvision"):
        (folder / f"{module}.py").write_text("from pathlib import Path; __file__ += '/__init__.py'")
    shutil.rmtree(stub / ".venv")
    given = (".venv/.ready", "TORCH=system", f"PYTHON={other}/bin/python")
    lines = make("-nB", *given, cwd=stub).stdout.split("\n")
    (pip,) = (k for k, line in enumerate(lines) if "pip install --quiet --requirement" in line)
    assert lines[pip].endswith(".venv/packages.txt")
    script = "\n".join(["set -e", *lines[:pip]]).replace("-m venv", "-m venv --without-pip")
    done = subprocess.run(["sh", "-c", script], cwd=stub, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = "import sys, torch; sys.exit('other' not in torch.__file__)"
    assert subprocess.run([stub / ".venv" / "bin" / "python", "-c", code]).returncode == 0
    left = (stub / ".venv" / "packages.txt").read_text().splitlines()
    assert {line.partition("==")[0] for line in LOCK} - {x.partition("==")[0] for x in left} >= {
        "torch",
        "torchvision",
    }
    assert len(LOCK) * 0.8 < len(left) < len(LOCK)


@pytest.mark.parametrize("given", [[], ["IMAGE=a.jpg"], ["CAPTION=a dog"]])
def test_make_explain_says_what_is_missing(stub, given):
    done = make("explain", *given, cwd=stub)
    assert done.returncode == 2 and done.stderr.startswith("explain needs both: make explain IMAGE")
    assert done.stdout == ""


def test_make_check_leaves_out_what_is_slow(stub):
    done = make("check", cwd=stub)
    assert done.returncode == 0
    assert done.stdout.split("-m\npytest\n")[1].splitlines() == [
        "-n",
        "2",
        "-m",
        "not slow and not notebook",
        "tests",
    ]
    done = make("test", "WORKERS=3", cwd=stub)
    assert done.stdout.endswith("-m\npytest\n-n\n3\n")


def test_make_refuses_an_old_python_in_one_line(stub):
    (stub / ".venv" / ".ready").unlink()
    old = stub / "python3.9"
    code = "import sys; sys.version_info = (3, 9, 0); exec(sys.argv.pop(1))"
    old.write_text(f"#!/bin/sh\nshift\nexec '{sys.executable}' -c '{code}' \"$@\"\n")
    old.chmod(0o755)
    done = make("figures", "PYTHON=./python3.9", cwd=stub)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0].startswith("fixlip needs Python 3.11 to 3.14, not 3.9")


def test_make_alone_lists_the_targets(stub):
    listed = {line.split()[1] for line in make(cwd=stub).stdout.splitlines() if line[:5] == "make "}
    targets = set(re.findall(r"^([a-z]+):.*##", MAKEFILE, flags=re.MULTILINE))
    assert listed == targets >= {"help", "figures", "check", "test", "explain", "lab", "clean"}

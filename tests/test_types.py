"""The types of the public names, as a user's type checker sees them in the installed wheel."""

import ast
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import fixlip

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "user_program.py"
WRONG = """
import fixlip
import fixlip.sampler

fixlip.explian
fixlip.sampler.sweeep
fixlip.explain("ViT-B-32", "photo.jpg", "a dog")
fixlip.load("demo-clip").dtype + 1
"""


@pytest.fixture(scope="module")
def check(installed, tmp_path_factory):
    """A function that runs mypy on a program, outside the checkout, strictly."""
    pytest.importorskip("mypy", reason="mypy is not installed: pip install 'fixlip[test]'")
    folder = tmp_path_factory.mktemp("outside")
    venv.create(folder / "venv", with_pip=False, symlinks=sys.platform != "win32")
    at = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    python = Path(sysconfig.get_path("scripts", "venv", at)) / Path(sys.executable).name
    site = Path(sysconfig.get_path("purelib", "venv", at))
    shutil.copytree(installed, site, dirs_exist_ok=True)
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # torch, numpy, ...

    def run(text):
        (folder / "program.py").write_text(text, encoding="utf-8")
        # the program says np.ndarray: numpy's oldest types want its parameters
        flags = ["--strict", "--allow-any-generics", f"--python-executable={python}"]
        command = [sys.executable, "-m", "mypy", *flags, "program.py"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_a_users_program_has_the_types_that_it_says(check):
    done = check(PROGRAM.read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_wrong_names_and_arguments_are_found(check):
    """Not by an `Any` in disguise: a module with a ``__getattr__`` has every name."""
    found = check(WRONG).stdout
    for line, message in ((5, '"explian"'), (6, '"sweeep"'), (7, "[arg-type]"), (8, "[operator]")):
        assert any(f"program.py:{line}:" in row and message in row for row in found.splitlines())
    assert "Found 4 errors" in found


def test_the_program_has_every_public_name():
    text = PROGRAM.read_text(encoding="utf-8")
    names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    assert not set(fixlip.__all__) - names


def test_names_are_imported_for_type_checkers_as_for_python():
    tree = ast.parse((ROOT / "fixlip" / "__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and n.test.id == "TYPE_CHECKING")
    seen = {a.name: n.module.split(".")[1] for n in block.body for a in n.names}
    assert seen == fixlip._PUBLIC and sorted(seen) == sorted(fixlip.__all__)

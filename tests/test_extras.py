"""The core does without any extra; a missing one is a sentence with the command that mends it."""

import subprocess
import sys
import textwrap
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fixlip import extras

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IMPORTED_AS = {"open_clip_torch": "open_clip", "pillow": "PIL"}

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def run(code: str, hidden: set[str]) -> subprocess.CompletedProcess:
    """Run code in a process of its own, in which some modules cannot be imported."""
    text = f"HIDDEN = {sorted(hidden)!r}\n{HIDE}\n{textwrap.dedent(code)}"
    command = [sys.executable, "-W", "error", "-c", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def all_else() -> set[str]:
    """Installed modules that belong neither to the core's dependencies nor to fixlip."""
    needed, todo = {"fixlip"}, [Requirement(line) for line in PROJECT["dependencies"]]
    while todo:
        requirement = todo.pop()
        name = requirement.name.lower().replace("_", "-")
        if name in needed or (
            requirement.marker and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        needed.add(name)
        todo += map(Requirement, metadata.requires(name) or [])
    modules = metadata.packages_distributions()
    kept = {m for m in modules if {d.lower().replace("_", "-") for d in modules[m]} & needed}
    return {m for m in modules if m not in kept and m not in sys.stdlib_module_names}


def test_the_core_works_with_all_else_hidden(tmp_path):
    hidden = all_else()
    assert {"open_clip", "pandas", "PIL", "matplotlib", "tqdm"} <= hidden
    done = run(
        f"""
        import torch, fixlip
        class Side:
            n, names = 3, ("a", "b", "c")
            def embed(self, masks):
                return masks.double() @ torch.eye(3, dtype=torch.float64)
        one, two = (fixlip.sweep(Side(), masks=8, progress=True) for _ in range(2))
        e = fixlip.solve(one, two)
        assert abs(e.cross - torch.eye(3).numpy()).max() < 1e-9
        e.save({str(tmp_path / "e.safetensors")!r})
        assert fixlip.Explanation.load({str(tmp_path / "e.safetensors")!r}).players == e.players
        fixlip.estimate(lambda masks: masks.all(1), n=3, masks=8)
        fixlip.advise(Side(), Side(), seconds=1)
        print("done")
        """,
        hidden,
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize(
    ("code", "hidden", "message"),
    [
        ("fixlip.load", "timm", "loading a model needs timm, which is not installed: pip install"),
        ("import fixlip.encoders", "open_clip PIL", "needs open_clip, PIL, which are not"),
        ("import fixlip.data.coco", "pycocotools", "pip install 'fixlip[data]'"),
        ("from fixlip import plots", "matplotlib", "pip install 'fixlip[plots]'"),
        ("import fixlip.metrics", "pandas", "pip install 'fixlip[studies]'"),
        ("from fixlip.studies import study", "filelock", "pip install 'fixlip[studies]'"),
    ],
)
def test_a_missing_extra_is_one_sentence(code, hidden, message):
    done = run(f"import fixlip\n{code}", set(hidden.split()))
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ") and message in last


def test_the_command_names_all_that_is_missing_at_once(tmp_path):
    for out, modules, wanted in (
        ("", "timm, pandas", "open_clip,studies"),
        (f", '--out={tmp_path}'", "timm, pandas, matplotlib", "open_clip,studies,plots"),
    ):
        done = run(
            f"""
            import sys
            from fixlip.cli.main import main
            sys.exit(main(["explain", "a.png", "a dog"{out}]))
            """,
            {"timm", "pandas", "matplotlib"},
        )
        assert (done.returncode, done.stderr) == (
            1,
            f"fixlip: fixlip explain needs {modules}, which are not installed: "
            f"pip install 'fixlip[{wanted}]'\n",
        )


def test_the_table_of_modules_is_that_of_the_project():
    for extra, modules in extras.MODULES.items():
        lines = map(Requirement, PROJECT["optional-dependencies"][extra])
        names = [line.name for line in lines if not line.marker or line.marker.evaluate()]
        imported = {IMPORTED_AS.get(name, name) for name in names} - {"xgboost", "lightgbm"}
        assert extra != "open_clip" or imported - set(modules) == {"tqdm"}  # does without
        assert set(modules) <= imported, extra


def test_the_extra_for_tests_brings_all_others():
    options = PROJECT["optional-dependencies"]
    brought, todo = set(), ["test"]
    while todo:
        extra = todo.pop()
        brought.add(extra)
        for line in map(Requirement, options[extra]):
            todo += [other for other in line.extras if line.name == "fixlip"]
    assert brought == set(options)

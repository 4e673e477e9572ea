"""The prepared GPU run, rehearsed on the CPU in small sizes; `gpu.py` says what it is."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from fixlip.paths import root

SCRIPT = root() / "benchmarks" / "gpu.py"
RESULTS = root() / "benchmarks" / "results"
PARTS = ("tests", "matrix", "solver", "explanation", "encoders", "exclip", "explanation-ViT-B-16")
ABOUT = ["machine", "part", "what", "command", "device", "limit, s", "sizes", "status", "problem"]
ABOUT += ["seconds", "rows"]
REHEARSAL = ("--device", "cpu", "--small", "--out")
COLUMNS = {  # some of every part's
    "tests": {"test", "outcome", "s"},
    "matrix": {"type", "TFLOP/s"},
    "solver": {"players", "masks", "errors", "cpu, s", "times faster", "largest difference"},
    "explanation": {"type", "first, s", "image, s", "text, s", "solver, s", "same bits twice"},
    "encoders": {"model", "tower", "type", "raw, inputs/s", "masked, inputs/s", "masked, TFLOP/s"},
    "exclip": {"model", "steps", "s per step"},
}


def run(*arguments, **environment):
    """Run the script as a stranger would: nothing installed, from another folder."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=root().parent,
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
    )


def results(folder):
    """The content of every file of a run, by part."""
    files = {p.name.removeprefix("gpu-").removesuffix(".json"): p for p in folder.iterdir()}
    return {name: json.loads(path.read_text()) for name, path in files.items()}


@pytest.fixture
def committed():
    """Fails the test if it changes what was measured."""
    before = {p.name: p.stat().st_mtime_ns for p in RESULTS.iterdir()}
    yield
    assert {p.name: p.stat().st_mtime_ns for p in RESULTS.iterdir()} == before


def test_the_plan_takes_eight_minutes_at_most():
    done = run("--plan")
    *limits, total = (int(s) for s in re.findall(r"^ *(\d+) s ", done.stdout, re.MULTILINE))
    assert done.returncode == 0 and len(limits) == 1 + len(PARTS)
    assert sum(limits) == total <= 480
    assert all(re.search(rf" s  {part}: ", done.stdout) for part in PARTS)


@pytest.mark.slow
def test_every_part_runs_in_small_sizes(tmp_path, committed):
    """Limits are wide: this machine may be busy, and imports are most of it."""
    done = run(*REHEARSAL, tmp_path, *(x for part in PARTS for x in ("--limit", f"{part}=200")))
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    assert set(found) == set(PARTS)
    for name, content in found.items():
        assert list(content) == ABOUT
        assert (content["part"], content["status"], content["problem"]) == (name, "done", "")
        assert content["machine"]["torch"] == torch.__version__ and content["device"] == "cpu"
        assert content["rows"], name
        assert f"| {name} | done |" in done.stdout
        for row in content["rows"]:
            assert COLUMNS[name.partition("-ViT")[0]] <= set(row)
    assert {row["outcome"] for row in found["tests"]["rows"]} == {"passed"}
    assert [row["errors"] for row in found["solver"]["rows"]] == [False, True]
    assert {row["type"] for row in found["encoders"]["rows"]} == {"float32", "bfloat16"}
    assert all(row["same bits twice"] for row in found["explanation"]["rows"])


@pytest.mark.slow
def test_a_part_beyond_its_limit_is_stopped_and_the_others_run(tmp_path, committed):
    limits = ("--limit", "solver=0.1", "--limit", "matrix=200")
    done = run(*REHEARSAL, tmp_path, "--parts", "solver", "matrix", *limits)
    assert done.returncode == 1
    found = results(tmp_path)
    assert found["solver"]["status"] == "stopped" and found["solver"]["rows"] == []
    assert found["solver"]["problem"] == "not finished after 0.1 s"
    assert found["matrix"]["status"] == "done" and len(found["matrix"]["rows"]) == 5
    assert "| solver | stopped |" in done.stdout


@pytest.mark.slow
def test_a_missing_package_is_named_and_the_core_does_without(tmp_path, committed):
    """A Python whose torch is all there is: open_clip cannot be imported."""
    hidden = tmp_path / "site"
    hidden.mkdir()
    hide = "import sys; sys.modules['open_clip'] = None\n"
    (hidden / "sitecustomize.py").write_text(hide)
    out, wide = tmp_path / "out", ("--limit", "solver=200", "--limit", "exclip=200")
    done = run(*REHEARSAL, out, "--parts", "exclip", "solver", *wide, PYTHONPATH=str(hidden))
    assert done.returncode == 1
    found = results(out)
    assert found["exclip"]["status"] == "not run"
    assert found["exclip"]["problem"] == (
        f"the package open_clip is missing for {sys.executable} (pip install open_clip_torch)"
    )
    assert found["exclip"]["problem"] in done.stdout
    assert found["solver"]["status"] == "done"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_clear_sentence(tmp_path):
    done = run("--out", tmp_path)
    assert done.returncode == 2 and not done.stdout and not list(tmp_path.iterdir())
    assert done.stderr.count("\n") == 1 and "there is no CUDA GPU that torch" in done.stderr


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("--small",), "give --out another folder"),
        (("--device", "cpu"), "give --out another folder"),
        (("--limit", "solvers=3"), "no part is called 'solvers'"),
        (("--limit", "solver"), "give PART=SECONDS"),
        (("--parts", "all"), "invalid choice: 'all'"),
    ],
)
def test_misuse(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr

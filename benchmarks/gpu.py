"""One run on a CUDA GPU, of eight minutes at most: the tests marked gpu, and the rates there.

    python benchmarks/gpu.py                      every part; results/gpu-PART.json
    python benchmarks/gpu.py --plan               the parts and their time limits
    python benchmarks/gpu.py --parts tests solver
    python benchmarks/gpu.py --device cpu --small --out FOLDER     a rehearsal in small sizes

Needs no installation and no network: any Python with torch will do, and a part says which package
it lacks. Weights are random, which takes as long as trained ones. Every part runs in a process of
its own. Its file is written as soon as the part has ended; a part that exceeds its limit is stopped
and recorded as such, with the rows that it had given. The exit status is 0 if all parts ended well,
1 if one did not, and 2 where nothing could be run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TOTAL = 480  # seconds, start and end included
START = 30  # seconds for importing torch, describing the machine, and printing
LEAST = 5  # seconds that must be left for a part to be started
ROW = "row of the results: "  # what a part prints before each
DISTRIBUTIONS = {"open_clip": "open_clip_torch", "PIL": "pillow"}  # where pip has another name
TYPES = ("float32", "bfloat16")


class Part(NamedTuple):
    """One part of the run: a time limit, what it does, its sizes, and those of a rehearsal."""

    limit: int  # seconds
    what: str
    run: Callable[[str, dict], None]
    sizes: dict[str, Any]
    small: dict[str, Any]


# --- parts: each prints its rows ----------------------------------------------------------------


def tests(device: str, sizes: dict) -> None:
    """The tests marked gpu; without open_clip, those of the core alone."""
    import pytest

    files = [path for room in sizes["rooms"] for path in ROOT.glob(f"tests/{room}/test_gpu.py")]
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    options += ["-o", "filterwarnings="]  # of other versions than those of the lock
    options += ["-c", str(ROOT / "pyproject.toml"), "-m", "gpu" if device == "cuda" else "not gpu"]
    if importlib.util.find_spec("open_clip") is None:
        for path in [path for path in files if path.parent.name not in sizes["core"]]:
            files.remove(path)
            row = {"test": _relative(path), "outcome": "not run", "why": _missing("open_clip")}
            report(row)
        options.append("--noconftest")  # its fixtures are models

    class Recorder:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "call" or report.outcome != "passed":
                record(report)

    def record(found: pytest.TestReport) -> None:
        lines = str(found.longrepr[2] if found.skipped else found.longreprtext).splitlines()
        row = {"test": found.nodeid, "outcome": found.outcome, "s": round(found.duration, 2)}
        report(row | ({"why": lines[-1]} if lines else {}))

    status = pytest.main([*options, *map(str, sorted(files))], plugins=[Recorder()])
    if status:
        raise SystemExit(f"pytest ended with {pytest.ExitCode(status).name}")


def matrix(device: str, sizes: dict) -> None:
    """Arithmetic per second of one large matrix product in each type."""
    import torch
    from machine import matrix_rate

    def measure(name: str, dtype: torch.dtype) -> None:
        rate = matrix_rate(torch.device(device), dtype, sizes["size"])
        report({"type": name, "size": sizes["size"], "TFLOP/s": _digits(rate / 1e12)})

    for name in ("float64", *TYPES, "float16"):
        measure(name, getattr(torch, name))
    torch.backends.cuda.matmul.allow_tf32 = True
    measure("float32, TF32 allowed", torch.float32)


def solver(device: str, sizes: dict) -> None:
    """Solving of the same sweeps on the CPU and on the device: seconds, memory, difference."""
    from dataclasses import replace
    from statistics import median

    import numpy as np
    import torch
    from machine import wait
    from solver import Smooth

    import fixlip
    from fixlip.sampler import draw

    there = torch.device(device)

    def timed(swept: list, place: torch.device, *, errors: bool) -> tuple[Any, float]:
        wait(place)
        start = time.perf_counter()
        explanation = fixlip.solve(*swept, errors=errors)
        wait(place)
        return explanation, time.perf_counter() - start

    for players, masks, width, sampling in sizes["cases"]:
        swept = []
        for k, (n, m) in enumerate(zip(players, masks, strict=True)):
            sample = draw(n, m, seed=sizes["seed"] + k, sampling=sampling)
            swept.append(fixlip.sweep(Smooth(n, width, k), masks=sample, progress=False))
        moved = [
            replace(s, embeddings=s.embeddings.to(there), ends=s.ends.to(there)) for s in swept
        ]
        for errors in (False, True):
            exact, on_cpu = timed(swept, torch.device("cpu"), errors=errors)  # once: it takes long
            before = _reset_peak(there)
            found, first = timed(moved, there, errors=errors)
            later = median(timed(moved, there, errors=errors)[1] for _ in range(sizes["repeats"]))
            row = {
                "players": _sum(players),
                "masks": _sum(masks),
                "values": round(float(np.log2(masks[0] * masks[1])), 3),
                "width": width,
                "sampling": sampling,
                "errors": errors,
                "cpu, s": _digits(on_cpu),
                f"{device}, first, s": _digits(first),
                f"{device}, s": _digits(later),
                "times faster": _digits(on_cpu / later),
                "largest difference": _difference(found.e2, exact.e2),
            }
            if errors:
                row["of errors"] = _difference(found.stderr.e2, exact.stderr.e2)
            report(row | _peak(there, before))


def explanation(device: str, sizes: dict) -> None:
    """`fixlip.explain` from image and caption to all terms with errors: the time, and where."""
    import numpy as np
    import torch
    from explanation import measure, pair
    from machine import wait
    from towers import load

    import fixlip

    for dtype in sizes["types"]:
        encoder, loading = _timed(lambda dtype=dtype: load(sizes["model"], device, dtype))
        before = _reset_peak(encoder.device)
        masks = sizes["masks"]
        options = {"seed": sizes["seed"], "progress": False}
        if masks:  # else the default ones
            options["masks"] = tuple(masks)

        def explain(encoder=encoder, options=options) -> Any:
            found = fixlip.explain(encoder, *pair(sizes["words"]), **options)
            wait(encoder.device)
            return found

        one, first = _timed(explain)
        two, second = _timed(explain)
        peak = _peak(encoder.device, before)
        used = [one.info[kind]["masks"] for kind in ("image", "text")]
        split = measure(encoder, sizes["words"], used, seed=sizes["seed"], size=sizes["matrix"])
        report(
            {
                "model": sizes["model"],
                "type": dtype,
                "players": _sum([one.n_image, one.n_text]),
                "masks": _sum(used),
                "values": round(float(np.log2(used[0] * used[1])), 3),
                "loading, s": _digits(loading),
                "first, s": _digits(first),
                "second, s": _digits(second),
                "image, s": _digits(split["encoders"][0]),
                "text, s": _digits(split["encoders"][1]),
                "solver, s": _digits(split["solver"]),
                "of the matrix rate": _digits(split["of the matrix rate"]),
                "same bits twice": all(
                    np.array_equal(x, y)
                    for x, y in ((one.e1, two.e1), (one.e2, two.e2), (one.stderr.e2, two.stderr.e2))
                ),
            }
            | peak
        )
        del encoder, explain, one, two, split
        if device == "cuda":
            torch.cuda.empty_cache()


def encoders(device: str, sizes: dict) -> None:
    """Masked towers against open_clip's raw ones on as many inputs, and the matrix rate."""
    import numpy as np
    import torch
    from encoder import measure
    from towers import load

    from fixlip.encoders import Encoder

    for name, most in sizes["models"]:
        loaded = load(name, device, "float32")
        for dtype in sizes["types"]:
            encoder = loaded
            if dtype != "float32":  # the same weights, as half precision keeps them in float32
                encoder = Encoder(
                    loaded.model,
                    loaded.tokenizer,
                    name=name,
                    device=loaded.device,
                    dtype=getattr(torch, dtype),
                )
            for kind in ("image", "text") if dtype == "float32" else ("image",):
                before = _reset_peak(loaded.device)
                found = measure(
                    encoder, kind, most=most, repeats=sizes["repeats"], size=sizes["matrix"]
                )
                raw, masked = np.median(found["seconds"], axis=0)
                report(
                    {
                        "model": name,
                        "tower": kind,
                        "type": found["type"],
                        "inputs": found["inputs"],
                        "raw, inputs/s": _digits(found["inputs"] / raw),
                        "masked, inputs/s": _digits(found["inputs"] / masked),
                        "masked / raw, time": _digits(masked / raw),
                        "masked, TFLOP/s": _digits(found["rate"] / 1e12),
                        "matrix product, TFLOP/s": _digits(found["matrix rate"] / 1e12),
                        "of the matrix rate": _digits(found["rate"] / found["matrix rate"]),
                    }
                    | _peak(loaded.device, before)
                )


def exclip(device: str, sizes: dict) -> None:
    """exCLIP's factor of one image: seconds per step, and memory."""
    from exclip import factor
    from towers import load

    for name in sizes["models"]:
        encoder = load(name, device, "float32")
        factor(encoder, "image", 1)  # loads what torch needs for derivatives
        for memory in sizes["memory, GiB"]:
            before = _reset_peak(encoder.device)
            found, seconds = factor(encoder, "image", sizes["steps"], memory=memory)
            row = {
                "model": name,
                "steps": sizes["steps"],
                "passes per step": found.n + len(found.special_names),
                "memory=": memory,
                "s per step": _digits(seconds / sizes["steps"]),
            }
            report(row | _peak(encoder.device, before))


# --- what parts share ---------------------------------------------------------------------------


def report(row: dict) -> None:
    """Hand a row to the process that started this one."""
    print(f"\n{ROW}{json.dumps(row)}", flush=True)


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def _digits(number: float) -> float:
    """Four significant digits."""
    return float(f"{number:.4g}")


def _sum(both: list[int]) -> str:
    """Numbers of the image and the text side, as "49 + 12"."""
    return " + ".join(map(str, both))


def _difference(found: Any, exact: Any) -> float:
    """The largest difference, relative to the largest number."""
    return float(f"{abs(found - exact).max() / abs(exact).max():.1e}")


def _reset_peak(device: Any) -> int:
    """Forget the peak of a GPU's memory; what is held now, in bytes."""
    import torch

    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: Any, before: int) -> dict[str, float]:
    """Peak memory since `_reset_peak`: beyond what was held then, and in all; of a CPU nothing."""
    import torch

    if device.type != "cuda":
        return {}
    peak = torch.cuda.max_memory_allocated(device)
    reserved = torch.cuda.max_memory_reserved(device)
    return {
        "added, GiB": _digits((peak - before) / 2**30),
        "peak, GiB": _digits(peak / 2**30),
        "reserved, GiB": _digits(reserved / 2**30),
    }


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _missing(module: str) -> str:
    """What to say of a package that cannot be imported."""
    package = DISTRIBUTIONS.get(module, module)
    return f"the package {module} is missing for {sys.executable} (pip install {package})"


CORE = ["sampler", "solver"]
LARGE = "ViT-L-16-SigLIP2-256"
_EXPLAINED = {"types": TYPES, "words": 12, "masks": None, "seed": 0, "matrix": 8192}
_FEW = {"model": "demo-clip", "words": 4, "masks": [32, 8], "matrix": 64}
PARTS = {
    "tests": Part(
        80,
        "the tests marked gpu",
        tests,
        {"rooms": [*CORE, "encoders", "explainers"], "core": CORE},
        {"rooms": CORE[:1], "core": CORE},
    ),
    "matrix": Part(25, "the card's rate in each type", matrix, {"size": 8192}, {"size": 64}),
    "solver": Part(
        70,
        "solving 2^19 game values, CPU and GPU",
        solver,
        {
            "cases": [
                [[49, 12], [4096, 128], 512, "antithetic"],
                [[49, 12], [4405, 119], 512, "distinct"],  # split as in the FIxLIP experiments
                [[256, 64], [4096, 1024], 1024, "antithetic"],
            ],
            "repeats": 3,
            "seed": 0,
        },
        {"cases": [[[6, 4], [48, 10], 16, "antithetic"]], "repeats": 1, "seed": 0},
    ),
    "explanation": Part(
        45,
        "one explanation with ViT-B-32, end to end",
        explanation,
        {"model": "ViT-B-32", **_EXPLAINED},
        {**_EXPLAINED, **_FEW},
    ),
    "encoders": Part(
        130,
        "masked towers against raw ones",
        encoders,
        {
            "models": [["ViT-B-32", 2048], ["ViT-B-16", 1024], [LARGE, 512]],  # inputs at once
            "types": TYPES,
            "repeats": 3,
            "matrix": 8192,
        },
        {"models": [["demo-clip", 2]], "types": TYPES, "repeats": 1, "matrix": 64},
    ),
    "exclip": Part(
        50,
        "one factor of exCLIP",
        exclip,
        {"models": ["ViT-B-32", "ViT-B-16"], "steps": 10, "memory, GiB": [0.25, 4]},
        {"models": ["demo-clip"], "steps": 1, "memory, GiB": [0.25]},
    ),
    "explanation-ViT-B-16": Part(
        50,
        "one explanation with ViT-B-16, if time is left",
        explanation,
        {"model": "ViT-B-16", **_EXPLAINED},
        {**_EXPLAINED, **_FEW, "types": TYPES[:1]},
    ),
}


# --- running them -------------------------------------------------------------------------------


def run_apart(name: str, device: str, small: bool, limit: float) -> dict:
    """Run a part in a process of its own: status, seconds, rows, and what went wrong."""
    command = [sys.executable, __file__, "--one", name, "--device", device]
    command += ["--small"] * small
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            seconds = time.monotonic() - start
            _end(process)
        said, complaint = (_text(file) for file in (output, errors))
    lines = said.splitlines()
    rows = [json.loads(line.removeprefix(ROW)) for line in lines if line.startswith(ROW)]
    status, problem = "done", ""
    if code is None:
        status, problem = "stopped", f"not finished after {limit:.3g} s"
    elif code:
        *_, problem = ["", *complaint.strip().splitlines()]
        problem = problem or f"the process ended with status {code}"
        status = "not run" if problem.startswith("the package ") else "failed"
    if status == "failed":
        print(said[-3000:] + complaint[-3000:], file=sys.stderr)
    return {"status": status, "problem": problem, "seconds": round(seconds, 1), "rows": rows}


def _end(process: subprocess.Popen) -> None:
    """End a part and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _text(file: Any) -> str:
    file.seek(0)
    return file.read()


def one(name: str, device: str, small: bool) -> None:
    """Run a part in this process; a missing package ends it with one sentence."""
    part = PARTS[name]
    try:
        part.run(device, part.small if small else part.sizes)
    except ModuleNotFoundError as error:
        raise SystemExit(_missing((error.name or str(error)).partition(".")[0])) from None


def plan() -> str:
    """The parts with their limits, in seconds."""
    lines = [f"{START:4d} s  start and end"]
    lines += [f"{part.limit:4d} s  {name}: {part.what}" for name, part in PARTS.items()]
    total = START + sum(part.limit for part in PARTS.values())
    return "\n".join([*lines, f"{total:4d} s  in all, at most"])


def _limit(text: str) -> tuple[str, float]:
    """Read PART=SECONDS."""
    name, _, seconds = text.partition("=")
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"no part is called {name!r}: {', '.join(PARTS)}")
    try:
        return name, float(seconds)
    except ValueError:
        raise argparse.ArgumentTypeError(f"give PART=SECONDS, got {text!r}") from None


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", action="store_true", help="print the parts and their limits")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a rehearsal: few masks, a demo model")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--limit", type=_limit, action="append", default=[], metavar="PART=SECONDS")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rehearsal = options.small or options.device == "cpu"
    if rehearsal and not options.one and options.out.resolve() == RESULTS:
        parser.error("--small and --device cpu do not measure a GPU: give --out another folder")
    return options


def main() -> int:
    """Run the parts one after the other."""
    began = time.monotonic()
    options = arguments()
    if options.plan:
        print(plan())
        return 0
    if options.one:
        one(options.one, options.device, options.small)
        return 0
    sys.path.insert(0, str(ROOT))
    try:
        import torch
        from machine import describe, save, table
    except ModuleNotFoundError as error:
        print(f"nothing was run: {_missing(error.name or '')}", file=sys.stderr)
        return 2
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            f"there is no CUDA GPU that torch {torch.__version__} can use here, so nothing was run",
            file=sys.stderr,
        )
        return 2
    machine = {**describe(), **_versions()}
    command = shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    print(f"{machine['gpu']}, torch {machine['torch']}; {len(options.parts)} parts", flush=True)
    limits = {name: part.limit for name, part in PARTS.items()} | dict(options.limit)
    ended = []
    for name in options.parts:
        left = TOTAL - (time.monotonic() - began) - LEAST
        limit = min(limits[name], left)
        if left < LEAST:
            problem = f"less than {LEAST} s of {TOTAL} were left"
            found = {"status": "not run", "problem": problem, "seconds": 0, "rows": []}
        else:
            print(f"{name} ({limit:.3g} s at most) ...", flush=True)
            found = run_apart(name, options.device, options.small, limit)
        part = PARTS[name]
        about = {
            "machine": machine,
            "part": name,
            "what": part.what,
            "command": command,
            "device": options.device,
            "limit, s": round(limit, 1),
            "sizes": part.small if options.small else part.sizes,
        }
        save(options.out / f"gpu-{name}.json", about | found)
        shown = [row for row in found["rows"] if row.get("outcome") != "passed"]
        if shown:
            print(table(shown))
        end = {"part": name, "status": found["status"], "seconds": found["seconds"]}
        end |= {"limit": f"{limit:.3g}", "rows": len(found["rows"]), "problem": found["problem"]}
        ended.append(end)
    print(f"\n{table(ended)}\n{time.monotonic() - began:.0f} s in all; files in {options.out}")
    return int(any(row["status"] != "done" for row in ended))


def _versions() -> dict[str, str]:
    """Versions of what the towers and the solver are made of."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for module in ("numpy", "scipy", "torchvision", "open_clip", "timm"):
        try:
            found[module] = version(DISTRIBUTIONS.get(module, module))
        except PackageNotFoundError:
            found[module] = "none"
    return found


if __name__ == "__main__":
    sys.exit(main())

"""What the benchmarks share: the machine and its speed, fresh processes, files of results."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from fixlip.files import atomic

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, str | int | float]:
    """The machine that the numbers belong to."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.is_file() else [])
        if line.startswith("model name")
    ]
    described = {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if torch.cuda.is_available():
        described |= {
            "gpu": torch.cuda.get_device_name(),
            "gpu memory, GiB": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
            "driver": _driver(),
            "cuda": torch.version.cuda or "none",
        }
    return described


def _driver() -> str:
    """The version of the NVIDIA driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return answer.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def wait(device: torch.device) -> None:
    """Let a GPU finish what is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Arithmetic operations per second of a large matrix product, the best of five."""
    size = size or (8192 if device.type == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):  # the first one warms up
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:])


def peak_memory(device: torch.device) -> int:
    """Most memory that this process has held, in bytes: of the GPU, else on Linux and macOS."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    import resource  # Windows has no such module

    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def apart(script: str, *arguments: object) -> dict:
    """Run ``python SCRIPT --one ARGUMENTS`` in a fresh process; its last line is the result."""
    command = [sys.executable, script, "--one", json.dumps(arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table; the columns are those of all rows, in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(c, "")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def save(path: Path, content: dict) -> None:
    """Write one file of results, whole or not at all."""
    with atomic(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def write(name: str, rows: list[dict]) -> None:
    """Print rows as a Markdown table and write them, with the machine, to results/NAME.json."""
    print(table(rows))
    save(RESULTS / f"{name}.json", {"machine": describe(), "rows": rows})

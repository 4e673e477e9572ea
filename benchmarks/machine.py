"""What the benchmarks share: a description of the machine, and one JSON file per benchmark."""

import json
import os
import platform
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, str | int]:
    """The machine that the numbers belong to."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.is_file() else [])
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(name: str, rows: list[dict]) -> None:
    """Print rows as a Markdown table and write them, with the machine, to results/NAME.json."""
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": describe(), "rows": rows}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")

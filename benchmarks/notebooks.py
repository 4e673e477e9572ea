"""How long each notebook takes: `notebooks/run.py figures`, one after another, on the defaults.

    python benchmarks/notebooks.py

Results go to results/notebooks.json; `benchmarks/tables.py` puts them on the page.
"""

import argparse
import re
import subprocess
import sys

from machine import write

from fixlip.paths import root

LINE = re.compile(r"\[\d+/\d+\] (\w+) \.\.\. (\w+), ([\d.]+) s")


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows, command = [], [sys.executable, "notebooks/run.py", "figures", "--workers", "1"]
    with subprocess.Popen(command, cwd=root(), stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout:
            print(line, end="", flush=True)
            if found := LINE.match(line):
                name, state, seconds = found.groups()
                if state != "ok":
                    sys.exit(f"{name} failed")
                rows.append({"notebook": name, "minutes": f"{float(seconds) / 60:.1f}"})
    write("notebooks", rows)


if __name__ == "__main__":
    main()

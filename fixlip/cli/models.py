"""The models that can be explained: a table that ``benchmarks/architectures.py`` measured."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

from fixlip.cli.one import print_table

COLUMNS = ("name", "image players", "text positions", "masks")


def show(options: argparse.Namespace) -> int:
    """Print those whose names contain a text."""
    text = Path(__file__).with_name("models.json").read_text(encoding="utf-8")
    rows = [row for row in json.loads(text) if options.name.lower() in row["name"].lower()]
    if options.json:
        print(json.dumps(rows, indent=1))
    elif options.csv:
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif rows:
        cells = [tuple(str(row[name] or "-") for name in COLUMNS) for row in rows]
        print_table([COLUMNS, *cells], left=(0, 3))
        print(
            "image players: patches; text positions: tokens, start and end included; masks: exact, "
            "or why a model is refused"
        )
    if not rows:
        print(f"fixlip: no model has {options.name!r} in its name", file=sys.stderr)
    return 0 if rows else 1

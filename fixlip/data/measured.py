"""Tables that take minutes to compute: read from ``data/`` of the checkout, or computed anew."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from fixlip.files import atomic
from fixlip.paths import output, root

DIGITS = 5  # significant ones that are kept
Cell = float | int | str | bool | list[Any] | None


def measured(
    name: str,
    compute: Callable[[], pd.DataFrame],
    *,
    settings: Mapping[str, Cell],
    command: str,
    recompute: bool = False,
) -> pd.DataFrame:
    """Return the table that a file of ``data/`` holds, or compute it where the file does not apply.

    Floats have 5 significant digits in either case.

    Parameters
    ----------
    name, command : str
        The file is ``data/name.json``; how it is made, which stands in it.
    compute : callable
        Makes the table: cells are numbers, strings, booleans, None, or lists of these.
    settings : mapping
        Everything that the table depends on: model, seed, p, numbers of masks, and so on. The file
        applies where it has exactly these.
    recompute : bool
        Compute in any case, and write the file to ``data/name.json`` below the folder of
        `fixlip.paths.output`. (``python notebooks/run.py data`` moves it to its place.)

    Examples
    --------
    >>> def compute():
    ...     return pd.DataFrame({"masks": [64, 128], "error": [1 / 3, 1 / 7]})
    >>> measured("no such file", compute, settings={"seed": 0}, command="none")
       masks    error
    0     64  0.33333
    1    128  0.14286
    """
    settings = json.loads(json.dumps(dict(settings)))  # tuples are lists, as in the file
    found = None if recompute else _stored(name, settings)
    if found is None:
        table = compute()
        rows = [[_rounded(cell) for cell in row] for row in table.itertuples(index=False)]
        found = {"command": command, "settings": settings, "columns": [*table]} | {"rows": rows}
        found = json.loads(_text(found))
        if recompute:
            with atomic(output(f"data/{name}.json")) as file:
                file.write(_text(found).encode())
    return pd.DataFrame(found["rows"], columns=found["columns"])


def _stored(name: str, settings: dict) -> dict | None:
    """The file's content where it was made with these settings."""
    path = root() / "data" / f"{name}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if found["settings"] == settings else None


def _rounded(cell: Cell) -> Cell:
    if isinstance(cell, list | tuple):
        return [_rounded(item) for item in cell]
    if hasattr(cell, "item"):  # a number of numpy
        cell = cell.item()
    if isinstance(cell, float):
        return float(f"{cell:.{DIGITS}g}") if math.isfinite(cell) else None
    return cell


def _text(found: dict) -> str:
    """JSON with one row of the table on a line."""
    rows = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in found["rows"])
    head = json.dumps(found | {"rows": []}, ensure_ascii=False, indent=1)
    return head.removesuffix("[]\n}") + "[\n  " + ",\n  ".join(rows) + "\n ]\n}\n"

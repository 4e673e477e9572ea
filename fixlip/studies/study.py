"""Map a function over many items: stored item by item, resumable, shared by processes.

    study(measure, examples, folder="runs/measure", constants={"encoder": encoder})

Every finished item is one JSON file whose name is a hash of everything that determines its rows
(`fixlip.studies.fingerprints`): the item, the constants and the code. An item whose file exists is
not computed again, so that a study that was stopped, killed or extended goes on where it was. Where
anything that determines the rows has changed, the file has another name and the item is computed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from numbers import Real
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import tqdm.auto

from fixlip.checks import integer, out_of_memory, warn
from fixlip.files import user_path
from fixlip.studies.fingerprints import fingerprint
from fixlip.studies.store import FORMAT, Folder, Nowhere

PATH = re.compile(
    r"(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\](?:[^/\\'\":\s]+[/\\])+(?P<name>[^/\\'\":\s]*)"
)
QUIET = 60.0  # seconds between two lines of progress where there is no terminal
Row = dict[str, "float | int | str | bool | None"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Study:
    """The results of a function for every item.

    Attributes
    ----------
    table, failures : pandas.DataFrame
        The item's own columns and then those of the rows, in the order of the items; or ``error``
        (type and message) and ``where`` (the innermost calls).
    items, computed : int
        Number of items, and number of those for which this call ran the function.
    """

    table: pd.DataFrame
    failures: pd.DataFrame
    items: int
    computed: int

    def summary(self) -> str:
        """Numbers of items that are done, failed, computed now, and stored before."""
        failed = len(self.failures)
        return (
            f"{self.items} items: {self.items - failed} done and {failed} failed; "
            f"{self.computed} computed now, {self.items - self.computed} kept"
        )

    __repr__ = summary


def study(
    function: Callable[..., Any],
    items: Iterable[Any],
    *,
    folder: str | os.PathLike[str] | None = None,
    constants: Mapping[str, Any] | None = None,
    shard: tuple[int, int] = (0, 1),
    retry: bool = False,
    progress: bool | None = None,
) -> Study:
    """Call ``function(item, **constants)`` for every item, and put the rows in one table.

    Several processes may run the same study on one folder at once: they share the items, compute
    none twice, and each returns the full table. A process may be killed at any moment. An error of
    the function does not stop the study: it is listed in ``failures``, and one warning at the end
    counts them. Raises TypeError or ValueError where the function cannot be called like this, or
    something that determines its rows has no fingerprint (see `fixlip.studies.fingerprints`).

    Parameters
    ----------
    function : callable
        Returns one row, a mapping from names of columns to numbers, strings, booleans or None; or
        several rows, as a sequence or a DataFrame. It may be defined in a notebook. What it reads
        determines the rows as well, with the values that there are when the study begins.
    items : iterable
        Strings, numbers or Paths, which become the column ``item``; or mappings or dataclasses,
        whose numbers, strings and Paths (by their names) become columns of their own. Any other
        item is numbered.
    folder, constants : str or os.PathLike, mapping; optional
        Where to store the results (those of other code or other constants stay there); further
        arguments, the same for all items, such as an encoder.
    shard : (int, int)
        (i, n): compute only the i-th of n parts, i from 0, for instance in one job of an array.
        Afterwards the same call without it reads all parts.
    retry : bool
        Compute failed items again. Otherwise an item that failed stays failed, unless something
        that determines it has changed (the code, a constant, the file of a Path). Errors that may
        pass by themselves are never stored, so that their items are always computed again: a
        missing file, a lack of memory, of disk space or of a connection.
    progress : bool, optional
        By default a bar on a terminal, and elsewhere, such as in a notebook that `run.py` executes,
        the same as a line every minute. True: a bar, in Jupyter its own; False: nothing.

    Examples
    --------
    >>> def measure(word, *, times):
    ...     return {"length": times * len(word)}
    >>> study(measure, ["dog", "star"], constants={"times": 2}).table
       item  length
    0   dog       6
    1  star       8
    """
    if not isinstance(constants, Mapping | None):
        raise TypeError(f"constants must be a dict of arguments, got {type(constants).__name__}")
    items, constants = _items(items), dict(constants or {})
    _check_call(function, constants)
    mine = slice(_first(shard), None, shard[1])
    labels = [_label(item, number) for number, item in enumerate(items)][mine]
    items = items[mine]
    names, store = _names(function, items, constants, folder), Nowhere()
    if folder is not None:
        of = getattr(function, "__qualname__", type(function).__name__)
        store = Folder(user_path(folder), of)
        store.clear(names if retry else [])
    kept = {name: found for name in dict.fromkeys(names) if (found := store.find(name))}
    todo: dict[str, int] = {}  # the first item of each name that is not there yet
    for i, name in enumerate(names):
        if name not in kept:
            todo.setdefault(name, i)
    if todo:
        store.check()
    computed = 0
    seldom = progress is None and not sys.stderr.isatty()
    bar = (tqdm.tqdm if progress is None else tqdm.auto.tqdm)(
        total=len({*names}),
        initial=len(kept),  # the time left is estimated from the items computed in this call
        desc="items",
        smoothing=0,
        disable=progress is False,
        miniters=1,
        mininterval=QUIET if seldom else 0.1,
        delay=QUIET if seldom else 0.0,
    )
    try:
        with bar:
            for wait in (False, True):  # items of other processes are looked at again at the end
                for name, i in list(todo.items()):
                    with store.lock(name, wait) as held:
                        if not held:
                            continue
                        outcome = store.find(name)
                        if outcome is None:
                            outcome = _outcome(function, items[i], constants, labels[i])
                            store.keep(name, outcome, labels[i])
                            computed += 1
                        kept[name] = outcome
                    del todo[name]
                    bar.update()
    except KeyboardInterrupt:
        done = sum(name in kept for name in names)
        where = "nothing is kept without folder=" if folder is None else "they are kept"
        print(f"stopped: {done} of {len(names)} items are done, and {where}", file=sys.stderr)
        raise
    outcomes = [kept[name] for name in names]
    result = Study(_table(labels, outcomes), _failures(labels, outcomes), len(items), computed)
    _warn(result)
    return result


# --- what goes in ------------------------------------------------------------------------------


def _items(items: Iterable[Any]) -> list:
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f"items must be a sequence of items, got {type(items).__name__}")
    return items.to_dict("records") if isinstance(items, pd.DataFrame) else list(items)


def _check_call(function: Callable, constants: dict) -> None:
    if not callable(function):
        raise TypeError(f"the first argument must be a function, got {type(function).__name__}")
    try:
        inspect.signature(function).bind(None, **constants)
    except TypeError as error:
        given = ", ".join(f"{name}=..." for name in constants)
        raise TypeError(
            f"the function must take one item and the constants ({given or 'none'}): {error}"
        ) from None
    except ValueError:  # functions in C without a signature
        pass


def _first(shard: tuple[int, int]) -> int:
    """The first item of a part, after checking."""
    try:
        first, parts = (integer("shard", x, at_least=0) for x in shard)
    except (TypeError, ValueError):
        first = parts = 0
    if not first < parts:
        raise ValueError(f"shard must be (i, n) with 0 <= i < n, got {shard!r}")
    return first


def _names(function: Callable, items: list, constants: dict, folder: object) -> list[str]:
    """One name per item: with a folder, the hash of everything that determines its rows."""
    if folder is None:
        return [str(i) for i in range(len(items))]
    method = [fingerprint(function, "the function")]
    for name, value in sorted(constants.items()):
        method += [name, fingerprint(value, f"the constant {name!r}")]
    each = (fingerprint(item, f"items[{i}]") for i, item in enumerate(items))
    return [hashlib.sha256(f"{FORMAT} {method} {one}".encode()).hexdigest()[:32] for one in each]


def _label(item: Any, number: int) -> Row:
    """The columns that identify an item."""
    if dataclasses.is_dataclass(item):
        item = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    elif isinstance(item, tuple) and hasattr(item, "_fields"):
        item = item._asdict()
    elif not isinstance(item, Mapping):
        item = {"item": str(item) if isinstance(item, tuple) else item}
    plain = {}
    for name, value in item.items():
        value = value.name if isinstance(value, PurePath) else value
        with contextlib.suppress(TypeError):
            plain[str(name)] = _cell(value)
    return plain or {"item": number}


# --- what comes out ----------------------------------------------------------------------------


def _outcome(function: Callable, item: Any, constants: dict, label: Row) -> dict:
    """{"rows": ...}, or {"error": ..., "where": ...} for a function that fails."""
    try:
        return {"rows": _rows(function(item, **constants), label)}
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        message = PATH.sub(r"\g<name>", lines[0])[:300]  # without the folders of this machine
        calls = traceback.extract_tb(error.__traceback__)[1:][-4:]
        where = [f"{_file_name(call.filename)}:{call.lineno} in {call.name}" for call in calls]
        return {
            "error": f"{type(error).__name__}: {message}",
            "where": " > ".join(where),
            "passing": _is_passing(error),
        }


def _file_name(path: str) -> str:
    """A file's name; the files of notebook cells have other names each time."""
    return "cell" if "ipykernel" in path or path.startswith("<") else Path(path).name


def _is_passing(error: Exception) -> bool:
    """Whether an error may pass by itself, because its cause is not in the item."""
    moments = (ConnectionError, FileNotFoundError, TimeoutError)
    full = getattr(error, "errno", None) in (errno.EIO, errno.EMFILE, errno.ENOMEM, errno.ENOSPC)
    return isinstance(error, moments) or full or "CUDA error" in str(error) or out_of_memory(error)


def _rows(result: Any, label: Row) -> list[Row]:
    """Rows as plain Python numbers and strings, after checking them."""
    if isinstance(result, pd.DataFrame):
        result = result.to_dict("records")
    rows = [result] if isinstance(result, Mapping) else result
    single = isinstance(rows, str) or getattr(rows, "shape", None) == ()
    if single or not isinstance(rows, Iterable):
        raise TypeError(
            f"the function returned {type(result).__name__}: it must return a row, which is a dict "
            "of columns, or a list of rows"
        )
    return [_row(row, label) for row in rows]


def _row(row: Any, label: Row) -> Row:
    if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
        raise TypeError(
            f"the function returned the row {row!r:.80}: a row must be a dict of columns"
        )
    plain = {}
    for name, value in row.items():
        try:
            plain[name] = _cell(value)
        except TypeError as error:
            raise TypeError(f"the column {name!r} holds {error}") from None
        if name in label and repr(label[name]) != repr(plain[name]):
            raise ValueError(
                f"the row says {name}={plain[name]!r}, and the item itself {name}={label[name]!r}: "
                "give the row's column another name"
            )
    return plain


def _cell(value: Any) -> float | int | str | bool | None:
    """A number, string, boolean or None as Python's own."""
    if isinstance(value, np.generic) or getattr(value, "shape", None) == ():
        value = value.item()
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Real | Decimal):
        return float(value)
    if value is not None:
        raise TypeError(f"{type(value).__name__}; expected numbers, strings, booleans or None")
    return None


def _table(labels: list[Row], outcomes: list[dict]) -> pd.DataFrame:
    pairs = zip(labels, outcomes, strict=True)
    rows = [label | row for label, outcome in pairs for row in outcome.get("rows", [])]
    first = dict.fromkeys(name for label in labels for name in label)
    columns = dict.fromkeys([*first, *(name for row in rows for name in row)])
    return pd.DataFrame(rows, columns=[*columns])


def _failures(labels: list[Row], outcomes: list[dict]) -> pd.DataFrame:
    pairs = zip(labels, outcomes, strict=True)
    rows = [
        label | {"error": o["error"], "where": o["where"]} for label, o in pairs if "error" in o
    ]
    first = dict.fromkeys(name for label in labels for name in label)
    return pd.DataFrame(rows, columns=[*first, "error", "where"])


def _warn(result: Study) -> None:
    """Give one warning for all failures."""
    if len(result.failures):
        first = result.failures.iloc[0]
        warn(
            f"{len(result.failures)} of {result.items} items failed, the first with {first.error} "
            f"({first['where']}); all are in .failures, and retry=True tries them again"
        )

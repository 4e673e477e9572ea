"""A bar of progress on the terminal, where tqdm is installed; without it, none."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any, Self

try:
    from tqdm.auto import tqdm
except ImportError:
    tqdm = None


class _NoBar:
    """Stands for a bar that nobody sees."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int) -> None:
        """Nothing to show."""


def progress_bar(total: int, description: str, shown: bool | None) -> AbstractContextManager[Any]:
    """Return a bar to be entered and updated; None shows it on a terminal only."""
    if tqdm is None:
        return _NoBar()
    disable = None if shown is None else not shown
    often = 0.1 if sys.stderr.isatty() else 5  # seconds; each time is a line in a file
    return tqdm(total=total, desc=description, leave=False, disable=disable, mininterval=often)


def progress_line(text: str, shown: bool | None) -> None:
    """Write a line to standard error, above any bar; None writes it to a terminal only."""
    if shown or (shown is None and sys.stderr.isatty()):
        (print if tqdm is None else tqdm.write)(text, file=sys.stderr)

"""The results of a study on disk: one file per item, shared by several processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fixlip.checks import warn
from fixlip.files import atomic, writable

FORMAT = "fixlip-study-1"


class Nowhere:
    """In place of a folder: nothing is stored, and outcomes live as long as the call."""

    def check(self) -> None:
        """Do nothing."""

    def find(self, name: str) -> dict[str, Any] | None:
        """Return None."""
        return None

    def keep(self, name: str, outcome: dict[str, Any], label: dict[str, Any]) -> None:
        """Do nothing."""

    def lock(self, name: str, wait: bool) -> contextlib.AbstractContextManager[bool]:
        """Return True at once."""
        return contextlib.nullcontext(True)


class Folder:
    """One file per item: NAME.json, or NAME.failed.json; and NAME.lock while a process computes it.

    The operating system frees a lock when its process dies. Only the process that holds the lock
    writes, and a file appears whole or not at all (`fixlip.files.atomic`), so that what a killed
    process leaves does no harm.
    """

    def __init__(self, folder: Path, function: str) -> None:
        self.folder, self.function = folder.absolute(), function  # a function may change folders

    def check(self) -> None:
        """Make the folder; raise OSError where nothing can be written into it."""
        writable(self.folder, "give folder= another one, where the results are to be kept")

    def clear(self, retry: list[str]) -> None:
        """Remove what killed processes left, and the failures that are to be computed again."""
        for name in retry:
            self.folder.joinpath(f"{name}.failed.json").unlink(missing_ok=True)
        for left in self.folder.glob("*.part"):
            name = left.name.removeprefix(".").partition(".")[0]  # of .NAME.json.PROCESS.part
            with contextlib.suppress(OSError), self.lock(name, wait=False) as mine:
                if mine:  # (in a folder that is only read, it stays)
                    left.unlink(missing_ok=True)
        for left in self.folder.glob("*.lock"):
            if left.with_suffix(".json").exists():
                with contextlib.suppress(OSError):  # held by another process, on Windows
                    left.unlink()

    def find(self, name: str) -> dict[str, Any] | None:
        """The outcome of an item, or None; a damaged file counts as missing, with a warning."""
        for path in (self.folder / f"{name}.json", self.folder / f"{name}.failed.json"):
            try:
                about = json.loads(path.read_bytes())
                outcome = about["outcome"]
                if about["check"] == _check(outcome):
                    return outcome
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (ValueError, KeyError, TypeError):
                pass
            warn(f"{path.name} is damaged: its item is computed again")
        return None

    def keep(self, name: str, outcome: dict[str, Any], label: dict[str, Any]) -> None:
        """Write an outcome, whole or not at all, but for errors that may pass by themselves."""
        if outcome.get("passing"):
            return
        about = {"format": FORMAT, "function": self.function, "item": label}
        about |= {"outcome": outcome, "check": _check(outcome)}
        ending = ".json" if "rows" in outcome else ".failed.json"
        with atomic(self.folder / f"{name}{ending}", text=True) as file:
            json.dump(about, file, indent=1)
        if "rows" in outcome:
            self.folder.joinpath(f"{name}.failed.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold an item's lock and yield True; yield False where another process holds it."""
        lock = FileLock(self.folder / f"{name}.lock")
        while not lock.is_locked:
            try:
                lock.acquire(timeout=-1 if wait else 0, poll_interval=0.1)
            except Timeout:
                yield False
                return
            except FileNotFoundError:  # taken away below, by another process, while it was opened
                if not self.folder.is_dir():
                    raise
        try:
            yield True
        finally:
            lock.release()
            if self.folder.joinpath(f"{name}.json").exists():  # nobody will compute the item again
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()


def _check(outcome: dict) -> str:
    """Hash of an outcome, by which `find` recognises a damaged file."""
    return hashlib.sha256(json.dumps(outcome).encode()).hexdigest()

"""Paths as users give them, files that appear whole or not at all, and files of arrays."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a Path has lost the second slash


def user_path(path: str | bytes | os.PathLike[str]) -> Path:
    """Return the path that a user means: ``~`` and ``~name`` are home folders, as in a shell.

    A relative path stays relative. Raises TypeError or ValueError for what is no path: an empty
    text, an address such as "https://...", or a home folder of nobody.

    Examples
    --------
    >>> user_path("~/x.csv") == Path.home() / "x.csv"
    True
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"expected a path, as a text or a pathlib.Path, got {path!r:.80}")
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise ValueError(f"expected a path, got {text!r}, which names no file and no folder")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} has half a character: no file can have this name") from None
    if URL.match(text):
        raise ValueError(f"expected a path on this machine, got the address {text!r}")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        name = Path(text).parts[0]
        raise ValueError(f"{text!r}: there is no home folder {name!r} on this machine") from None


def writable(folder: str | os.PathLike[str], cure: str) -> Path:
    """Return a folder in which files can be written; it is made where it is missing.

    Raises the OSError that the attempt met, with one sentence that ends in ``cure``.
    """
    folder = user_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise type(error)(f"cannot write into {folder} ({error.strerror}): {cure}") from None


@contextlib.contextmanager
def atomic(path: str | bytes | os.PathLike[str], *, text: bool = False) -> Iterator[IO]:
    """Open a file for writing; it appears under its name when the block ends without an error.

    What is written goes to a hidden file beside it first, is forced to the disk and then renamed,
    so that a reader, another process or a crash never sees half a file. (What a killed process
    leaves is that hidden file, ``.NAME.PROCESS.part``.) Missing folders are made, and a link is
    followed. With ``text`` it
    is opened for text, in UTF-8, not for bytes. Raises the OSError that was met, with one sentence.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "new" / "table.csv"
    >>> with atomic(path, text=True) as file:
    ...     _ = file.write("a,b")
    >>> path.read_text()
    'a,b'
    """
    path = user_path(path)
    if os.path.isdir(path):  # False for a name that is too long, where a Path raises
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    if os.path.islink(path):  # what it leads to is written, as a shell does
        path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/null would become a file
        raise FileExistsError(f"{path} is no ordinary file: give another path")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = part.open("w", encoding="utf-8") if text else part.open("wb")
    except OSError as error:
        cure = "give another path, in a folder where you may write"
        raise type(error)(f"cannot write {path} ({error.strerror}): {cure}") from None
    try:
        with opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_arrays(
    path: str | bytes | os.PathLike[str], arrays: Mapping[str, np.ndarray], about: object
) -> Path:
    """Write arrays and a JSON-able object to one .safetensors file, whole or not at all.

    Raises TypeError or ValueError for another ending, or an object that is not JSON-able.
    """
    from safetensors.numpy import save

    path = user_path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path.name}: end the name in .safetensors")
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    try:
        text = json.dumps(about, default=_plain)
    except (TypeError, ValueError) as error:  # of keys that are no text, or a part of itself
        raise type(error)(f"{path.name}: `info` cannot be stored as JSON ({error})") from None
    data = save(contiguous, metadata={"about": text})
    with atomic(path) as file:
        file.write(data)
    return path


def _plain(value: object) -> object:
    """Numbers and arrays of numpy and torch as JSON has them, and anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def read_arrays(path: str | bytes | os.PathLike[str]) -> tuple[dict[str, np.ndarray], object]:
    """Read what `write_arrays` wrote: the arrays by name, and the object.

    Raises FileNotFoundError, or ValueError for a truncated file or one that something else wrote.
    """
    from safetensors import safe_open

    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            if "about" not in (file.metadata() or {}):
                raise ValueError("it does not say what its arrays are")
            return arrays, json.loads(file.metadata()["about"])
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} cannot be read ({reason}): it was cut off, changed, or written by something "
            "else"
        ) from None

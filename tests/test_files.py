"""Files appear whole or not at all: errors, kills and other processes in the middle of writing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fixlip.files import atomic, read_arrays, write_arrays


def test_bytes_and_text_arrive_in_a_folder_that_was_missing(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with atomic(path) as file:
        file.write(b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    with atomic(str(path), text=True) as file:
        json.dump(["é"], file, ensure_ascii=False)
    assert path.read_bytes() == '["é"]'.encode()
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, error, before):
    path = tmp_path / "file"
    if before:
        path.write_text(before)
    with pytest.raises(error), atomic(path) as file:
        file.write(b"half")
        file.flush()
        assert (path.read_text() if path.exists() else None) == before  # while it is written, too
        raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ([before] if before else [])


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def full(number):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"), atomic(path) as file:
        file.write(b"new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


CHILD = """
import sys
from fixlip.files import atomic

path, letter = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(200 if letter != "k" else 1):
    with atomic(path) as file:
        file.write(letter.encode() * 50_000)
        file.flush()
        if letter == "k":
            print("half", flush=True)
            sys.stdin.readline()
        file.write(letter.encode() * 50_000)
"""


def start(path, letter):
    """A process that writes a file of 100,000 equal letters, over and over, when it gets a line."""
    command = [sys.executable, "-c", CHILD, path, letter]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    process = start(path, "k")
    go(process)
    assert process.stdout.readline() == "half\n"
    process.kill()
    process.communicate()
    (left,) = (p.name for p in tmp_path.iterdir() if p != path)
    assert path.read_text() == "old" and left == f".file.{process.pid}.part"


def test_two_processes_write_one_file_and_a_reader_sees_a_whole_one(tmp_path):
    path = tmp_path / "file"
    both = [start(path, letter) for letter in "ab"]
    for process in both:
        go(process)
    looks, running = 0, True
    while running:
        running = any(process.poll() is None for process in both)
        if path.exists():
            text = path.read_text()
            assert text == text[0] * 100_000
            looks += 1
    assert looks and [process.returncode for process in both] == [0, 0]
    for process in both:
        process.communicate()
    assert [*tmp_path.iterdir()] == [path]


def test_arrays_come_back_with_what_was_said_of_them(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3).T, "b": np.float32([0.5]), "none": np.zeros((0, 2))}
    path = write_arrays(tmp_path / "new" / "x.safetensors", arrays, {"p": [0.5, None], "é": "ü"})
    found, about = read_arrays(path)
    assert about == {"p": [0.5, None], "é": "ü"} and found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_cannot_be_read_or_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x.npz: end the name in .safetensors"):
        write_arrays(tmp_path / "x.npz", {}, None)
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_arrays(path)
    write_arrays(path, {"a": np.arange(100)}, None)
    content = path.read_bytes()
    for damaged in (b"", content[:50], content[:-1], save({"a": np.arange(3)})):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be read .*: it was cut off, changed, or"):
            read_arrays(Path(path))

"""Files appear whole or not at all: errors, kills and other processes in the middle of writing."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from fixlip import paths
from fixlip.data.mosaics import demo_mosaics
from fixlip.demo.scenes import read_scenes
from fixlip.explanation import Explanation
from fixlip.files import atomic, read_arrays, user_path, writable, write_arrays
from fixlip.images import open_image


class OwnPath:
    """A path of another library: anything with __fspath__."""

    def __init__(self, text):
        self.text = text

    def __fspath__(self):
        return self.text


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, OwnPath])
def test_a_path_is_what_it_is_in_a_shell(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path(kind("~/x y.csv")) == tmp_path / "x y.csv"
    assert user_path(kind("~")) == tmp_path
    assert user_path(kind("a/~/b")) == Path("a/~/b")
    assert user_path(kind("./é")) == Path("é")
    root = pwd.getpwuid(os.getuid())
    assert user_path(kind(f"~{root.pw_name}/x")) == Path(root.pw_dir) / "x"


@pytest.mark.parametrize(
    "given, error, message",
    [
        ("", ValueError, "got '', which names no file"),
        (b"", ValueError, "got '', which names no file"),
        ("a\0b", ValueError, "which names no file"),
        ("a\ud800", ValueError, "has half a character: no file can have this name"),
        ("~nobody-of-this-name/x", ValueError, "no home folder '~nobody-of-this-name'"),
        ("https://a.org/x.png", ValueError, "on this machine, got the address 'https://a.org"),
        (Path("s3://bucket/x"), ValueError, "got the address 's3:/bucket"),
        (None, TypeError, "expected a path, as a text or a pathlib.Path, got None"),
        (3, TypeError, "got 3"),
        (["a"], TypeError, r"got \['a'\]"),
    ],
)
def test_what_is_no_path_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        user_path(given)


def test_home_is_home_wherever_a_file_is_written_or_read(tmp_path, monkeypatch):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    with atomic("~/new/a.txt", text=True) as file:
        file.write("a")
    arrays, about = {"x": np.arange(3.0)}, "about"
    write_arrays("~/a.safetensors", arrays, about)
    assert read_arrays("~/a.safetensors")[1] == about
    made = Explanation(0.0, np.zeros(2), np.zeros((2, 2)), ("a", "b"), 1)
    made.save("~/e.safetensors")
    assert Explanation.load(b"~/e.safetensors").players == ("a", "b")
    Image.new("RGB", (3, 2)).save(home / "p.png")
    assert open_image(OwnPath("~/p.png")).size == (3, 2)
    shutil.copytree(paths.root() / "data/scenes/annotations", home / "scenes/annotations")
    assert read_scenes("~/scenes") and demo_mosaics("~/scenes")
    monkeypatch.setenv("FIXLIP_OUTPUT", "~/figures")
    assert paths.output("a.png") == home / "figures" / "a.png"
    monkeypatch.setenv("FIXLIP_OUTPUT", "figures")
    assert paths.output("a.png") == work / "figures" / "a.png"  # whatever happens to the folder
    assert sorted(p.name for p in home.iterdir()) == [
        *("a.safetensors", "e.safetensors", "figures", "new", "p.png", "scenes")
    ]
    assert [p.name for p in work.iterdir()] == ["figures"]


def test_a_folder_is_tried_before_it_is_used(tmp_path):
    assert writable(tmp_path / "new" / "one", "") == tmp_path / "new" / "one"
    assert [*(tmp_path / "new" / "one").iterdir()] == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"cannot write into .*file.* \(.*\): try another"):
            writable(folder, "try another")
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file in it"):
        with atomic(tmp_path / "new"):
            raise AssertionError("unreachable")


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


@pytest.mark.parametrize("name", ["file/x.safetensors", f"{300 * 'a'}.safetensors"])
def test_a_place_where_nothing_can_be_written_is_told(tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"cannot write .* \([A-Z].*\): give another path, in a fold"):
        write_arrays(tmp_path / name, {}, None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_written_through_and_devices_are_refused(tmp_path):
    """A link was replaced by a file, and what it led to kept its old content."""
    for name in ("there", "absent"):
        target, link = tmp_path / name, tmp_path / f"to-{name}"
        link.symlink_to(target)
        if name == "there":
            target.write_text("old")
        with atomic(link, text=True) as file:
            file.write("new")
        assert link.is_symlink() and target.read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="no ordinary file"), atomic(tmp_path / "pipe"):
        pass

"""Studies: what is kept, shared, repeated and refused; and that no killing harms the table."""

import dataclasses
import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from fixlip.studies import study


def counted(item, *, marks, times=2):
    """Leave a mark for every call."""
    tempfile.mkstemp(prefix=f"{item}-", dir=marks)
    return {"length": times * len(str(item))}


@pytest.fixture
def marks(tmp_path):
    """A folder, as a string: it is no input whose content counts."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return str(folder)


def calls(marks):
    return sorted(path.name.partition("-")[0] for path in Path(marks).iterdir())


# --- the table ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Example:
    id: str
    image: Path
    captions: tuple[str, ...] = ("a", "b")


def test_items_become_columns(tmp_path):
    def rows(items):
        return study(lambda item: {"v": 1}, items).table.drop(columns="v").to_dict("records")

    assert rows(["a", "b"]) == [{"item": "a"}, {"item": "b"}]
    assert rows([tmp_path / "a.png"]) == [{"item": "a.png"}]
    assert rows([("a", 1)]) == [{"item": "('a', 1)"}]
    assert rows([{"id": "a", "boxes": [1, 2], "size": np.int64(3)}]) == [{"id": "a", "size": 3}]
    assert rows([Example("x", tmp_path / "x.png")]) == [{"id": "x", "image": "x.png"}]
    assert rows([np.zeros(3), np.ones(3)]) == [{"item": 0}, {"item": 1}]
    assert rows(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})) == [
        {"a": 1, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert rows(iter(["a"])) == [{"item": "a"}]


@pytest.mark.parametrize("kept", [True, False])
def test_rows_of_every_form(tmp_path, kept):
    def measure(item):
        if item == "table":
            return pd.DataFrame({"p": [0.3, 0.7], "r2": [0.5, math.nan]})
        if item == "several":
            return [{"p": 0.5, "name": "x"}, {"r2": np.float32(0.25)}]
        return {} if item == "empty" else []

    items = ["several", "none", "table", "empty"]
    table = study(measure, items, folder=tmp_path / "s" if kept else None).table
    assert table.to_csv(index=False, lineterminator="\n") == (
        "item,p,name,r2\nseveral,0.5,x,\nseveral,,,0.25\ntable,0.3,,0.5\ntable,0.7,,\nempty,,,\n"
    )


def test_numbers_come_back_exactly(tmp_path):
    values = {
        "sum": 0.1 + 0.2,
        "nan": math.nan,
        "inf": -math.inf,
        "zero": -0.0,
        "tiny": 5e-324,
        "whole": 2**70,
        "yes": np.bool_(True),
        "single": np.float32(0.1),
        "scalar": np.array(7),
        "none": None,
        "text": "é\ud800\n,",
    }

    def measure(item):
        return dict(values)

    first, again = (study(measure, [1], folder=tmp_path).table for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    row = again.iloc[0]
    assert row["sum"] == 0.1 + 0.2 and math.isnan(row["nan"]) and row["inf"] == -math.inf
    assert math.copysign(1, row["zero"]) == -1 and row["tiny"] == 5e-324
    assert row["whole"] == 2**70 and row["yes"] is np.True_ and row["single"] == np.float32(0.1)
    assert row["scalar"] == 7 and row["none"] is None and row["text"] == values["text"]


def test_no_items_and_items_that_come_twice(tmp_path, marks):
    assert study(counted, [], constants={"marks": marks}).table.empty
    twice = study(counted, ["a", "bb", "a"], folder=tmp_path / "s", constants={"marks": marks})
    assert twice.table["length"].tolist() == [2, 4, 2]
    assert calls(marks) == ["a", "bb"]


# --- what is computed --------------------------------------------------------------------------


def test_only_what_is_new_is_computed(tmp_path, marks):
    options = {"folder": tmp_path / "s", "constants": {"marks": marks}}
    first = study(counted, ["a", "bb"], **options)
    assert (first.items, first.computed, calls(marks)) == (2, 2, ["a", "bb"])
    more = study(counted, ["ccc", "bb", "a"], **options)
    assert (more.items, more.computed, calls(marks)) == (3, 1, ["a", "bb", "ccc"])
    assert more.table["item"].tolist() == ["ccc", "bb", "a"]
    assert more.table["length"].tolist() == [6, 4, 2]
    assert more.summary() == "3 items: 3 done and 0 failed; 1 computed now, 2 kept"


def test_another_constant_or_file_is_computed_again(tmp_path, marks):
    image = tmp_path / "image.png"
    image.write_bytes(b"one")

    def measure(item, *, marks, times=2):
        tempfile.mkstemp(prefix=f"{times}-", dir=marks)
        return {"bytes": times * len(item.read_bytes())}

    def run(**constants):
        return study(
            measure, [image], folder=tmp_path / "s", constants={"marks": marks} | constants
        )

    assert [run().computed, run().computed, run(times=3).computed] == [1, 0, 1]
    image.write_bytes(b"other")
    changed = run()
    assert changed.computed == 1 and changed.table["bytes"].tolist() == [10]
    image.write_bytes(b"one")
    assert run().computed == 0


def test_parts_make_the_whole(tmp_path, marks):
    options = {"folder": tmp_path / "s", "constants": {"marks": marks}}
    items = [np.full(k, k) for k in range(1, 8)]
    parts = [study(measure_array, items, shard=(i, 3), **options) for i in (2, 0, 1)]
    assert [part.computed for part in parts] == [2, 3, 2]
    assert parts[0].table["item"].tolist() == [2, 5]  # numbered as in the whole
    whole = study(measure_array, items, **options)
    assert whole.computed == 0 and whole.table["sum"].tolist() == [k * k for k in range(1, 8)]


def test_numbers_of_numpy_choose_a_part_and_numbers_of_any_kind_fill_a_row():
    def measure(item):
        return {"half": Fraction(1, 2), "more": Decimal("1.5")}

    found = study(measure, [1, 2], shard=(np.int64(1), np.int64(2)))
    assert found.table.to_dict("records") == [{"item": 2, "half": 0.5, "more": 1.5}]


def measure_array(item, *, marks):
    return {"sum": int(item.sum())}


def test_nothing_is_written_without_a_folder(tmp_path, marks, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = study(lambda item, sides: {"v": item}, [1], constants={"sides": object()})
        assert result.computed == 1  # and what has no fingerprint needs none
    assert [path.name for path in tmp_path.iterdir()] == ["marks"]


def test_a_folder_is_the_one_that_a_user_means(tmp_path, marks, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def moving(item, *, elsewhere):
        os.chdir(elsewhere)  # a relative folder is the one where the study began
        return {"v": item}

    here = {"constants": {"elsewhere": str(elsewhere)}}
    assert study(moving, [1, 2], folder="rows", **here).computed == 2
    assert len([*(tmp_path / "rows").glob("*.json")]) == 2 and not [*elsewhere.iterdir()]
    home = {"constants": {"marks": marks}}
    assert study(counted, ["a"], folder="~/rows", **home).computed == 1
    assert study(counted, ["a"], folder=b"~/rows", **home).computed == 0
    assert study(counted, ["a"], folder=tmp_path / "home" / "rows", **home).computed == 0
    assert not [*tmp_path.rglob("~*")]


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(tmp_path, marks, monkeypatch):
    taken = tmp_path / "taken"
    taken.touch()
    with pytest.raises(FileExistsError, match=r"cannot write into .*taken \(.*\): give folder="):
        study(counted, ["a"], folder=taken, constants={"marks": marks})
    assert calls(marks) == []
    kept = {"folder": tmp_path / "kept", "constants": {"marks": marks}}
    study(counted, ["a"], **kept)

    def refuse(**options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert study(counted, ["a"], **kept).computed == 0  # what is there can be read all the same
    with pytest.raises(PermissionError, match=r"cannot write into .*kept \(Permission denied\)"):
        study(counted, ["a", "b"], **kept)
    assert calls(marks) == ["a"]


# --- failures ----------------------------------------------------------------------------------


def test_failures_stop_nothing_and_are_not_repeated(tmp_path, marks):
    def measure(item, *, marks):
        tempfile.mkstemp(prefix=f"{item}-", dir=marks)
        if item == "b":
            raise ValueError(
                "the file '/home/somebody/data/b.png' is odd, see https://a.org/b/c\n2"
            )
        return {"v": 1}

    options = {"folder": tmp_path / "s", "constants": {"marks": marks}}
    with pytest.warns(UserWarning, match=r"1 of 3 items failed, the first with ValueError: the f"):
        first = study(measure, ["a", "b", "c"], **options)
    assert first.table["item"].tolist() == ["a", "c"]
    (failure,) = first.failures.to_dict("records")
    assert failure["item"] == "b"
    assert failure["error"] == "ValueError: the file 'b.png' is odd, see https://a.org/b/c"
    line = measure.__code__.co_firstlineno + 3
    assert failure["where"] == f"test_study.py:{line} in measure"
    with pytest.warns(UserWarning, match="1 of 3"):
        again = study(measure, ["a", "b", "c"], **options)
    pd.testing.assert_frame_equal(again.failures, first.failures)
    assert again.computed == 0 and calls(marks) == ["a", "b", "c"]
    with pytest.warns(UserWarning, match="1 of 3"):
        retried = study(measure, ["a", "b", "c"], retry=True, **options)
    assert retried.computed == 1 and calls(marks) == ["a", "b", "b", "c"]


def test_a_retry_that_works_leaves_no_failure(tmp_path):
    switch = tmp_path / "switch"

    def measure(item, *, switch):
        if not Path(switch).exists():
            raise RuntimeError("not yet")
        return {"v": item}

    options = {"folder": tmp_path / "s", "constants": {"switch": str(switch)}}
    with pytest.warns(UserWarning, match="1 of 1"):
        study(measure, [1], **options)
    switch.touch()
    assert study(measure, [1], retry=True, **options).table["v"].tolist() == [1]
    assert study(measure, [1], **options).failures.empty
    assert len(list((tmp_path / "s").iterdir())) == 1


@pytest.mark.parametrize("as_path", [True, False])
def test_a_file_that_was_missing_is_tried_again(tmp_path, as_path):
    image = tmp_path / "image.png"
    items = [image if as_path else str(image)]

    def measure(item):
        return {"bytes": len(Path(item).read_bytes())}

    with pytest.warns(UserWarning, match=r"FileNotFoundError: .*'image.png'"):
        study(measure, items, folder=tmp_path / "s")
    image.write_bytes(b"1234")
    assert study(measure, items, folder=tmp_path / "s").table["bytes"].tolist() == [4]


@pytest.mark.parametrize(
    "error",
    [
        "MemoryError()",
        "RuntimeError('CUDA out of memory')",
        "RuntimeError('CUDA error: device-side assert triggered')",
        "ConnectionResetError('gone')",
        "TimeoutError('late')",
        "OSError(28, 'No space left on device')",
    ],
)
def test_errors_of_the_moment_are_not_kept(tmp_path, error):
    def fail_once(item, *, marker, error):
        if not Path(marker).exists():
            Path(marker).touch()
            raise eval(error)
        return {"v": item}

    constants = {"marker": str(tmp_path / "marker"), "error": error}
    with pytest.warns(UserWarning, match="1 of 1 items failed"):
        study(fail_once, [1], folder=tmp_path / "s", constants=constants)
    again = study(fail_once, [1], folder=tmp_path / "s", constants=constants)
    assert again.table["v"].tolist() == [1]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned NoneType: it must return a row"),
        (0.5, "returned float"),
        ("text", "returned str"),
        (np.float64(0.5), "returned float64"),
        (np.array(0.5), "returned ndarray"),
        (np.zeros(3), "returned the row np.float64"),
        ([{"a": 1}, 2], "returned the row 2: a row must be a dict"),
        ({1: 2}, "returned the row {1: 2}"),
        ({"a": [1]}, "the column 'a' holds list; expected numbers, strings"),
        ({"a": np.zeros(2)}, "the column 'a' holds ndarray"),
        ({"a": 1j}, "the column 'a' holds complex"),
        ({"item": 2}, "the row says item=2, and the item itself item=1: give"),
    ],
)
def test_rubbish_fails_with_what_is_expected(result, message):
    with pytest.warns(UserWarning, match=message):
        assert study(lambda item: result, [1]).table.empty


def test_a_row_may_repeat_its_item():
    assert study(lambda item: {"item": item, "v": 1}, ["a"]).table.columns.tolist() == ["item", "v"]


# --- stopping, damage, and other processes -------------------------------------------------------


def test_stopping_keeps_what_is_done(tmp_path, marks, capsys):
    stop = tmp_path / "stop"
    stop.touch()

    def measure(item, *, marks, stop):
        tempfile.mkstemp(prefix=f"{item}-", dir=marks)
        if item == "c" and Path(stop).exists():
            raise KeyboardInterrupt
        return {"v": item}

    options = {"folder": tmp_path / "s", "constants": {"marks": marks, "stop": str(stop)}}
    with pytest.raises(KeyboardInterrupt):
        study(measure, "a b c d".split(), **options)
    assert "stopped: 2 of 4 items are done, and they are kept" in capsys.readouterr().err
    stop.unlink()
    assert study(measure, "a b c d".split(), **options).computed == 2
    assert calls(marks) == ["a", "b", "c", "c", "d"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("0.5", "0.6"),
        lambda text: "[]",
        lambda text: text.replace('"outcome"', '"result"'),
    ],
)
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    def measure(item):
        return {"v": 0.5 * item}

    study(measure, [1, 2], folder=tmp_path)
    (path,) = (p for p in tmp_path.glob("*.json") if '"v": 0.5' in p.read_text())
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match="is damaged: its item is computed again"):
        result = study(measure, [1, 2], folder=tmp_path)
    assert result.computed == 1 and result.table["v"].tolist() == [0.5, 1.0]
    assert study(measure, [1, 2], folder=tmp_path).computed == 0


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    def measure(item):
        return {"v": item}

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            study(measure, [1], folder=tmp_path)
    assert not [*tmp_path.glob("*.json"), *tmp_path.glob("*.part")]
    left = tmp_path / "0123.77.part"
    left.write_text("{")
    assert study(measure, [1], folder=tmp_path).computed == 1
    assert not left.exists()
    (file,) = tmp_path.glob("*.json")
    about = json.loads(file.read_text())
    assert about["item"] == {"item": 1} and about["outcome"] == {"rows": [{"v": 1}]}


def test_the_bar_counts_only_what_is_computed(tmp_path, capsys):
    def measure(item):
        return {"v": item}

    study(measure, range(3), folder=tmp_path)
    assert capsys.readouterr().err == ""  # no terminal
    study(measure, range(4), folder=tmp_path, progress=True)
    assert "75%" in (bar := capsys.readouterr().err) and "4/4" in bar and "0%|" not in bar[:6]


def test_a_long_study_says_where_it_is_without_a_terminal(capsys, monkeypatch):
    def measure(item):
        time.sleep(0.02)
        return {"v": item}

    study(measure, range(10))
    assert capsys.readouterr().err == ""  # it was short
    monkeypatch.setattr(sys.modules["fixlip.studies.study"], "QUIET", 0.05)
    study(measure, range(10))
    assert 2 <= capsys.readouterr().err.count("/10 [") <= 5  # seldom, and not after every item
    study(measure, range(10), progress=False)
    assert capsys.readouterr().err == ""


SERVER = """
import os, signal, sys, time
from pathlib import Path

from fixlip.files import atomic
from fixlip.studies import study

def measure(item, *, power, marks):
    Path(marks, f"{item}-{os.getpid()}").touch()
    while item == 0 and Path(marks).with_name("hang").exists():
        time.sleep(0.1)
    time.sleep(0.005)
    total = sum((item + k) ** -power for k in range(1, 200))
    return [{"part": part, "total": total / (part + 3)} for part in range(2)]

def run(count, folder, marks, csv):
    constants = {"power": 1.5, "marks": marks}
    result = study(measure, range(int(count)), folder=folder, constants=constants)
    result.table.to_csv(csv)
    with atomic(f"{csv}.computed", text=True) as file:
        file.write(str(result.computed))

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for those who end
for line in sys.stdin:
    process = os.fork()
    if not process:
        run(*line.split("\\0")[:4])
        os._exit(0)
    print(process, flush=True)
"""


class Child:
    """A process that runs a study."""

    def __init__(self, number, csv):
        self.number, self.result = number, Path(f"{csv}.computed")

    def running(self):
        try:
            os.kill(self.number, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self):
        os.kill(self.number, signal.SIGKILL)
        while self.running():
            time.sleep(0.001)

    def finish(self):
        """How many items the process computed."""
        end = time.monotonic() + 120
        while self.running() and time.monotonic() < end:
            time.sleep(0.01)
        return int(self.result.read_text())


@pytest.fixture
def child(tmp_path, marks):
    """Start processes that run a study: forked, because most of the time would go to imports."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=-1, stdout=-1, text=True)
    started = []

    def start(count, *, folder="kept", csv="table.csv"):
        words = count, tmp_path / folder, marks, tmp_path / csv, ""
        server.stdin.write("\0".join(map(str, words)) + "\n")
        server.stdin.flush()
        started.append(Child(int(server.stdout.readline()), tmp_path / csv))
        return started[-1]

    yield start
    for process in started:
        if process.running():
            process.kill()
    server.communicate()
    assert server.returncode == 0


@pytest.mark.slow
def test_killed_at_twenty_moments_the_table_is_the_same_to_the_byte(tmp_path, marks, child):
    count, rng, kept = 200, random.Random(0), tmp_path / "kept"
    done = [0]
    for _ in range(20):
        process = child(count)
        wanted = done[-1] + rng.randrange(7)  # so many items, and then anywhere in the next ones
        while len([*kept.glob("*.json")]) < wanted:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        assert process.running() and not process.result.exists()  # it is at work
        process.kill()
        done.append(len([*kept.glob("*.json")]))
    assert done == sorted(done) and 0 < done[-1] < count
    assert child(count).finish() == count - done[-1]
    assert sorted({p.suffix for p in kept.iterdir()}) == [".json"]
    assert child(count, folder="undisturbed", csv="undisturbed.csv").finish() == count
    table = (tmp_path / "table.csv").read_bytes()
    assert table == (tmp_path / "undisturbed.csv").read_bytes()
    assert len(table.splitlines()) == 1 + 2 * count


def test_two_processes_share_the_items(tmp_path, marks, child):
    count = 60
    both = [child(count, csv=f"{i}.csv") for i in range(2)]
    computed = [process.finish() for process in both]
    assert sum(computed) == count and min(computed) > 0
    assert sorted(calls(marks), key=int) == [str(i) for i in range(count)]
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    assert len((tmp_path / "0.csv").read_text().splitlines()) == 1 + 2 * count


def test_a_lock_that_another_process_takes_away_is_made_again(tmp_path, monkeypatch):
    """Seen once with filelock 3.16: it looks whether the file is there, and opens it then."""
    acquire, fails = FileLock.acquire, [FileNotFoundError("gone")]

    def first_too_late(self, **options):
        if fails:
            raise fails.pop()
        return acquire(self, **options)

    monkeypatch.setattr(FileLock, "acquire", first_too_late)
    assert study(lambda item: {"v": item}, [1], folder=tmp_path).computed == 1 and not fails


def test_an_item_of_a_dead_process_is_computed_by_another(tmp_path, marks, child):
    hang = tmp_path / "hang"
    hang.touch()
    hanging = child(3, csv="hanging.csv")
    while not calls(marks):
        time.sleep(0.01)
    other = child(3)
    while len(calls(marks)) < 3:  # it computes the others, and then waits for the first
        time.sleep(0.01)
    assert other.running() and calls(marks) == ["0", "1", "2"]
    hanging.kill()
    hang.unlink()
    assert other.finish() == 3
    assert calls(marks) == ["0", "0", "1", "2"]


# --- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"items": "abc"}, TypeError, "items must be a sequence of items, got str"),
        ({"items": {"a": 1}}, TypeError, "got dict"),
        ({"items": 3}, TypeError, "got int"),
        ({"function": 3}, TypeError, "must be a function, got int"),
        ({"constants": {"time": 3}}, TypeError, r"the constants \(time=...\): got an unexpected"),
        ({"shard": (3, 3)}, ValueError, r"0 <= i < n, got \(3, 3\)"),
        ({"shard": 1}, ValueError, "shard must be"),
        ({"shard": "01"}, ValueError, "shard must be"),
        ({"shard": (0.0, 1)}, ValueError, "shard must be"),
        ({"constants": [1]}, TypeError, "constants must be a dict of arguments, got list"),
        ({"constants": "x"}, TypeError, "constants must be a dict of arguments, got str"),
        ({"folder": "a\ud800"}, ValueError, "has half a character: no file can"),
        ({"items": [object()]}, TypeError, r"items\[0\] is a object, which has no fingerprint"),
        ({"constants": {"times": object()}}, TypeError, "the constant 'times' is a object"),
        ({"items": [Path(".").resolve()]}, ValueError, "is the folder"),
    ],
)
def test_misuse_is_told_at_once(tmp_path, change, error, message):
    def measure(item, *, times=1):
        raise AssertionError("called")

    given = {"function": measure, "items": [1], "folder": tmp_path} | change
    with pytest.raises(error, match=message):
        study(given.pop("function"), given.pop("items"), **given)

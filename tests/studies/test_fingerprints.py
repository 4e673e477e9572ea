"""Fingerprints: what changes a result changes the hash, what does not leaves it as it was."""

import collections
import dataclasses
import enum
import functools
import importlib
import math
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import fixlip
from fixlip.explanation import Explanation
from fixlip.games import exact
from fixlip.studies import fingerprints
from fixlip.studies.fingerprints import fingerprint


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Pair:
    image: object
    caption: str = "a dog"


@dataclasses.dataclass
class Other:
    image: object
    caption: str = "a dog"


class Informed:
    def __init__(self, **info):
        self.info = info


def _values():
    """Values of which no two are the same input."""
    array = np.arange(6, dtype=np.float32)
    pixels = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    yield from (None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, math.nan, math.inf, 2**70, ...)
    yield from ("", "1", "None", b"", b"1", 1j, date(2025, 1, 2), range(3), slice(3))
    yield from ([], (), {}, set(), [1, 2], [2, 1], (1, 2), [[1], 2], [1, [2]], [1, 2, None], {1, 2})
    yield from ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": "1", "b": 2}, {"a": {"b": 1}}, {1: "a"})
    yield from (array, array.astype(float), array.reshape(2, 3), array[::-1], array.astype(int))
    yield from (np.array(["a"]), np.array([None, 1], object), array > 2, np.float32(0.1), 0.1)
    yield from (torch.arange(6.0), torch.arange(6.0).bfloat16(), torch.float32, torch.device("cpu"))
    yield from (torch.arange(6.0)[None], torch.tensor(0.0), torch.arange(6))
    yield from (pixels, pixels.rotate(90), pixels.convert("L"), pixels.convert("P"))
    yield from (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1.0, 2.0]}), pd.Series([1, 2]))
    yield from (pd.DataFrame({"b": [1, 2]}), pd.DataFrame({"a": [1, 2]}, index=[1, 2]))
    yield from (Colour.RED, Colour.BLUE, Colour, Pair, Other, Informed)
    yield from (Pair("x"), Pair("y"), Pair("x", "a cat"), Other("x"), Pair(array))
    yield from (Informed(), Informed(a=1), Informed(a=2), {"a": 1}, collections.OrderedDict(b=1))
    yield from (math.sin, math.cos, np.sin, np.cos, len, int, float, Path, np, math, torch)
    yield from (functools.partial(int, base=2), functools.partial(int, base=3), "x".join, "y".join)
    yield from (fixlip.explain, fixlip.sweep, fixlip, exact, Explanation)


def test_different_inputs_have_different_hashes():
    values = list(_values())
    hashes = [fingerprint(value) for value in values]
    same = collections.Counter(hashes)
    assert [v for v, h in zip(values, hashes, strict=True) if same[h] > 1] == []
    assert [fingerprint(value) for value in _values()] == hashes


def test_the_same_content_has_the_same_hash():
    array = np.arange(6.0).reshape(2, 3)
    for one, other in (
        (array, array.T.copy().T),
        (torch.arange(3.0), torch.arange(3.0).requires_grad_()),
        ({1, 2, "a"}, {"a", 2, 1}),
        (np.float64(0.5), 0.5),
        ("abc", np.str_("abc")),
    ):
        assert fingerprint(one) == fingerprint(other)


def test_files_count_by_name_and_content(tmp_path):
    file, copy = tmp_path / "a.png", tmp_path / "folder" / "a.png"
    copy.parent.mkdir()
    missing = fingerprint(file)
    file.write_bytes(b"one")
    copy.write_bytes(b"one")
    first = fingerprint(file)
    assert missing != first == fingerprint(copy)
    assert first != fingerprint(file.rename(tmp_path / "b.png"))
    copy.write_bytes(b"two")
    assert first != fingerprint(copy)
    with pytest.raises(ValueError, match=r"items\[0\] is the folder 'folder'"):
        fingerprint([copy.parent], "items")


def test_what_has_no_fingerprint_is_refused():
    for value in (object(), np.random.default_rng(), (x for x in "a"), torch.nn.Linear(1, 1)):
        with pytest.raises(TypeError, match=f"this.image is a {type(value).__name__}, which has"):
            fingerprint(Pair(value), "this")


def test_encoders_count_by_their_weights_and_sides_by_their_pixels(model_folder, noise):
    folder = model_folder("clip")
    one, same, other = (fixlip.load(f"local-dir:{folder}") for _ in range(3))
    with torch.no_grad():
        other.model.visual.proj[0, 0] += 1e-3
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    sides = one.image(255 - noise), one.text("a red star"), one.image(noise, players="2x2")
    prints = [fingerprint(side) for side in (one.image(noise), *sides)]
    assert len({*prints}) == 4 and prints[0] == fingerprint(same.image(noise.copy()))


# --- functions -----------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write modules, import them anew, and give the fingerprint of `measure` in the last one."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(*modules):
        for name, text in modules:
            (tmp_path / f"{name.replace('.', '/')}.py").write_text(text)
        forget()
        importlib.invalidate_caches()
        return fingerprint(importlib.import_module(name).measure)

    def forget():
        for name in ("helping", "measuring", "package", "package.helping", "package.measuring"):
            sys.modules.pop(name, None)

    yield load
    forget()


BASE = """
import functools
import numpy as np
import helping
from helping import assist

FACTOR = 2
UNUSED = object()

def scale(x):
    return x * FACTOR

class Meter:
    "What it measures."
    unit = 1
    def __init__(self, x):
        self.x = x
    @property
    def double(self):
        return twice(self.x)
    @classmethod
    def make(cls):
        return cls(3)
    @functools.cache
    def slow(self):
        return 5

def twice(x):
    return 2 * x

def decorate(f):
    @functools.wraps(f)
    def inner(*args):
        return f(*args) + 1
    return inner

@decorate
def added(x):
    return x

@functools.cache
def cached(x):
    return x

clip = decorate(np.clip)

def make(exponent):
    def power(x):
        return x ** exponent
    return power

square = make(2)
table = {"scale": scale}

def measure(item, *, start=FACTOR):
    "What it does."
    values = [scale(x) for x in range(item)]  # a nested code object in older Pythons
    inner = lambda x: added(x) + cached(x) + square(x) + clip(x, 0, 1)
    try:
        item += 1
    except ValueError:
        return None
    class Local:
        "Of this item."
        size = max(1, 700)
    if item > Local.size:
        return None
    return sum(values) + Meter(item).double + inner(start) + assist(item) + helping.more(item)
"""
HELP = """
STATE = [1, "a", None, ...]

def assist(x):
    return x

def more(x):
    return x

def other(x):
    return x
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FACTOR = 2", "FACTOR = 2.0"),
        ("return x * FACTOR", "return FACTOR * x"),
        ("unit = 1", "unit = 2"),
        ("self.x = x", "self.x = -x"),
        ("twice(self.x)", "-twice(self.x)"),
        ("cls(3)", "cls(4)"),
        ("return 5", "return 6"),
        ("    @property\n", ""),
        ("return 2 * x", "return 3 * x"),
        ("f(*args) + 1", "f(*args) + 2"),
        ("@decorate\ndef added(x):\n    return x", "@decorate\ndef added(x):\n    return x + 1"),
        ("@decorate\n", ""),
        ("decorate(np.clip)", "np.clip"),
        ("decorate(np.clip)", "decorate(np.where)"),
        ("def cached(x):\n    return x", "def cached(x):\n    return -x"),
        ("make(2)", "make(3)"),
        ("x ** exponent", "x ** (exponent + 1)"),
        ("start=FACTOR", "start=1"),
        ("range(item)", "range(1, item)"),
        ("added(x) + cached(x)", "added(x) - cached(x)"),
        ("item += 1\n", "item += 2\n"),
        ("        item += 1\n    except", "        pass\n    except"),
        ("max(1, 700)", "min(1, 700)"),
        ("item > Local", "item < Local"),
    ],
)
def test_what_a_function_refers_to_counts(write, old, new):
    assert old in BASE
    first = write(("helping", HELP), ("measuring", BASE))
    assert first == write(("measuring", BASE)) != write(("measuring", BASE.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"What it does."', '"What it does, said better."'),
        ('    "What it does."\n', ""),
        ('"What it measures."', '"What it measures, said better."'),
        ('    "What it measures."\n', ""),
        ('"Of this item."', '"Of this item only."'),
        ('        "Of this item."\n', ""),
        ("# a nested", "# a deeply nested"),
        ("\ndef measure", "\n" * 400 + "def measure"),
        ("sum(values) +", "(sum( values )) +"),
        ("UNUSED = object()", "UNUSED = object"),
        ('table = {"scale": scale}', "table = {}"),
        ("def scale(x):\n", "def unrelated(x):\n    return 7\n\n\ndef scale(x):\n"),
    ],
)
def test_layout_comments_and_what_is_not_used_do_not_count(write, old, new):
    assert old in BASE
    first = write(("helping", HELP), ("measuring", BASE))
    assert first == write(("measuring", BASE.replace(old, new)))


def change(name):
    """The helping module with another function of this name."""
    old = f"def {name}(x):\n    return x"
    assert old in HELP
    return HELP.replace(old, old.replace("return x", "return 2"))


def test_other_modules_of_the_user_count_as_far_as_they_are_used(write):
    def with_help(text):
        return write(("helping", text), ("measuring", BASE))

    first = with_help(HELP)
    assert first not in (with_help(change("assist")), with_help(change("more")))
    assert first == with_help(change("other")) == with_help(HELP)


@pytest.mark.parametrize(
    ("line", "used"),
    [
        ("from helping import more", True),
        ("from helping import other", False),
        ("import helping", True),
        ("import helping as h", True),
        ("module = helping", True),
    ],
)
def test_imports_inside_a_function_and_modules_as_values_count(write, line, used):
    text = f"import helping\ndef measure(item):\n    {line}\n    return item\n"
    first = write(("helping", HELP), ("measuring", text))
    changed = write(("helping", change("more")), ("measuring", text))
    assert (first != changed) is used
    assert write(("measuring", text.replace("helping", "nowhere").partition("\n")[2]))


def test_relative_imports_inside_a_function_count(write, tmp_path):
    (tmp_path / "package").mkdir()
    text = "def measure(item):\n    from .helping import more\n    return more(item)\n"
    begin = ("package.__init__", ""), ("package.helping", HELP), ("package.measuring", text)
    first = write(*begin)
    assert first == write(*begin)
    assert first != write(("package.helping", change("more")), begin[-1])
    assert first == write(("package.helping", change("other")), begin[-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def measure(item):\n    return STATE\n", "'STATE', which measure reads, is a object"),
        (
            "def inner():\n    return STATE\ndef measure(item):\n    return inner()\n",
            "'STATE', which inner reads, is a object, which has no",
        ),
        ("def measure(item, state=STATE):\n    pass\n", r"the defaults of measure\[0\]\[0\] is a"),
    ],
)
def test_globals_and_defaults_that_nobody_can_compare_are_refused(write, text, message):
    with pytest.raises(TypeError, match=message):
        write(("measuring", f"STATE = object()\n{text}"))


def test_closures_and_members_that_nobody_can_compare_are_refused():
    hidden = object()

    class Holder:
        state = hidden

    with pytest.raises(TypeError, match=r"'hidden', which .*<lambda> reads, is a object"):
        fingerprint(lambda item: hidden)
    with pytest.raises(TypeError, match=r"Holder.state is a object"):
        fingerprint(lambda item: Holder)


def test_lambdas_on_one_line_differ():
    one, two, three = (lambda x: x), (lambda x: -x), (lambda x: lambda y: x)
    assert len({fingerprint(f) for f in (one, two, three, three(1), three(2))}) == 5


CELL = """
@dataclasses.dataclass
class Row:
    size: int = 3
    def __post_init__(self):
        self.size += 1
class Plain:
    def __init__(self, x):
        self.x = x
    def grow(self):
        return self.x + 1
Named = collections.namedtuple("Named", "a b")
def measure(item):
    return Row(item).size + Plain(item).grow() + Named(item, 1).b
"""


@pytest.mark.parametrize("place", ["<string>", "/x/ipykernel_1/2.py", "<ipython-input-3-4>"])
def test_the_file_of_a_notebook_cell_does_not_count_and_its_code_does(place):
    def run(text, file):
        names = {"__name__": "__main__", "dataclasses": dataclasses, "collections": collections}
        exec(compile(text, file, "exec"), names)
        return fingerprint(names["measure"])

    first = run(CELL, "cell")
    assert run("\n\n" + CELL, place) == first
    changed = [("int = 3", "int = 4"), ("+= 1", "+= 2"), ("self.x + 1", "self.x + 2")]
    changed += [("self.x = x", "self.x = -x"), ('"a b"', '"b a"'), ("Row(item)", "Row(-item)")]
    seen = {run(CELL.replace(old, new), place) for old, new in changed}
    assert len(seen | {first}) == len(changed) + 1


def test_hashes_are_the_same_in_every_process(tmp_path):
    """Whatever the seed of Python's own hashes, which orders sets, and the name of the file."""
    code = f"import collections, dataclasses\nPARTS = {{'a', 'b', 'c'}}\n{CELL}"
    code += "def both(item):\n    return measure(item) + len(PARTS & {'a', 'd', 'e'})\n"
    code += "from fixlip.studies.fingerprints import fingerprint\n"
    code += "print(fingerprint([{'a', 'b', 'c'}, {len, abs}, 0.1, 'x', both]))"
    seen = set()
    for seed in "12":
        file = tmp_path / f"cell{seed}.py"
        file.write_text("\n" * int(seed) + code)
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, file]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        seen.add(out.stdout.strip())
    assert len(seen) == 1 and len(seen.pop()) == 64


def test_a_recursive_function_has_a_fingerprint():
    def descend(n):
        return ascend(n - 1) if n else 0

    def ascend(n):
        return descend(n)

    assert fingerprint(descend) != fingerprint(ascend)


def test_what_a_library_made_of_a_function_counts():
    def make(decorate):
        @decorate
        def measured(item):
            return item

        return measured

    halves = [torch.autocast("cpu", dtype=dtype) for dtype in (torch.bfloat16, torch.float16)]
    made = [make(d) for d in (lambda f: f, torch.no_grad(), torch.enable_grad(), *halves)]
    prints = [fingerprint(f) for f in made]
    assert len({*prints}) == 5
    for f in made:  # torch keeps in them what it found when they were called
        f(1)
    assert [fingerprint(f) for f in made] == prints


def test_bound_methods_count_by_what_they_are_bound_to():
    assert fingerprint(Informed(a=1).__init__) != fingerprint(Informed(a=2).__init__)


def test_what_is_edited_after_loading_does_not_count_until_it_runs(write, tmp_path):
    text = "def measure(item):\n    return item\n"
    first = write(("measuring", text))
    measure = sys.modules["measuring"].measure
    other = text.replace("return item", "return 2")
    (tmp_path / "measuring.py").write_text("# a comment\n" + other)
    assert fingerprint(measure) == first != write(("measuring", other))


# --- packages, and fixlip itself -----------------------------------------------------------------


def test_all_of_fixlip_counts_but_for_its_views(tmp_path):
    files = fingerprints.read_package(Path(fixlip.__file__).parent)
    assert {"__init__.py", "solver/solve.py", "explainers/lime.py", "data/coco.py"} <= {*files}
    assert not [name for name in files if name.startswith(("plots", "studies", "pages", "extras"))]
    assert files == fingerprints.FILES
    files = {name: files[name] for name in ("solver/fit.py", "explainers/lime.py")}
    first = fingerprints.digest(files)

    def changed(name, old, new):
        assert old in files[name]
        return fingerprints.digest(files | {name: files[name].replace(old, new)})

    assert first == changed("solver/fit.py", b"\n\n\n", b"\n\n\n\n# a comment\n\n")
    assert first == changed("solver/fit.py", b'"""From one', b'"""Out of one')
    assert first != changed("explainers/lime.py", b" + ", b" - ")
    assert first != fingerprints.digest(files | {"new.py": b""})
    for name in ("plots/panels.py", "pages/page.py", "extras.py", "metrics/studies.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert {*fingerprints.read_package(tmp_path)} == {"metrics/studies.py"}


def test_a_change_of_fixlip_counts_for_functions_that_use_it_alone(monkeypatch):
    used = [lambda item: fixlip.explain(item), exact, Explanation, fixlip]
    used += [functools.partial(fixlip.explain, None), torch.no_grad()(fixlip.explain)]
    free = [lambda item: torch.sum(item), torch.no_grad()(Informed.__init__)]
    before = [fingerprint(value) for value in used + free]
    monkeypatch.setattr(fingerprints, "_fixlip", lambda: "another digest")
    after = [fingerprint(value) for value in used + free]
    changed = [a != b for a, b in zip(before, after, strict=True)]
    assert changed == [True] * len(used) + [False] * len(free)


@pytest.mark.parametrize("changed", ["package", "Python"])
def test_versions_count(monkeypatch, changed):
    def measure(item):
        return torch.sum(item)

    def explaining(item):
        return fixlip.explain(item)

    monkeypatch.setattr(fingerprints, "FILES", {})
    fingerprints._fixlip.cache_clear()
    first = [fingerprint(measure), fingerprint(explaining)]
    fingerprints._fixlip.cache_clear()
    version = fingerprints.version
    if changed == "package":
        monkeypatch.setattr(fingerprints, "version", lambda name: (*version(name), "newer"))
    else:
        monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
    second = [fingerprint(measure), fingerprint(explaining)]
    assert first[0] != second[0] and first[1] != second[1]
    fingerprints._fixlip.cache_clear()

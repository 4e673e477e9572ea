"""Fingerprints: what changes a result changes the hash, what does not leaves it as it was."""

import collections
import dataclasses
import enum
import functools
import importlib
import math
import os
import shutil
import subprocess
import sys
import textwrap
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import fixlip
from fixlip.explanation import Explanation
from fixlip.studies import sources
from fixlip.studies.fingerprints import _Reader, fingerprint


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


class Told:
    def __init__(self, **info):
        self.info = info


def _values():
    """Values of which no two are the same input."""
    array = np.arange(6, dtype=np.float32)
    pixels = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    yield from (None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, math.nan, math.inf, 2**70)
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
    yield from (Colour.RED, Colour.BLUE, Colour, Pair, Other, Told)
    yield from (Pair("x"), Pair("y"), Pair("x", "a cat"), Other("x"), Pair(array))
    yield from (Told(), Told(a=1), Told(a=2), {"a": 1}, collections.OrderedDict(b=1))
    yield from (math.sin, math.cos, np.sin, np.cos, len, int, float, Path, np, math, torch)
    yield from (functools.partial(int, base=2), functools.partial(int, base=3), "x".join, "y".join)
    yield from (fixlip.explain, fixlip.sweep, fixlip, fixlip.games.exact, Explanation)


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


def test_hashes_are_the_same_in_every_process():
    """Whatever the seed of Python's own hashes, which orders sets."""
    code = """
import sys, types
package = types.ModuleType("fixlip")  # without its __init__, which would import torch
package.__path__ = [sys.argv[1]]
sys.modules["fixlip"] = package
from fixlip.studies.fingerprints import fingerprint
print(fingerprint([{"a", "b", "c"}, 0.1, "x"]))
"""
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(sources.PACKAGE)]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert out.stdout.strip() == fingerprint([{"a", "b", "c"}, 0.1, "x"])


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
        with pytest.raises(TypeError, match=f"this.a is a {type(value).__name__}, which has no"):
            fingerprint(Wrapped(value), "this")


@dataclasses.dataclass
class Wrapped:
    a: object


# --- functions -----------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module, import it anew, and give the fingerprint of its function `measure`."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(text, name="measuring", of="measure"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        return fingerprint(getattr(module, of))

    yield load
    for name in ("measuring", "helping"):
        sys.modules.pop(name, None)


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
    unit = 1
    def __init__(self, x):
        self.x = x
    @property
    def double(self):
        return twice(self.x)
    @classmethod
    def make(cls):
        return cls(3)

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

def make(exponent):
    def power(x):
        return x ** exponent
    return power

square = make(2)
table = {"scale": scale}

def measure(item, *, start=FACTOR):
    "What it does."
    values = [scale(x) for x in range(item)]  # a nested code object in older Pythons
    inner = lambda x: added(x) + cached(x) + square(x)
    return sum(values) + Meter(item).double + inner(start) + assist(item) + helping.more(item)
"""
HELP = """
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
        ("return 2 * x", "return 3 * x"),
        ("f(*args) + 1", "f(*args) + 2"),
        ("@decorate\ndef added(x):\n    return x", "@decorate\ndef added(x):\n    return x + 1"),
        ("@decorate\n", ""),
        ("def cached(x):\n    return x", "def cached(x):\n    return -x"),
        ("make(2)", "make(3)"),
        ("x ** exponent", "x ** (exponent + 1)"),
        ("start=FACTOR", "start=1"),
        ("range(item)", "range(1, item)"),
        ("added(x) + cached(x)", "added(x) - cached(x)"),
    ],
)
def test_what_a_function_refers_to_counts(write, old, new):
    assert old in BASE
    write(HELP, "helping", "assist")
    assert write(BASE) == write(BASE)
    assert write(BASE) != write(BASE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"What it does."', '"What it does, said better."'),
        ('    "What it does."\n', ""),
        ("# a nested", "# a deeply nested"),
        ("sum(values) +", "(sum( values )) +"),
        ("UNUSED = object()", "UNUSED = object"),
        ('table = {"scale": scale}', "table = {}"),
        ("def scale(x):\n", "def unrelated(x):\n    return 7\n\n\ndef scale(x):\n"),
    ],
)
def test_layout_comments_and_what_is_not_used_do_not_count(write, old, new):
    assert old in BASE
    write(HELP, "helping", "assist")
    assert write(BASE) == write(BASE.replace(old, new))


def test_other_modules_of_the_user_count_as_far_as_they_are_used(write):
    def with_help(text):
        write(text, "helping", "assist")
        return write(BASE)

    first = with_help(HELP)
    assert (
        with_help(HELP.replace("def assist(x):\n    return x", "def assist(x):\n    return 2"))
        != first
    )
    assert (
        with_help(HELP.replace("def more(x):\n    return x", "def more(x):\n    return 2")) != first
    )
    assert (
        with_help(HELP.replace("def other(x):\n    return x", "def other(x):\n    return 2"))
        == first
    )
    assert with_help(HELP) == first


@pytest.mark.parametrize(
    "line", ["from helping import more", "import helping", "import helping as h"]
)
def test_imports_inside_a_function_count(write, line):
    text = f"def measure(item):\n    {line}\n    return item\n"
    seen = set()
    for constant in "12":
        write(
            HELP.replace("def more(x):\n    return x", f"def more(x):\n    return {constant}"),
            "helping",
            "more",
        )
        seen.add(write(text))
    assert len(seen) == 2
    assert write("def measure(item):\n    import nowhere\n")


def test_modules_as_values_count_as_a_whole(write):
    text = (
        "import helping\ndef measure(item):\n    module = helping\n    return module.other(item)\n"
    )
    write(HELP, "helping", "assist")
    first = write(text)
    write(
        HELP.replace("def other(x):\n    return x", "def other(x):\n    return 2"),
        "helping",
        "assist",
    )
    assert write(text) != first


def test_globals_and_closures_that_cannot_be_told_are_refused(write):
    with pytest.raises(TypeError, match="'STATE', which measure reads, is a object, which has no"):
        write("STATE = object()\ndef measure(item):\n    return STATE\n")
    with pytest.raises(TypeError, match="'STATE', which inner reads, is a object"):
        text = "def inner():\n    return STATE\ndef measure(item):\n    return inner()\n"
        write("STATE = object()\n" + text)
    hidden = object()
    with pytest.raises(TypeError, match=r"'hidden', which test_glob.*<lambda> reads, is a object"):
        fingerprint(lambda item: hidden)


def test_lambdas_on_one_line_differ():
    one, two, three = (lambda x: x), (lambda x: -x), (lambda x: lambda y: x)
    assert len({fingerprint(f) for f in (one, two, three, three(1), three(2))}) == 5
    # fmt: off
    spread = functools.partial(lambda x, y:
        x + y, 3)
    # fmt: on
    assert fingerprint(spread)


def test_code_without_source_is_refused():
    namespace = {}
    exec("def measure(item): return 1", namespace)
    with pytest.raises(ValueError, match="f: the source of measure cannot be found"):
        fingerprint(namespace["measure"], "f")


def test_a_recursive_function_has_a_fingerprint():
    def descend(n):
        return ascend(n - 1) if n else 0

    def ascend(n):
        return descend(n)

    assert fingerprint(descend) != fingerprint(ascend)


def test_methods_and_wrappers():
    @torch.no_grad()
    def measured(item):
        return item

    @torch.enable_grad()
    def measured_too(item):
        return item

    assert fingerprint(measured) != fingerprint(measured_too)
    assert fingerprint(Told(a=1).__init__) != fingerprint(Told(a=2).__init__)


def test_a_module_that_changed_after_loading_is_refused(write, tmp_path):
    text = "def other():\n    return 1\n\ndef measure(item):\n    return item\n"
    first = write(text)
    path = tmp_path / "measuring.py"
    path.write_text("# a comment\n" + text)
    measure = sys.modules["measuring"].measure
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"cannot be found, .* restart Python where the file has"):
        fingerprint(measure)
    path.write_text(text.replace("return item", "return 2"))
    os.utime(path, ns=(2, 2))
    with pytest.raises(
        ValueError, match=r"measuring.py was changed after Python .* restart Python"
    ):
        fingerprint(measure)
    path.write_text(text)
    os.utime(path, ns=(3, 3))
    assert fingerprint(measure) == first


# --- fixlip itself -------------------------------------------------------------------------------


def used(value):
    """The modules of fixlip that count."""
    reader = _Reader()
    reader.value(value, "value")
    return {name for name, _ in sources.used(reader.modules)[0]}


def test_modules_count_by_what_is_used():
    explaining = used(lambda item: fixlip.explain(item))
    assert {"fixlip.pipeline", "fixlip.solver", "fixlip.solver.fit", "fixlip.sampler"} <= explaining
    assert not {"fixlip.plots", "fixlip.encoders", "fixlip.explainers.lime"} & explaining
    assert used(fixlip.games.exact) >= {"fixlip.games.exact", "fixlip.explanation"}
    assert "fixlip.solver" not in used(fixlip.games.exact)
    assert {"fixlip.encoders", "fixlip.encoders.sides", "fixlip.encoders.captions"} <= used(
        fixlip.Encoder
    )
    everything = used(lambda item: vars(fixlip))
    assert explaining < everything and "fixlip.explainers.lime" in everything
    assert not everything & {f"fixlip.{name}" for name in sources.VIEWS}
    packages = dict(sources.used({"fixlip.encoders"})[1])
    assert set(packages) >= {"torch", "open_clip", "numpy"} and all(packages.values())


def test_a_change_of_the_solver_counts_and_one_of_the_plots_does_not(tmp_path, monkeypatch):
    def measure(item):
        return fixlip.explain(item)

    first = fingerprint(measure)
    package = tmp_path / "fixlip"
    shutil.copytree(
        sources.PACKAGE, package, ignore=lambda _, names: [n for n in names if n == "models"]
    )
    monkeypatch.setattr(sources, "PACKAGE", package)
    assert fingerprint(measure) == first
    for name in ("plots.py", "explainers/lime.py", "captions.py"):
        (package / name).write_text("UNRELATED = 1\n" + (package / name).read_text())
    (package / "solver.py").write_text("# a comment\n" + (package / "solver.py").read_text())
    assert fingerprint(measure) == first
    (package / "sidefit.py").write_text((package / "sidefit.py").read_text() + "\nNEW = 1\n")
    assert fingerprint(measure) != first


def test_versions_of_packages_count(monkeypatch):
    def measure(item):
        return torch.sum(item)

    first = fingerprint(measure)
    version = sources.version
    monkeypatch.setattr(sources, "version", lambda name: (*version(name), "newer"))
    assert fingerprint(measure) != first


def test_encoders_count_by_their_weights_and_sides_by_their_pixels(model_folder, noise):
    folder = model_folder("clip")
    one, same = (fixlip.load(f"local-dir:{folder}") for _ in range(2))
    assert fingerprint(one) == fingerprint(same)
    sides = [
        one.image(noise),
        same.image(noise.copy()),
        one.image(255 - noise),
        one.text("a red star"),
    ]
    prints = [fingerprint(side) for side in sides]
    assert prints[0] == prints[1] and len(set(prints)) == 3
    assert fingerprint(one.image(noise, players="2x2")) != prints[0]
    other = fixlip.load(f"local-dir:{folder}")
    with torch.no_grad():
        other.model.visual.proj[0, 0] += 1e-3
    assert fingerprint(other) != fingerprint(one)

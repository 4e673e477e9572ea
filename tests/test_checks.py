"""Checks of arguments: what passes comes back, and every refusal says what was given."""

import math
import subprocess
import sys
import types
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from fixlip import checks

MASKS = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda: checks.one_of("rule", "left", ("left", "right")), "left"),
        (lambda: checks.one_of("order", 2, (1, 2, "product")), 2),
        (lambda: checks.one_of("part", None, iter(("cross", None))), None),
        (lambda: checks.integer("steps", np.int64(3)), 3),
        (lambda: checks.integer("seed", 0, at_least=0), 0),
        (lambda: checks.number("scale", -2), -2.0),
        (lambda: checks.number("ridge", np.float32(0), at_least=0), 0.0),
        (lambda: checks.probability(0.25), 0.25),
        (lambda: checks.probability(Fraction(1, 2)), 0.5),
        (lambda: checks.probability(Decimal("0.5")), 0.5),
        (lambda: checks.probability(torch.tensor(0.5)), 0.5),
        (lambda: checks.probability(np.float16(0.5)), 0.5),
        (lambda: checks.number("scale", np.array(2)), 2.0),
        (lambda: checks.number("scale", Fraction(1, 4)), 0.25),
        (lambda: checks.integer("steps", torch.tensor(3)), 3),
        (lambda: checks.integer("steps", np.array(3)), 3),
        (lambda: checks.seed(torch.tensor(4)), 4),
        (lambda: checks.ordinary("the scale", 0.0), 0.0),
        (lambda: checks.per_side("p", 0.5), (0.5, 0.5)),
        (lambda: checks.per_side("p", [0.3, 0.7]), (0.3, 0.7)),
        (lambda: checks.boolean_masks(MASKS, 3) is MASKS, True),
        (lambda: checks.instance(2, int, "count"), 2),
    ],
)
def test_what_is_right_comes_back(check, expected):
    found = check()
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (
            lambda: checks.one_of("rule", "left", ("right", "midpoint")),
            ValueError,
            'rule must be "right" or "midpoint", got \'left\'',
        ),
        (
            lambda: checks.one_of("order", True, (1, 2, "product")),  # True == 1, but is no order
            ValueError,
            'order must be 1, 2 or "product", got True',
        ),
        (lambda: checks.one_of("kind", "x", ["y"]), ValueError, "kind must be \"y\", got 'x'"),
        (
            lambda: checks.integer("steps", 2.5),
            ValueError,
            "steps must be a whole number of 1 or more, got 2.5",
        ),
        (lambda: checks.integer("steps", True), ValueError, "of 1 or more, got True"),
        (lambda: checks.integer("steps", "3"), ValueError, "got '3'"),
        (lambda: checks.integer("words", 1, at_least=2), ValueError, "of 2 or more, got 1"),
        (lambda: checks.number("scale", math.nan), ValueError, "scale must be a number, got nan"),
        (lambda: checks.number("scale", math.inf), ValueError, "scale must be a number, got inf"),
        (lambda: checks.number("scale", "1"), ValueError, "scale must be a number, got '1'"),
        (lambda: checks.number("scale", True), ValueError, "scale must be a number, got True"),
        (lambda: checks.number("scale", 1j), ValueError, "scale must be a number, got 1j"),
        (lambda: checks.number("scale", 10**400), ValueError, "scale must be a number, got 1000"),
        (lambda: checks.number("scale", Decimal("sNaN")), ValueError, "number, got Decimal"),
        (lambda: checks.number("scale", np.ones(2)), ValueError, "scale must be a number, got arr"),
        (lambda: checks.integer("steps", torch.tensor(True)), ValueError, "got tensor(True)"),
        (lambda: checks.probability(5e-324), ValueError, "got 5e-324 (0.5 weights all masks alike"),
        (
            lambda: checks.ordinary("the scale", 1e-80),
            ValueError,
            "the scale is 1e-80 in size: bri",
        ),
        (lambda: checks.instance(2, ArithmeticError, "x"), TypeError, "expected an Arithmetic"),
        (
            lambda: checks.number("ridge", -1, at_least=0),
            ValueError,
            "ridge must be a number of 0 or more, got -1",
        ),
        (
            lambda: checks.number("sigma", 0, above=0),
            ValueError,
            "sigma must be a number above 0, got 0",
        ),
        (lambda: checks.probability(1), ValueError, "strictly between 0 and 1, got 1 "),
        (lambda: checks.probability(True, "keep"), ValueError, "keep is the probability that"),
        (lambda: checks.per_side("p", (1, 2, 3)), ValueError, "p takes one value or two"),
        (lambda: checks.boolean_masks(MASKS.int() + 1), TypeError, "got dtype torch.int32"),
        (lambda: checks.boolean_masks([[True], [None]]), TypeError, "got list"),
        (lambda: checks.boolean_masks([[True], [True, False]]), TypeError, "got list"),
        (lambda: checks.boolean_masks("10"), TypeError, "got str"),
        (lambda: checks.seed(-1), ValueError, "seed must be a whole number of 0 or more, got -1"),
        (lambda: checks.seed(1.0), ValueError, "seed must be a whole number of 0 or more, got 1.0"),
        (lambda: checks.seed(2**63), ValueError, "seed must be below 2**63, got"),
        (
            lambda: checks.boolean_masks(MASKS, 4),
            ValueError,
            "the shape (masks, 4), one column per player, got (2, 3)",
        ),
        (
            lambda: checks.boolean_masks(MASKS[0]),
            ValueError,
            "the shape (masks, players), got (3,)",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_what_was_given(check, error, message):
    with pytest.raises(error) as caught:
        check()
    assert message in str(caught.value)


def test_a_lack_of_memory_is_recognised():
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ):
        assert checks.out_of_memory(error)
    for error in (RuntimeError("shapes do not fit"), ValueError("memory"), KeyboardInterrupt()):
        assert not checks.out_of_memory(error)


INSIDE = """
import contextlib
import torch
from fixlip.checks import warn

def shallow():
    warn("look here", RuntimeWarning)

@torch.no_grad()
def decorated():
    shallow()

@contextlib.contextmanager
def block():
    decorated()
    yield

def deep():
    with block():
        return
        
def calling(function):
    function()
"""


def test_a_warning_points_at_the_line_outside_fixlip():
    """Through one call or ten, through a decorator of torch and a context manager."""
    inside = types.ModuleType("fixlip.inside")
    exec(INSIDE, vars(inside))

    def user():
        inside.deep()

    calls = (inside.shallow, inside.decorated, inside.deep, user, lambda: inside.calling(user))
    own = user.__code__.co_firstlineno + 1
    for call in calls:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
            here = sys._getframe().f_lineno - 1
        (warning,) = seen
        assert warning.filename == __file__ and warning.category is RuntimeWarning
        assert warning.lineno == (here if call in calls[:3] else own)


def test_checks_need_no_torch():
    """Studies use them, and must not pay for an import of torch."""
    code = "import sys, fixlip.checks, fixlip.studies; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

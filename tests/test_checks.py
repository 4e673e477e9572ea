"""Checks of arguments: what passes comes back, and every refusal says what was given."""

import math
import subprocess
import sys
import types
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

import fixlip
from fixlip import checks, metrics

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


MASKED = np.ma.masked_array([1.0, 2.0], mask=[True, False])
SPARSE = torch.tensor([1.0, 2.0]).to_sparse()
META = torch.empty(2, device="meta")


class Words:
    """A side whose embeddings are what is given, whatever the masks."""

    n, names = 1, ("a",)

    def __init__(self, rows, **attributes):
        self.rows = rows
        vars(self).update(attributes)

    def embed(self, masks):
        return self.rows


def column(values):
    return values[:, None] if isinstance(values, np.ndarray) else values.unsqueeze(1)


USES = {
    "game": lambda values: fixlip.estimate(lambda masks: values, n=1, masks=2),
    "side": lambda values: fixlip.sweep(Words(column(values)), masks=2),
    "e1": lambda values: fixlip.Explanation(0.0, values, np.zeros((2, 2)), ("a", "b"), 1),
    "weights": lambda values: fixlip.MaskSample([[True], [False]], values),
    "masks": lambda values: fixlip.MaskSample(column(values), [1.0, 1.0]),
    "agreement": lambda values: metrics.agreement(values, [1.0, 2.0]),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("values", [MASKED, SPARSE, META], ids=["masked", "sparse", "meta"])
def test_numbers_that_are_hidden_do_not_count(use, values):
    """A masked array lost its mask in silence; sparse and meta tensors failed within torch."""
    with pytest.raises(ValueError, match=r"fill them or leave|give a dense one"):
        USES[use](values)


@pytest.mark.parametrize("use", ["e1", "weights", "agreement"])
@pytest.mark.parametrize("values", [["1", "2"], [1j, 2j], [None, 1.0]])
def test_what_is_no_real_number_is_told(use, values):
    with pytest.raises(ValueError, match="must be real numbers"):
        USES[use](np.array(values))


@pytest.mark.parametrize("kind", [np.longdouble, np.float16, np.uint8, np.int64, bool, pd.Series])
def test_a_game_may_return_numbers_of_any_kind(kind):
    def game(masks):
        values = masks[:, 0].numpy()
        return kind(values) if kind is pd.Series else values.astype(kind)

    assert fixlip.estimate(game, n=2, masks=4).e1.tolist() == [1.0, 0.0]


def test_an_array_that_cannot_be_written_is_read_without_a_warning():
    values = np.arange(4.0)
    values.setflags(write=False)
    fixlip.estimate(lambda masks: values, n=2, masks=4)


@pytest.mark.parametrize(
    "game",
    [
        lambda masks: 1e16 + masks.double().sum(1),
        lambda masks: (1e7 + masks.double().sum(1)).float(),
        lambda masks: masks.sum(1) + 2**62,
    ],
)
def test_values_that_rounding_has_made_coarse_are_warned_about(game):
    """Their terms have error bars of 0, and are wrong by a step of rounding."""
    with pytest.warns(UserWarning, match="values are rounded to"):
        fixlip.estimate(game, n=3, masks=8)
    fixlip.estimate(lambda masks: 20 + masks.float().sum(1), n=3, masks=8)  # no warning


def test_sides_say_what_is_wrong_with_them():
    rows = torch.ones(2, 1)
    for side, error in (
        (Words(rows, info=[1]), "info must be a dictionary, got"),
        (Words(rows, names=5), "1 players and 5 names"),
        (Words(torch.ones(2, 0)), "embeddings of width 0"),
    ):
        with pytest.raises((TypeError, ValueError), match=error):
            fixlip.sweep(side, masks=2)
    assert fixlip.sweep(Words(rows.numpy()), masks=2).embeddings.shape == (2, 1)

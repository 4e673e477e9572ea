"""What is wrong with an argument, said in one sentence: what was given, what was expected."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # imported where it is needed: a study does without torch
    import torch

MAX_ENUMERATED = 24  # 2**24 masks of 24 players are 400 MB: more is refused
TINY = 1e-75  # the fourth power of a smaller number is 0, and of its inverse infinite
PASSING = ("fixlip", "contextlib", "functools", "torch")  # calls pass through these packages


def one_of(name: str, value: Any, options: Iterable[Any]) -> Any:
    """Return ``value`` if it is one of ``options``, else raise ValueError.

    Examples
    --------
    >>> one_of("rule", "left", ("right", "midpoint"))
    Traceback (most recent call last):
    ValueError: rule must be "right" or "midpoint", got 'left'
    """
    options = tuple(options)
    if any(type(value) is type(option) and value == option for option in options):
        return value
    shown = [f'"{option}"' if isinstance(option, str) else repr(option) for option in options]
    listed = " or ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)
    raise ValueError(f"{name} must be {listed}, got {value!r}")


def integer(name: str, value: Any, *, at_least: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number of ``at_least`` or more, else raise.

    Examples
    --------
    >>> integer("steps", 2.5)
    Traceback (most recent call last):
    ValueError: steps must be a whole number of 1 or more, got 2.5
    """
    whole = plain(value)
    if isinstance(whole, bool) or not isinstance(whole, Integral) or whole < at_least:
        raise ValueError(f"{name} must be a whole number of {at_least} or more, got {value!r}")
    return int(whole)


def plain(value: Any) -> Any:
    """Return the number in an array or tensor without axes, and anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _real(value: Any) -> float:
    """Return a real number of any kind as a float; NaN for anything else, or a number too large."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return math.nan
    try:
        return float(value)
    except (OverflowError, ValueError):  # of whole numbers and fractions; of a signalling NaN
        return math.nan


def number(
    name: str, value: Any, *, at_least: float = -math.inf, above: float = -math.inf
) -> float:
    """Return ``value`` as a float if it is finite and not too small, else raise ValueError."""
    real = _real(value)
    if not math.isfinite(real) or real < at_least or real <= above:
        bound = f" above {above:g}" if above > -math.inf else ""
        bound = f" of {at_least:g} or more" if at_least > -math.inf else bound
        raise ValueError(f"{name} must be a number{bound}, got {value!r}")
    return real


def ordinary(what: str, largest: float) -> float:
    """Return the largest of some numbers, in size; raise where their products would be lost."""
    if largest and not TINY <= largest <= 1 / TINY:
        raise ValueError(
            f"{what} is {largest:.3g} in size: bring it between {TINY:g} and {1 / TINY:g} by a "
            "factor, as products of such numbers cannot be computed"
        )
    return largest


def visible(what: str, values: Any) -> Any:
    """Return values of which none is hidden: no masked array, no sparse or meta tensor.

    Examples
    --------
    >>> visible("the weights", np.ma.masked_array([1.0, 2.0], mask=[True, False]))
    Traceback (most recent call last):
    ValueError: the weights come as a masked array, of which hidden entries would count: fill them \
or leave them out
    """
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(
            f"{what} come as a masked array, of which hidden entries would count: fill them or "
            "leave them out"
        )
    layout, meta = getattr(values, "layout", None), getattr(values, "is_meta", False)
    if meta or str(layout).startswith("torch.sparse"):
        raise ValueError(
            f"{what} come as a {'meta' if meta else layout} tensor: give a dense one, with numbers"
        )
    return values


def numbers(name: str, values: Any) -> np.ndarray:
    """Return real, finite numbers of any kind as a float64 array, else raise ValueError."""
    if hasattr(visible(name, values), "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values  # of bfloat16, too
    array = np.asarray(values)
    if array.dtype == object and all(isinstance(v, Real | Decimal) for v in array.flat):
        array = array.astype(float)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be real numbers, got {array.dtype}")
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{bad} numbers of {name} are NaN or infinite: check where they come from")
    return array.astype(float)


def probability(p: Any, name: str = "p") -> float:
    """Return ``p`` as a float if it lies strictly between 0 and 1, else raise ValueError."""
    if not TINY <= (real := _real(p)) < 1:
        raise ValueError(
            f"{name} is the probability that a player is kept and must lie strictly between 0 and "
            f"1, got {p!r} (0.5 weights all masks alike"
            + (f"; {TINY:g} is the least possible)" if 0 < real < TINY else ")")
        )
    return real


def seed(value: Any) -> int:
    """Return a seed as an int if it is a whole number that torch and numpy take, else raise."""
    if (whole := integer("seed", value, at_least=0)) >= 2**63:
        raise ValueError(f"seed must be below 2**63, got {value!r}")
    return whole


def boolean_masks(masks: Any, n: int | None = None) -> torch.Tensor:
    """Return masks (m, n) as a boolean tensor, else raise TypeError or ValueError.

    They may be a tensor, an array or nested lists, of booleans or of the numbers 0 and 1.

    Examples
    --------
    >>> boolean_masks([[1, 0], [0, 0]])
    tensor([[ True, False],
            [False, False]])
    """
    import torch

    given = visible("the masks", masks)
    try:
        masks = masks if isinstance(masks, torch.Tensor) else torch.from_numpy(np.array(masks))
        zero_or_one = masks.dtype == torch.bool or bool(((masks == 0) | (masks == 1)).all())
    except (TypeError, ValueError, RuntimeError):
        zero_or_one = False
    if not zero_or_one:
        kind = f"dtype {given.dtype}" if hasattr(given, "dtype") else type(given).__name__
        raise TypeError(
            f"masks must be True (kept) or False, or 1 and 0, as a tensor or an array, got {kind}"
        )
    masks = masks.bool()
    if masks.ndim != 2 or (n is not None and masks.shape[1] != n):
        wanted = "(masks, players)" if n is None else f"(masks, {n}), one column per player"
        raise ValueError(f"masks must have the shape {wanted}, got {tuple(masks.shape)}")
    return masks


def instance(value: Any, kind: type, hint: str) -> Any:
    """Return ``value`` if it is of a kind, else raise TypeError with a hint how to get one."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(f"expected {article} {kind.__name__}, got {type(value).__name__}: {hint}")
    return value


def per_side(name: str, value: object) -> tuple[Any, ...]:
    """One value for both sides, or a value for the image and one for the text."""
    several = isinstance(value, tuple | list) or np.ndim(value) == 1
    both = tuple(value) if several else (value, value)
    if len(both) != 2:
        raise ValueError(f"{name} takes one value or two (image, text), got {value!r}")
    return both


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory: CUDA has a type for it, the CPU only words."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    cuda = type(error).__name__ == "OutOfMemoryError"  # torch's; without importing torch
    return cuda or isinstance(error, MemoryError) or any(w in str(error).lower() for w in words)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code whose call led here, however deep the call is.

    That line is the innermost one outside fixlip and outside the packages whose decorators and
    hooks fixlip's calls pass through (`contextlib`, `functools`, `torch`).
    """
    frame, level = inspect.currentframe().f_back, 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in PASSING:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)

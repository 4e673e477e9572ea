"""The terms of a second-order polynomial as one row: constant, first order, pairs i < j."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)


class Terms(NamedTuple):
    """Something of every term of n players: (...), (..., n) and (..., n, n)."""

    e0: float | np.ndarray
    e1: np.ndarray
    e2: np.ndarray


def count_terms(n: int, among: int | None = None) -> int:
    """How many terms n players have: a constant, n, and the pairs of all or ``among`` some."""
    k = n if among is None else among
    return 1 + n + k * (k - 1) // 2


def flatten(e0: Array, e1: Array, e2: Array | None) -> Array:
    """Rows (..., 1 + n + n (n - 1) / 2) of terms; of ``e2`` the pairs i < j count.

    Without ``e2`` no pair has a term, and none is kept: rows (..., 1 + n).

    Examples
    --------
    >>> flatten(np.array(1.0), np.array([2.0, 3.0]), np.array([[0.0, 5.0], [5.0, 0.0]])).tolist()
    [1.0, 2.0, 3.0, 5.0]
    """
    parts = (e0[..., None], e1)
    if e2 is not None:
        i, j = np.triu_indices(e1.shape[-1], 1)
        parts += (e2[..., i, j],)
    return torch.cat(parts, -1) if isinstance(e1, torch.Tensor) else np.concatenate(parts, -1)


def unflatten(rows: np.ndarray, n: int) -> Terms:
    """The terms of n players out of rows (..., 1 + n + n (n - 1) / 2), or (..., 1 + n)."""
    if rows.shape[-1] == 1 + n:
        return Terms(rows[..., 0], rows[..., 1:], np.broadcast_to(0.0, (*rows.shape[:-1], n, n)))
    e2 = np.zeros((*rows.shape[:-1], n, n))
    i, j = np.triu_indices(n, 1)
    e2[..., i, j] = e2[..., j, i] = rows[..., 1 + n :]
    return Terms(rows[..., 0], rows[..., 1 : 1 + n], e2)

"""Forward hooks that act in the thread that set them, so that threads can share a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

_SETTING = threading.Lock()  # torch numbers hooks without one: two threads can get the same number


@contextmanager
def hooks() -> Iterator[Callable[..., None]]:
    """Give a function that sets hooks until the block ends; passes of other threads ignore them.

    ``add(module.register_forward_hook, hook, **options)`` takes what torch's method takes.
    """
    owner, handles = threading.get_ident(), []

    def add(register: Callable, hook: Callable, **options: bool) -> None:
        def own(*given: object) -> object:
            return hook(*given) if threading.get_ident() == owner else None

        with _SETTING:
            handles.append(register(own, **options))

    try:
        yield add
    finally:
        with _SETTING:
            for handle in handles:
                handle.remove()


def keep_states(model: nn.Module) -> None:
    """Let blocks keep what derivatives need: checkpointed blocks run twice, past these hooks."""
    for module in model.modules():
        if getattr(module, "grad_checkpointing", False):
            module.grad_checkpointing = False

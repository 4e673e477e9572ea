"""Old names of modules, of their parts and of keywords: one error that says the new one."""

import importlib
import inspect
import re

import pytest

import fixlip
from fixlip import renamed
from fixlip.explainers import exclip, icam
from fixlip.explainers.methods import explain_all
from fixlip.sampler import draw


def new_names(text):
    """What of a text can be imported, as dotted names."""
    return re.findall(r"fixlip(?:\.\w+)+", text)


@pytest.mark.parametrize("old", sorted(renamed.MODULES))
def test_an_old_module_says_where_its_content_is(old):
    with pytest.raises(ImportError, match=re.escape(f"{old} is now")) as caught:
        importlib.import_module(old)
    assert renamed.MODULES[old] in str(caught.value)
    for name in new_names(renamed.MODULES[old]):
        found(name)
    top, _, last = old.rpartition(".")
    if last not in fixlip.__all__:
        with pytest.raises(ImportError, match="is now"):
            exec(f"from {top} import {last}")


@pytest.mark.parametrize("old", sorted(renamed.NAMES))
def test_an_old_name_says_the_new_one(old):
    module, _, name = old.rpartition(".")
    with pytest.raises(AttributeError, match=re.escape(f"{old} is now {renamed.NAMES[old]}")):
        getattr(importlib.import_module(module), name)
    for new in new_names(renamed.NAMES[old]):
        found(new)


def found(name):
    """Import a module, or take the name out of its module."""
    module, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), last)
    except AttributeError:
        return importlib.import_module(name)


@pytest.mark.parametrize(
    ("call", "old", "new"),
    [
        (draw, "method", "sampling"),
        (fixlip.sweep, "method", "sampling"),
        (fixlip.explain, "method", "sampling"),
        (fixlip.estimate, "method", "sampling"),
        (fixlip.advise, "method", "sampling"),
        (explain_all, "halves", "cache"),
        (exclip.factor, "method", "mode"),
        (icam.factor, "method", "mode"),
    ],
)
def test_an_old_keyword_says_the_new_one(call, old, new):
    with pytest.raises(TypeError, match=rf"{call.__name__}\(\) takes {new}= in place of {old}="):
        call(**{old: None})
    assert (
        new in inspect.signature(call).parameters and old not in inspect.signature(call).parameters
    )


def test_other_names_are_missing_as_usual():
    for module in (fixlip, fixlip.sampler, exclip):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            module.nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'fixlip\.nothing'"):
        importlib.import_module("fixlip.nothing")
    assert not hasattr(fixlip, "nothing")

"""Every example in a docstring of fixlip runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import fixlip

MODULES = [module.name for module in pkgutil.walk_packages(fixlip.__path__, "fixlip.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    examples = [
        e for m in MODULES for t in finder.find(importlib.import_module(m)) for e in t.examples
    ]
    assert len(examples) > 20

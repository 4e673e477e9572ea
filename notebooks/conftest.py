"""Notebooks under test: marked `notebook`, run first, their figures thrown away."""

import os
import tempfile

import pytest
from nbval.plugin import IPyNbCell

_folder = tempfile.TemporaryDirectory()
os.environ.setdefault("FIXLIP_OUTPUT", _folder.name)
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm misses ipywidgets


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the notebooks' cells, and put all that is marked so before the quick tests."""
    for item in items:
        if isinstance(item, IPyNbCell):
            item.add_marker(pytest.mark.notebook)
    items.sort(key=lambda item: item.get_closest_marker("notebook") is None)

"""Notebooks under test write their figures to a folder that is thrown away, not to figures/."""

import os
import tempfile

_folder = tempfile.TemporaryDirectory()
os.environ.setdefault("FIXLIP_OUTPUT", _folder.name)
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm misses ipywidgets

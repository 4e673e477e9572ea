"""The notebooks and what they read, copied out of the installed package or the checkout."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

from fixlip.files import user_path
from fixlip.paths import root

FOLDERS = ("notebooks", "data")  # in setup.py as well
UNUSED = ("__pycache__", ".ipynb_checkpoints", "demo_models", "openmoji", "world")


def copy(options: argparse.Namespace) -> int:
    """Copy them into a folder, which must be new or empty."""
    target = user_path(options.folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already, and not empty; give a new folder")
    source = Path(__file__).parents[1] / "compendium"  # of a wheel
    if not source.is_dir():
        source = root()
    target.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns(*UNUSED)
        shutil.copytree(source / name, target / name, ignore=ignored)
    count = len(list(target.glob("notebooks/*.ipynb")))
    print(f"{count} notebooks are in {target / 'notebooks'}; to open them:")
    print("pip install 'fixlip[notebooks]'")
    print(f"cd {subprocess.list2cmdline([str(target)])} && jupyter lab notebooks")
    return 0

"""What pyproject.toml cannot say: the wheel holds the notebooks, and the data that they read."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("notebooks", "data")  # as in fixlip/cli/notebooks.py
UNUSED = ("__pycache__", ".ipynb_checkpoints", "demo_models", "openmoji", "world")


class Build(build_py):
    """Puts them into the package, as ``fixlip/compendium``."""

    def run(self) -> None:
        """Build as always, then copy."""
        super().run()
        if not self.editable_mode:
            for name in FOLDERS:
                target = Path(self.build_lib, "fixlip", "compendium", name)
                ignored = shutil.ignore_patterns(*UNUSED)
                shutil.copytree(name, target, ignore=ignored, dirs_exist_ok=True)


setup(cmdclass={"build_py": Build})

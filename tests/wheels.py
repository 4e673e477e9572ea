"""A wheel of a copy of the checkout, for tests of what is installed."""

import subprocess
import sys
from pathlib import Path

BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"


def build(copy: Path) -> Path:
    """Build a wheel in the copy, by the setuptools that is installed."""
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return copy / done.stdout.split()[-1]

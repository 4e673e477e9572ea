"""The command ``fixlip``: explanations, models and notebooks without a line of Python."""

from fixlip.cli.main import main

__all__ = ["main"]

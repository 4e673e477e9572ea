"""Measurements over many items that can be killed at any moment and go on."""

from fixlip.studies.study import study

__all__ = ["study"]

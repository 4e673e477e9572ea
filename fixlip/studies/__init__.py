"""Measurements over many items, which may be killed at any moment and resumed."""

from fixlip.extras import need

need("a study", "studies")

from fixlip.studies.study import Study, study

__all__ = ["Study", "study"]

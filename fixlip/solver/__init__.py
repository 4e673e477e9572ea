"""Fit each side of a pair, and pair the fits into an explanation."""

from fixlip.solver.dense import solve_dense
from fixlip.solver.factor import Factor, pair, pair_scale
from fixlip.solver.fit import fit
from fixlip.solver.product import ProductExplanation
from fixlip.solver.solve import solve

__all__ = ["Factor", "ProductExplanation", "fit", "pair", "pair_scale", "solve", "solve_dense"]

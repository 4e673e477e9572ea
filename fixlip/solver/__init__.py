"""What follows from two sweeps: one fit per side, paired into an explanation."""

from fixlip.solver.dense import solve_dense
from fixlip.solver.factor import Factor, pair
from fixlip.solver.fit import fit
from fixlip.solver.product import ProductExplanation
from fixlip.solver.solve import solve

__all__ = ["Factor", "ProductExplanation", "fit", "pair", "solve", "solve_dense"]

"""What follows from two sweeps: one fit per side, paired into an explanation."""

from fixlip.solver.solve import solve, solve_dense

__all__ = ["solve", "solve_dense"]

"""How many masks: what an error costs, and how to split the time between the sides."""

from fixlip.budget.advice import MAX_MASKS, Advice, advise, sweep_to_tolerance

__all__ = ["MAX_MASKS", "Advice", "advise", "sweep_to_tolerance"]

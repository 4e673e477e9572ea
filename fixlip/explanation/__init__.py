"""The `Explanation`: values, error bars, views and files; and the best subsets of players."""

from fixlip.explanation.explanation import Explanation, Player
from fixlip.explanation.terms import Terms, count_terms, flatten, unflatten

__all__ = ["Explanation", "Player", "Terms", "count_terms", "flatten", "unflatten"]

"""What is said: the explanation, its views and files, and the subsets that it ranks first."""

from fixlip.explanation.explanation import Explanation, Player
from fixlip.explanation.terms import Terms, flatten, unflatten

__all__ = ["Explanation", "Player", "Terms", "flatten", "unflatten"]

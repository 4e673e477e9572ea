"""What is said: the explanation, its views and files, and the subsets that it ranks first."""

from fixlip.explanation.explanation import Explanation, Player, Terms

__all__ = ["Explanation", "Player", "Terms"]

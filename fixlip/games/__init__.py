"""Any function of masks: the joint game of two sides, exact transforms, sampled estimates."""

from fixlip.games import exact
from fixlip.games.estimate import estimate
from fixlip.games.game import Game, ask, count_players, joint_masks

__all__ = ["Game", "ask", "count_players", "estimate", "exact", "joint_masks"]

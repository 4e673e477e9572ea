"""How good an explanation is: faithful to the game, right in its ranking, right in its place.

============= ===================================================================================
module        question
============= ===================================================================================
faithfulness  does the explanation predict the score of masks it has not seen?
curves        does the score fall and rise when what matters is removed first, or last?
pointing      do words attract the part of a mosaic that shows their object? (truth is known)
comparison    do the explanations of several models agree? (a common grid, differences, shares)
============= ===================================================================================

Published rules are the defaults, but for three, which are options: ``text_token=True`` (the first
order's own words in the pointing game) and ``zeros="wrong"`` (its signs), ``guard=0`` (the AID
where the full and the empty mask score alike).
"""

from fixlip.extras import need

need("judging explanations", "studies")

from fixlip.metrics.curves import Curves, insertion_deletion, masks_by_ranking, masks_by_subsets
from fixlip.metrics.faithfulness import agreement, evaluation_masks, faithfulness, p_faithfulness
from fixlip.metrics.pointing import QUADRANTS, pointing, pointing_ratio, quadrants, sign_ratio

__all__ = ["QUADRANTS", "Curves", "agreement", "evaluation_masks", "faithfulness"]
__all__ += ["insertion_deletion", "masks_by_ranking", "masks_by_subsets", "p_faithfulness"]
__all__ += ["pointing", "pointing_ratio", "quadrants", "sign_ratio"]

"""Other explainers of dual encoders, one module per method, on the sides that an encoder makes.

========== ============================== ========= ========= ==============================
module     method and paper               order     gradients image towers
========== ============================== ========= ========= ==============================
exclip     exCLIP, Möller et al. 2025     2, cross  yes       all that `fixlip.load` opens
icam       InteractionCAM, Sammani et al. 2, cross  yes       all
           2023
itsm       ITSM, Li et al. 2022           2, cross  no        all (attention pooling: our way)
lime       InteractionLIME, Joukovsky et  2, cross  no        all; any side with ``embed``
           al. 2023
banzhaf    FIxLIP's cross terms, Baniecki 2, cross  no        all; any sweep
           et al. 2025
game       GAME, Chefer et al. 2021       1         yes       with CLS or attention pooling
grad_eclip Grad-ECLIP, Zhao et al. 2024   1         yes       with CLS or attention pooling
values     Shapley and weighted Banzhaf   1         no        all; any side with ``embed``
           values
========== ============================== ========= ========= ==============================

Import a method by its module: ``from fixlip.explainers import exclip``. Each has ``explain(
image_side, text_side)``, but for values, which has ``shapley_values`` and ``banzhaf_values``, and
banzhaf, which takes sweeps. Cross terms come as a `FactorPair`, and where ``factor(side)`` exists
one image's factor pairs with those of many captions; first-order methods give a `FirstOrderMap`.
Both turn into a `fixlip.Explanation` for views, plots, files and evaluation.
"""

from fixlip.encoders.spans import patches_in
from fixlip.explainers.maps import Factor, FactorPair, FirstOrderMap

__all__ = ["Factor", "FactorPair", "FirstOrderMap", "patches_in"]

"""Other explainers of dual encoders, one module per method, on the sides that an encoder makes.

================= ============================== ========= ========= =============================
module            method and paper               order     gradients image towers
================= ============================== ========= ========= =============================
exclip            exCLIP, Möller et al. 2025     2, cross  yes       all that `fixlip.load` opens
icam              InteractionCAM, Sammani et al. 2, cross  yes       all
                  2023
itsm              ITSM, Li et al. 2022           2, cross  no        all (attention pooling: our
                                                                     way)
lime              InteractionLIME, Joukovsky et  2, cross  no        all; any side with ``embed``
                  al. 2023
generic_attention GAME, Chefer et al. 2021       1         yes       CLS or attention pooling
grad_eclip        Grad-ECLIP, Zhao et al. 2024   1         yes       CLS or attention pooling
================= ============================== ========= ========= =============================

Where a module has ``factor(side)``, pair two factors with `fixlip.pair`; one image's factor pairs
with those of many captions. The others have ``explain(image_side, text_side)``. All give a
`fixlip.Explanation`. Shapley and weighted Banzhaf values of first order are `fixlip.estimate` and
`fixlip.solve` with order=1, or the ``first_order()`` of an explanation with pairs. `methods` runs
all of them on one pair, `presets` as published.
"""

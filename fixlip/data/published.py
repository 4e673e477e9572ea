"""Results of the FIxLIP paper, as far as they could be retrieved, to compare ours with."""

# Baniecki et al., NeurIPS 2025, Table 1: pointing game recognition of CLIP ViT-B/32 for one to four
# named objects, ImageNet mosaics. Known from a published summary of the paper; the rows for p = .3
# and .5, the other models and the standard deviations are missing from it.
POINTING_VIT_B_32: dict[str, tuple[float, float, float, float]] = {
    "GAME": (0.61, 0.43, 0.33, 0.28),
    "Grad-ECLIP": (0.68, 0.45, 0.33, 0.28),
    "Shapley values": (0.70, 0.56, 0.46, 0.37),
    "exCLIP": (0.73, 0.88, 0.89, 0.92),
    "Shapley interactions": (0.83, 0.82, 0.84, 0.86),
    "FIxLIP p=0.7": (0.83, 0.81, 0.83, 0.85),
}
# The chance level that the paper quotes: that of a map without negative entries, everywhere alike.
POINTING_CHANCE = 0.25

# The same table, one named object, from the same summary: FIxLIP on SigLIP 2 and on CLIP.
POINTING_SIGLIP_2, POINTING_CLIP = 0.90, 0.83

# What the same summary says where no number could be retrieved.
FAITHFULNESS = (
    "figure 4: first-order gradient methods correlate with about 0.5, FIxLIP comes near 1.0, and "
    "correlations drop with more patches"
)
INSERTION_DELETION = (
    "figure 3: FIxLIP with p = 0.5 has the largest area, exCLIP a medium one, GAME and Grad-ECLIP "
    "small ones; no number could be retrieved"
)

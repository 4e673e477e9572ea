"""COCO's run-length codes, made in a slow and obvious way."""

import numpy as np


def rle(mask):
    """An uncompressed run-length code, by the definition: runs of 0 and 1 in turn, by columns."""
    flat, counts, value = mask.ravel(order="F"), [], 0
    while len(flat):
        end = np.flatnonzero(flat != value)
        run = end[0] if len(end) else len(flat)
        counts.append(int(run))
        flat, value = flat[run:], 1 - value
    return {"size": list(mask.shape), "counts": counts}

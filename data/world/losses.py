"""CLIP's and SigLIP's losses with the exact truth in place of "only the diagonal is true"."""

import math

import torch
from batches import FALSE, TRUE, UNKNOWN, Batch
from torch.nn.functional import cross_entropy, logsigmoid


def softmax_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """CLIP's loss: each image against what is false of it, each own caption likewise.

    `logits` (R, C). What is also true of another image is neither positive nor negative there; an
    image meets its own caption with fewer words, and a caption its image with fewer patches, as
    negatives, so that scores grow with what is seen.
    """
    own = torch.arange(batch.scenes)
    ruled_out = logits.masked_fill(batch.truth != FALSE, -math.inf)
    ruled_out[own, own] = logits[own, own]
    by_image = cross_entropy(ruled_out[: batch.scenes], own)
    return (by_image + cross_entropy(ruled_out.T[: batch.scenes], own)) / 2


def sigmoid_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """SigLIP's loss: every pair on its own.

    Captions and images with something hidden are less true than whole ones, and not false: only
    those with nothing left count here.
    """
    truth = batch.truth.clone()
    hidden = slice(batch.captions, batch.captions + batch.scenes)
    truth[:, hidden] = UNKNOWN
    truth[batch.scenes : -1] = UNKNOWN if len(truth) > batch.scenes else truth[batch.scenes : -1]
    labels = (truth == TRUE).to(logits.dtype) - (truth == FALSE).to(logits.dtype)
    return -(logsigmoid(labels * logits) * labels.abs()).sum() / batch.scenes

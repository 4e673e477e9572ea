"""open_clip's losses with the exact truth of every caption, and a probe that teaches places."""

import math

import torch
from batches import FALSE, TRUE
from open_clip.loss import ClipLoss, SigLipLoss
from torch.nn.functional import cross_entropy, logsigmoid


class ExactClipLoss(ClipLoss):
    """Softmax loss between each image and its own captions, against all that is known to be false.

    Captions that are also true of another image are neither positive nor negative there.
    """

    def forward(self, images, texts, logit_scale, truth, own):
        """`images` (B, D), `texts` (C, D), `truth` (B, C), `own` (P, 2) -> scalar loss."""
        logits, _ = self.get_logits(images, texts, logit_scale)  # (B, C)
        ruled_out = logits.masked_fill(truth != FALSE, -math.inf)  # (B, C)
        positive = logits[own[:, 0], own[:, 1]][:, None]  # (P, 1)
        target = torch.zeros(len(own), dtype=torch.long, device=logits.device)
        by_image = torch.cat([positive, ruled_out[own[:, 0]]], dim=1)  # (P, 1 + C)
        by_text = torch.cat([positive, ruled_out.T[own[:, 1]]], dim=1)  # (P, 1 + B)
        return (cross_entropy(by_image, target) + cross_entropy(by_text, target)) / 2


class ExactSigLipLoss(SigLipLoss):
    """Sigmoid loss with the exact truth as labels; undecided pairs are left out."""

    def forward(self, images, texts, logit_scale, logit_bias, truth):
        """`images` (B, D), `texts` (C, D), `truth` (B, C) -> scalar loss."""
        logits = self.get_logits(images, texts, logit_scale, logit_bias)  # (B, C)
        labels = (truth == TRUE).to(logits.dtype) - (truth == FALSE).to(logits.dtype)
        return -(logsigmoid(labels * logits) * labels.abs()).sum() / len(images)


class PlaceProbe(torch.nn.Linear):
    """Reads from an embedding where each shape and each colour is; for training only.

    Contrastive learning alone left relations at chance for thousands of steps: both towers start
    blind to places, and while one is blind the other gains nothing by seeing. The same linear probe
    is fitted to the images' embeddings (where is the star?) and to those of relation captions (the
    star is further left than the ring). The captions' part is learnt at once, and from then on the
    contrastive loss has a direction to follow in the images.
    """

    def __init__(self, width: int):
        super().__init__(width, 18 * 2)
        torch.nn.init.orthogonal_(self.weight, gain=4.0)  # a fraction of a unit vector says it all

    def forward(self, images, texts, places, orders):
        """`images` (B, D), `texts` (C, D), `places` (B, 18, 2), `orders` (R, 5) -> scalar loss."""
        seen = super().forward(images).view(-1, 18, 2)
        known = ~places.isnan()
        loss = (seen[known] - places[known]).square().mean()
        if len(orders):
            caption, axis, sign, first, second = orders.unbind(dim=1)  # (R,) each
            told = super().forward(texts).view(-1, 18, 2)
            gap = told[caption, first, axis] - told[caption, second, axis]  # (R,)
            loss = loss - logsigmoid(3 * sign * gap).mean()
        return loss

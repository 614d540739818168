"""The supervised loss: half soft Dice, half cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dice_loss(logits: Tensor, labels: Tensor, smooth: float = 1e-5) -> Tensor:
    """Soft Dice loss with squared denominators (Milletari et al., 3DV 2016), mean over all K classes.

    Sums run over the whole batch, as in the field's semi-supervised literature.

    Args:
        logits: (B, K, *S).
        labels: (B, *S) int64 in [0, K).
    """
    classes = logits.shape[1]
    probability = logits.softmax(1)
    every = torch.arange(classes, device=labels.device)
    target = (labels[..., None] == every).movedim(-1, 1).to(probability.dtype)  # one_hot reads its input back
    axes = [0, *range(2, logits.ndim)]
    intersection = (probability * target).sum(axes)
    total = probability.square().sum(axes) + target.sum(axes)
    return (1.0 - (2.0 * intersection + smooth) / (total + smooth)).mean()


def supervised_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """½ (Dice + cross-entropy); shapes as in `dice_loss`."""
    return 0.5 * (dice_loss(logits, labels) + F.cross_entropy(logits, labels))

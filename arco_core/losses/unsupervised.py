"""The unsupervised loss: pseudo-labels on strongly augmented images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def unsupervised_loss(logits: Tensor, pseudo_labels: Tensor, confidence: Tensor, threshold: float) -> Tensor:
    """Cross-entropy to the teacher's pseudo-label, weighted per image by its share of confident pixels.

    Args:
        logits: (B, K, *S) of the student on the strong view.
        pseudo_labels: (B, *S) int64 of the teacher on the weak view, mixed as the images were.
        confidence: (B, *S) the teacher's largest probability.
        threshold: confidence from which a pixel counts.
    """
    weight = (confidence >= threshold).flatten(1).to(logits.dtype).mean(1)
    entropy = F.cross_entropy(logits, pseudo_labels, reduction="none").flatten(1).mean(1)
    return (weight * entropy).mean()

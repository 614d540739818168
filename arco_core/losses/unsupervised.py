"""The unsupervised loss: pseudo-labels on strongly augmented images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def unsupervised_loss(logits: Tensor, pseudo_labels: Tensor, confidence: Tensor, threshold: float) -> Tensor:
    """Cross-entropy to the teacher's pseudo-label, weighted per image by its share of confident pixels.

    Pixels that CutOut has erased, and only these, have confidence 0. They take no part: there is nothing to
    be seen that would tell their label.

    Args:
        logits: (B, K, *S) of the student on the strong view.
        pseudo_labels: (B, *S) int64 of the teacher on the weak view, mixed as the images were.
        confidence: (B, *S) the teacher's largest probability, 0 where the image is erased.
        threshold: confidence from which a pixel counts.
    """
    shown = confidence > 0
    count = shown.flatten(1).sum(1).clamp_min(1).to(logits.dtype)
    weight = ((confidence >= threshold) & shown).flatten(1).sum(1) / count
    entropy = F.cross_entropy(logits, pseudo_labels, reduction="none") * shown
    return (weight * entropy.flatten(1).sum(1) / count).mean()

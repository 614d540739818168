"""The equivariance loss of the released 2D code (METHOD section 3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def equivariance_loss(warped_prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """KL(target || prediction), averaged by `weight` within each image, then over images.

    Args:
        warped_prediction: (B, K, *S) student logits for the warped image.
        target: (B, K, *S) logits for the image, warped; no gradient flows into it.
        weight: (B, *S) in [0, 1]: confident foreground, warped.
    """
    reference = target.detach().log_softmax(1)
    divergence = F.kl_div(warped_prediction.log_softmax(1), reference, reduction="none", log_target=True).sum(
        1
    )
    weight = weight.flatten(1)
    return ((divergence.flatten(1) * weight).sum(1) / (weight.sum(1) + 1e-7)).mean()

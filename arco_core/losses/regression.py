"""The loss of BYOL."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def regression_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over images of ‖p/‖p‖ - t/‖t‖‖² = 2 - 2 cos(p, t) (Grill et al., NeurIPS 2020, equation 2).

    Args:
        predictions: (B, D) of the student's predictor.
        targets: (B, D) of the teacher's projector; no gradient flows into them.
    """
    return (2.0 - 2.0 * F.cosine_similarity(predictions, targets.detach(), dim=1)).mean()

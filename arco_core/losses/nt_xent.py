"""The loss of SimCLR.

MONAI's `ContrastiveLoss` is the same one; it sums exponentials without a maximum taken out, holds all
2B × 2B × D products, and copies masks to the device in every step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean over all 2B embeddings i of -log [ e^{z_i·z_j/τ} / Σ_{k≠i} e^{z_i·z_k/τ} ], j its other view.

    Chen et al., ICML 2020, equation 1 and algorithm 1; products are cosines.

    Args:
        first, second: (B, D) embeddings of two views of the same images.
        temperature: τ.
    """
    z = F.normalize(torch.cat([first, second]), dim=1)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / temperature).masked_fill(own, -torch.inf)
    positive = (z * z.roll(len(first), 0)).sum(1) / temperature
    return (torch.logsumexp(logits, dim=1) - positive).mean()

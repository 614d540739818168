"""The anatomical contrastive loss (You et al. 2023, E.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    queries: Tensor, positives: Tensor, negatives: Tensor, valid: Tensor, temperature: float
) -> Tensor:
    """Mean over the valid classes c of the mean over queries q of

        -log [ e^{q·p_c/τ} / (e^{q·p_c/τ} + Σ_j e^{q·k_j/τ}) ],   all products being cosines.

    Args:
        queries: (K, n_q, D) student representations.
        positives: (K, D) mean teacher representation of each class.
        negatives: (K, s, n_k, D) keys of other classes, of unit length as banks keep them; the queries
            of a class are split evenly, in order, among its s sets.
        valid: (K,) bool, classes that take part.
        temperature: τ.

    Returns:
        0-dim loss; 0, with a gradient path, when fewer than two classes are valid.
    """
    loss = query_losses(queries, positives, negatives, temperature).mean(1)
    taking_part = valid & (valid.sum() >= 2)
    return torch.where(taking_part, loss, 0.0 * loss).sum() / taking_part.sum().clamp_min(1)


def query_losses(queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """The term of each query, (K, n_q); arguments as of `contrastive_loss`."""
    classes, _, dim = queries.shape
    sets = negatives.shape[1]
    q = F.normalize(queries, dim=2) / temperature
    positive = torch.einsum("kqd,kd->kq", q, F.normalize(positives, dim=1))
    keys = negatives.view(classes * sets, -1, dim)
    negative = torch.bmm(q.view(classes * sets, -1, dim), keys.transpose(1, 2)).view(classes, q.shape[1], -1)
    return torch.logsumexp(torch.cat([positive[..., None], negative], dim=2), dim=2) - positive

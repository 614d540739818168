"""InfoNCE against a queue of keys (MoCo), and its neighbours' form (kNN-MoCo)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_OUT = -1e4  # e to it is 0, and 0 times it is 0: with -inf, sums over nothing would give NaN


def info_nce_loss(
    queries: Tensor, positives: Tensor, queue: Tensor, count: Tensor, temperature: float
) -> Tensor:
    """Mean over queries of -log [ e^{q·k/τ} / (e^{q·k/τ} + Σ_j e^{q·n_j/τ}) ], all products being cosines.

    He et al., CVPR 2020, equation 1; Chen et al., arXiv:2003.04297.

    Args:
        queries: (B, D) student embeddings.
        positives: (B, D) teacher embeddings of the same images; no gradient flows into them.
        queue: (N, D) earlier teacher embeddings, of unit length as banks keep them.
        count: 0-dim int64, how many leading slots of the queue are filled.
        temperature: τ.

    Returns:
        0-dim loss; 0, with a gradient path, while the queue is empty.
    """
    q = F.normalize(queries, dim=1)
    positive = (q * F.normalize(positives.detach(), dim=1)).sum(1, keepdim=True) / temperature
    negative = _similarities(q, queue, count, temperature)
    return (torch.logsumexp(torch.cat([positive, negative], dim=1), dim=1) - positive[:, 0]).mean()


def neighbor_nce_loss(
    queries: Tensor,
    features: Tensor,
    queue: Tensor,
    feature_queue: Tensor,
    count: Tensor,
    neighbors: int,
    temperature: float,
) -> Tensor:
    """Mean over queries and their neighbours i of -log [ e^{q·n_i/τ} / Σ_j e^{q·n_j/τ} ].

    Neighbours are found among the encoder's features, and drawn close among the embeddings (Van Gansbeke et
    al., NeurIPS 2021, section 4.3, and the authors' code).

    Args:
        queries: (B, D) student embeddings.
        features: (B, C) the student's features below the projector; they only choose.
        queue: (N, D) earlier teacher embeddings, of unit length.
        feature_queue: (N, C) the teacher's features of the same images, of unit length.
        count: 0-dim int64, how many leading slots of both queues are filled.
        neighbors: how many of the nearest by cosine.
        temperature: τ.

    Returns:
        0-dim loss; 0, with a gradient path, while the queues hold fewer than `neighbors` keys.
    """
    near = _similarities(F.normalize(features.detach(), dim=1), feature_queue, count, 1.0)
    chosen = near.topk(neighbors, dim=1).indices
    logits = _similarities(F.normalize(queries, dim=1), queue, count, temperature)
    loss = -logits.log_softmax(1).gather(1, chosen).mean()
    return torch.where(count >= neighbors, loss, 0.0 * loss)


def _similarities(queries: Tensor, queue: Tensor, count: Tensor, temperature: float) -> Tensor:
    """(B, N) cosines of unit vectors over τ, and what counts as nothing at slots that are not filled."""
    filled = torch.arange(len(queue), device=queue.device) < count
    return (queries @ queue.T / temperature).masked_fill(~filled, _OUT)

"""The nearest-neighbour loss (You et al. 2023, L_nn), with the gradient that the released code lacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def neighbor_loss(student: Tensor, bank: Tensor, count: Tensor, neighbors: int) -> Tensor:
    """Mean of 2 - 2 cos between each image and its nearest neighbours in a bank of teacher keys.

    Args:
        student: (B, D) image-level student representations.
        bank: (M, D) teacher representations of unlabelled images.
        count: 0-dim int64, how many leading slots of the bank are filled.
        neighbors: how many nearest neighbours (of the student, by cosine).

    Returns:
        0-dim loss; 0, with a gradient path, while the bank holds fewer than `neighbors` keys.
    """
    cosine = F.normalize(student, dim=1) @ F.normalize(bank, dim=1).T
    filled = torch.arange(len(bank), device=bank.device) < count
    nearest = cosine.masked_fill(~filled, -2.0).topk(neighbors, dim=1).values
    loss = (2.0 - 2.0 * nearest).mean()
    return torch.where(count >= neighbors, loss, 0.0 * loss)


def released_neighbor_loss(
    student: Tensor, teacher: Tensor, bank: Tensor, count: Tensor, neighbors: int
) -> Tensor:
    """The term as the released code computes it: the student picks its neighbours, but the distance to them
    is the frozen teacher's (B, D). Its gradient is zero.
    """
    cosine, frozen = (F.normalize(t.detach(), dim=1) @ F.normalize(bank, dim=1).T for t in (student, teacher))
    filled = torch.arange(len(bank), device=bank.device) < count
    nearest = cosine.masked_fill(~filled, -2.0).topk(neighbors, dim=1).indices
    loss = (2.0 - 2.0 * frozen.gather(1, nearest)).mean()
    return torch.where(count >= neighbors, loss, 0.0) + 0.0 * student.sum()

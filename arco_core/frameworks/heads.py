"""Projectors and predictors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(sizes: Sequence[int], *, norm: bool = False, last_bias: bool = True) -> nn.Sequential:
    """Linear layers of these sizes with ReLU between them, and batch norm before it where `norm` says so."""
    *hidden, last = pairwise(sizes)
    layers: list[nn.Module] = []
    for width, out in hidden:
        layers.append(nn.Linear(width, out, bias=not norm))
        if norm:
            layers.append(batch_norm(out))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(*last, bias=last_bias))


def batch_norm(width: int) -> nn.BatchNorm1d:
    """By the batch's own statistics, always: heads are used in training alone, where averages have no use."""
    return nn.BatchNorm1d(width, track_running_stats=False)

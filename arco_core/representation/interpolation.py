"""Linear interpolation up a feature pyramid, as one sparse matrix per level and axis.

Up-sampling from a level to the finest goes through every level between them, each step linear with
aligned corners, so along one axis it is a product of sparse matrices. Rows of the product hold at most
three or four non-zeros: the taps of an output pixel.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Taps(NamedTuple):
    """What each of the finest level's positions along one axis is interpolated from."""

    source: Tensor
    """(S, t) int64 positions in the coarse level."""
    weight: Tensor
    """(S, t) weights; rows sum to 1, unused taps weigh 0."""


@lru_cache(maxsize=64)
def upsampling_matrix(coarse: int, fine: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(fine, coarse) matrix of one linear up-sampling with aligned corners."""
    position = torch.arange(fine, dtype=torch.float64) * ((coarse - 1) / max(fine - 1, 1))
    low = position.long().clamp_max(max(coarse - 2, 0))
    fraction = position - low
    matrix = torch.zeros(fine, coarse, dtype=torch.float64)
    rows = torch.arange(fine)
    matrix[rows, low] = 1.0 - fraction
    if coarse > 1:
        matrix[rows, low + 1] += fraction
    return matrix.to(device=device, dtype=dtype)


@lru_cache(maxsize=64)
def taps(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Taps:
    """Taps from the first of `sizes` (one axis, coarse to fine) to the last, through all between."""
    cpu = torch.device("cpu")
    matrix = torch.eye(sizes[0], dtype=torch.float64)
    for coarse, fine in pairwise(sizes):
        matrix = upsampling_matrix(coarse, fine, cpu, torch.float64) @ matrix
    count = int((matrix > 0).sum(1).max())
    weight, index = matrix.topk(count, dim=1)
    return Taps(index.to(device), weight.to(device=device, dtype=dtype))

"""Hilbert order of a 2D or 3D grid (Skilling, AIP Conf. Proc. 707, 2004)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@lru_cache(maxsize=32)
def hilbert_order(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Flat (raster) positions of a grid in the order in which a Hilbert curve visits them.

    A grid that is no power-of-two cube is visited as part of the smallest cube that holds it.

    Returns:
        (prod(shape),) int64 permutation, cached; do not write into it.
    """
    bits = max(1, (max(shape) - 1).bit_length())
    points = np.indices(shape, dtype=np.int64).reshape(len(shape), -1)
    order = np.argsort(_hilbert_index(points, bits), kind="stable")
    return torch.from_numpy(order).to(device)


def _hilbert_index(points: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Index along the curve of `points` (d, N), each coordinate below 2^bits."""
    x = points.copy()
    dims = len(x)
    q = 1 << (bits - 1)
    while q > 1:  # undo the excess rotations, from coarse to fine
        low = q - 1
        for i in range(dims):
            flip = (x[i] & q) > 0
            swap = np.where(flip, 0, (x[0] ^ x[i]) & low)
            x[0] ^= np.where(flip, low, swap)
            x[i] ^= swap
        q >>= 1
    for i in range(1, dims):  # Gray encode
        x[i] ^= x[i - 1]
    parity = np.zeros_like(x[0])
    q = 1 << (bits - 1)
    while q > 1:
        parity ^= np.where((x[-1] & q) > 0, q - 1, 0)
        q >>= 1
    x ^= parity
    index: NDArray[np.int64] = np.zeros_like(x[0])
    for bit in range(bits - 1, -1, -1):  # interleave, first axis most significant
        for i in range(dims):
            index = (index << 1) | ((x[i] >> bit) & 1)
    return index

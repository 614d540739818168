"""Volumes (D, H, W) onto another grid: resampled over the same extent, then padded or cropped.

Grids are compared by voxel centres: voxel i of n covers [i/n, (i + 1)/n] of the extent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from arco_core.preprocess.geometry import Shape


def resample_linear(volume: npt.NDArray[np.float32], size: Shape) -> npt.NDArray[np.float32]:
    """Linear along each axis; where voxels get larger, the filter does too, so that nothing aliases."""
    resized = torch.from_numpy(np.ascontiguousarray(volume))
    if resized.shape[1:] != size[1:]:
        resized = bilinear(resized[:, None], size[1:])[:, 0]
    if resized.shape[0] != size[0]:
        # torch has no antialiasing filter for three axes; the filter is a product, so depth goes by itself.
        flat = resized.reshape(1, 1, len(resized), -1)
        resized = bilinear(flat, (size[0], flat.shape[3])).view(size)
    return np.asarray(resized.numpy(), dtype=np.float32)


def resample_nearest(volume: npt.NDArray[np.uint8], size: Shape) -> npt.NDArray[np.uint8]:
    """Voxel centres of the new grid look up the old voxel that they fall in; on a border, the later one."""
    for axis, (old, new) in enumerate(zip(volume.shape, size, strict=True)):
        if old != new:
            # The centre (i + 1/2) / new lies in the old voxel floor((i + 1/2) * old / new); in whole numbers.
            index = (2 * np.arange(new) + 1) * old // (2 * new)
            volume = np.take(volume, index, axis=axis)
    return volume


def fit(volume: npt.NDArray[Any], size: Shape, *, fill: float) -> npt.NDArray[Any]:
    """Crop or pad around the centre.

    Fitting to a size and back to the old one returns every voxel that survived to its place:
    both ways take the smaller half of the difference on the leading side.
    """
    if volume.shape == size:
        return volume
    fitted = np.full(size, fill, dtype=volume.dtype)
    source, target = shared(volume.shape, size)
    fitted[target] = volume[source]
    return fitted


def shared(old: Sequence[int], new: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the voxels that `fit` keeps lie in an array of the sides `old`, and in one of the sides `new`."""
    source, target = [], []
    for before, after in zip(old, new, strict=True):
        width, margin = min(before, after), abs(before - after) // 2
        source.append(slice(margin, margin + width) if before > after else slice(width))
        target.append(slice(margin, margin + width) if after > before else slice(width))
    return tuple(source), tuple(target)


def bilinear(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (B, C, H, W) at another size, as `resample_linear` does it."""
    return functional.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)

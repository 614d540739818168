"""Intensities to the range that a network is trained on."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from arco_core.config import DataConfig
from arco_core.errors import DataError

_LARGEST = float(np.finfo(np.float32).max)
_BULK = (0.5, 99.5)
"""Percentiles between which the contrast of all but a few voxels lies."""
_LEAST_CONTRAST = 1e-5
"""Of that, in the scaled image: below, a few voxels have taken the range for themselves."""
_SAMPLE = 2**18
"""Voxels that tell where the bulk lies."""


def scale_intensity(voxels: npt.NDArray[np.float32], config: DataConfig) -> npt.NDArray[np.float32]:
    """`voxels` (D, H, W) of one channel, of the part of the scan that is kept, as `config.intensity` says.

    Raises `DataError` where there is no contrast to scale, or where a few voxels leave none to the others.
    """
    offset, scale = _offset_and_scale(voxels, config)
    reach = max(abs(float(voxels.max()) - offset), abs(float(voxels.min()) - offset))
    if not (reach <= _LARGEST and scale <= _LARGEST):
        raise DataError(_beyond(voxels))
    if scale <= 0:
        raise DataError(
            f"the image has no contrast: {config.intensity} scaling finds the single value {offset:g}; "
            "the scan is empty, or data.percentiles must be wider"
        )
    if config.intensity != "window":  # which is the user's own
        low, high = np.percentile(voxels.reshape(-1)[:: -(-voxels.size // _SAMPLE)], _BULK)
        if 0 < high - low < scale * _LEAST_CONTRAST:
            raise DataError(_beyond(voxels))
    scaled = voxels - np.float32(offset)
    scaled /= np.float32(scale)
    return scaled if config.intensity == "zscore" else np.clip(scaled, 0.0, 1.0, out=scaled)


def _offset_and_scale(voxels: npt.NDArray[np.float32], config: DataConfig) -> tuple[float, float]:
    if config.intensity == "window":
        low, high = config.window_hu
    elif config.intensity == "minmax":
        with np.errstate(all="ignore"):  # what overflows is refused
            low, high = (float(v) for v in np.percentile(voxels, config.percentiles))
    else:
        # Squares of single precision overflow; a slice at a time, as double precision takes twice the memory.
        mean = float(voxels.mean(dtype=np.float64))
        squares = (float(np.square(part.astype(np.float64) - mean).sum()) for part in voxels)
        return mean, math.sqrt(math.fsum(squares) / voxels.size)
    return low, high - low


def _beyond(voxels: npt.NDArray[np.float32]) -> str:
    return (
        f"the voxels reach from {float(voxels.min()):g} to {float(voxels.max()):g}, so far that a few of "
        "them leave no contrast to the others: repair them, or leave them out by data.intensity = 'minmax' "
        "with narrower data.percentiles, or by a window"
    )

"""Intensities to the range that a network is trained on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from arco_core.config import DataConfig
from arco_core.errors import DataError


def scale_intensity(voxels: npt.NDArray[np.float32], config: DataConfig) -> npt.NDArray[np.float32]:
    """`voxels` of one channel, of the part of the scan that is kept, scaled as `config.intensity` says.

    Raises `DataError` where there is no contrast to scale.
    """
    if config.intensity == "zscore":
        offset, scale = float(voxels.mean()), float(voxels.std())
    else:
        low, high = (
            config.window_hu
            if config.intensity == "window"
            else (float(v) for v in np.percentile(voxels, config.percentiles))
        )
        offset, scale = low, high - low
    if scale <= 0:
        raise DataError(
            f"the image has no contrast: {config.intensity} scaling finds the single value {offset:g}; "
            "the scan is empty, or data.percentiles must be wider"
        )
    scaled = voxels - np.float32(offset)
    scaled /= np.float32(scale)
    return scaled if config.intensity == "zscore" else np.clip(scaled, 0.0, 1.0, out=scaled)

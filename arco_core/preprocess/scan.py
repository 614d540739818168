"""A scan through all steps of the preparation, and a label map all the way back."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from arco_core.config import DataConfig
from arco_core.errors import DataError
from arco_core.preprocess.crop import crop_box
from arco_core.preprocess.geometry import Box, Geometry
from arco_core.preprocess.grid import fit, resample_linear, resample_nearest
from arco_core.preprocess.intensity import scale_intensity

Value = TypeVar("Value", np.uint8, np.float32)


def prepare_image(
    volume: npt.NDArray[Any], affine: npt.ArrayLike, config: DataConfig
) -> tuple[npt.NDArray[np.float32], Geometry]:
    """A scan `volume` (X, Y, Z) or (X, Y, Z, C) as a network takes it, and the way back.

    Returns (N, C, *S): for `config.image_size` of two sides N slices (N, C, H, W), of three sides one volume
    (1, C, D, H, W) that is nowhere smaller than a patch. Intensities are scaled per volume and channel as
    `config.intensity` says; padding has the channel's darkest value.
    Raises `DataError` for a volume that is not a usable scan.
    """
    if volume.ndim not in (3, 4):
        raise DataError(
            f"the image has shape {volume.shape}; a scan is (X, Y, Z) or (X, Y, Z, channels): "
            "split time series and stacks into one file a volume"
        )
    native = Geometry.native(volume.shape[:3], affine, config)
    channels = volume[..., np.newaxis] if volume.ndim == 3 else volume
    canonical = (_finite(native.to_canonical(channels[..., c])) for c in range(channels.shape[3]))
    crop = crop_box(canonical, native, config)
    geometry = Geometry.plan(volume.shape[:3], affine, config, crop)
    prepared = np.empty((channels.shape[3], *geometry.size), np.float32)
    for c in range(channels.shape[3]):
        prepared[c] = _prepare_channel(geometry.to_canonical(channels[..., c]), geometry, config)
    return (prepared.swapaxes(0, 1) if geometry.image_axes == 2 else prepared[np.newaxis]), geometry


def prepare_label(label: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """A `label` map (X, Y, Z) as (N, *S) like its image, by nearest neighbour; padding is background.

    Raises `DataError` when the label map is not on the grid of its image.
    """
    if label.shape != geometry.shape:
        raise DataError(
            f"the label map has shape {label.shape}, its image {geometry.shape}: "
            "they must lie on the same grid"
        )
    kept = geometry.to_canonical(label)[_slices(geometry.crop)]
    prepared = fit(resample_nearest(kept, geometry.resampled), geometry.size, fill=0)
    return np.ascontiguousarray(prepared.reshape(geometry.prepared_shape))


def restore_label(prepared: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """A label map (X, Y, Z) on the scan's own grid from a `prepared` one (N, *S).

    Exact inverse of `prepare_label` where nothing was resampled; what was cropped away becomes
    background. Raises `DataError` when the label map does not belong to `geometry`.
    """
    if prepared.shape != geometry.prepared_shape:
        raise DataError(
            f"a label map of shape {prepared.shape} does not belong to a scan prepared as "
            f"{geometry.prepared_shape}"
        )
    fitted = fit(prepared.reshape(geometry.size), geometry.resampled, fill=0)
    return place(resample_nearest(fitted, geometry.cropped_shape), geometry)


def place(cropped: npt.NDArray[Value], geometry: Geometry, *, fill: float = 0) -> npt.NDArray[Value]:
    """A map (X, Y, Z) on the scan's own grid from that of its crop, (d, h, w) before resampling.

    What was cropped away is `fill`.
    """
    whole = np.full(geometry.canonical_shape, fill, cropped.dtype)
    whole[_slices(geometry.crop)] = cropped
    return np.ascontiguousarray(geometry.from_canonical(whole))


def _prepare_channel(
    channel: npt.NDArray[Any], geometry: Geometry, config: DataConfig
) -> npt.NDArray[np.float32]:
    """One canonical channel (D, H, W) of the whole scan, prepared."""
    # In one memory order whatever the file's: sums, and so every bit, do not depend on how a scan is stored.
    kept = np.ascontiguousarray(_finite(channel)[_slices(geometry.crop)])
    scaled = resample_linear(scale_intensity(kept, config), geometry.resampled)
    return fit(scaled, geometry.size, fill=float(scaled.min()))


def _finite(channel: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """`channel` as float32. Raises `DataError` when a voxel is not a number."""
    voxels = np.asarray(channel, dtype=np.float32)
    if not np.isfinite(voxels).all():
        bad = int(np.count_nonzero(~np.isfinite(voxels)))
        raise DataError(f"{bad} of {voxels.size} voxels are NaN or infinite: export the scan anew")
    return voxels


def _slices(box: Box) -> tuple[slice, slice, slice]:
    depth, height, width = (slice(start, stop) for start, stop in box)
    return depth, height, width

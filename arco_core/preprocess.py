"""Scans to 2D slices and label maps back to the scan's own grid.

`prepare` and `predict` both go through here, so a published model sees what it was trained on.
Slices are cut from the volume turned to L-P-I axes: an axial slice then has its rows from front
to back and its columns from the patient's right to left, as radiologists look at it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nibabel import affines, orientations
from torch.nn import functional

from arco_core.config import DataConfig
from arco_core.errors import DataError

Affine = tuple[tuple[float, float, float, float], ...]
CANONICAL_AXES = ("L", "P", "I")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How the slices of one scan lie in its original volume: all that the way back needs."""

    shape: tuple[int, int, int]
    """Voxels of the original volume (X, Y, Z), in the order of the file."""
    affine: Affine
    """Voxel indices of the original volume to millimetres (RAS+), 4 x 4."""
    slice_axis: int
    """Axis of the canonical volume along which slices are cut."""
    resampled: tuple[int, int]
    """Rows and columns of a slice after resampling, before it is padded or cropped."""
    size: tuple[int, int]
    """Rows and columns (H, W) of a prepared slice."""

    @classmethod
    def plan(cls, shape: tuple[int, ...], affine: npt.ArrayLike, config: DataConfig) -> Geometry:
        """The geometry that `config` gives a scan of `shape` (X, Y, Z) and `affine` (4, 4).

        Raises `DataError` for a shape or an affine that cannot belong to a volume, and `ConfigError` for a
        configuration of 3D patches.
        """
        matrix = _checked_affine(shape, affine)
        size = config.slice_size
        native = cls(
            shape=(shape[0], shape[1], shape[2]),
            affine=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in matrix),
            slice_axis=config.slice_axis,
            resampled=(1, 1),
            size=size,
        )
        rows, columns = native.slice_shape
        if config.fit == "resize":
            rows, columns = size
        elif config.spacing_mm is not None:
            row_mm, column_mm = (native.voxel_spacing_mm[axis] for axis in native._in_plane_axes)
            rows = max(1, round(rows * row_mm / config.spacing_mm))
            columns = max(1, round(columns * column_mm / config.spacing_mm))
        return dataclasses.replace(native, resampled=(rows, columns))

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.shape[self._source_axes[self.slice_axis]]

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice on the original grid, before resampling."""
        row_axis, column_axis = self._in_plane_axes
        return self.shape[row_axis], self.shape[column_axis]

    @property
    def voxel_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size of the original volume along X, Y and Z, in millimetres."""
        x, y, z = (float(v) for v in affines.voxel_sizes(np.asarray(self.affine)))
        return x, y, z

    @property
    def slice_spacing_mm(self) -> tuple[float, float]:
        """Pixel size of a prepared slice along rows and columns, in millimetres."""
        row_axis, column_axis = self._in_plane_axes
        (rows, columns), spacing = self.slice_shape, self.voxel_spacing_mm
        return (
            spacing[row_axis] * rows / self.resampled[0],
            spacing[column_axis] * columns / self.resampled[1],
        )

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Geometry:
        """The geometry that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        affine = tuple(tuple(row) for row in values.pop("affine"))
        axis = values.pop("slice_axis")
        return cls(affine=affine, slice_axis=axis, **{k: tuple(v) for k, v in values.items()})

    @cached_property
    def _orientation(self) -> npt.NDArray[np.float64]:
        return np.asarray(orientations.io_orientation(np.asarray(self.affine)))

    @property
    def _source_axes(self) -> tuple[int, ...]:
        """For each canonical axis, the axis of the original volume that it comes from."""
        return tuple(int(a) for a in np.argsort(self._orientation[:, 0]))

    @property
    def _in_plane_axes(self) -> tuple[int, int]:
        """Axes of the original volume along a slice's rows and columns."""
        row, column = _canonical_in_plane(self.slice_axis)
        return self._source_axes[row], self._source_axes[column]


def prepare_image(
    volume: npt.NDArray[Any], affine: npt.ArrayLike, config: DataConfig
) -> tuple[npt.NDArray[np.float32], Geometry]:
    """Slices (S, C, H, W) of a `volume` (X, Y, Z) or (X, Y, Z, C), and the way back.

    Intensities are scaled per volume and channel as `config.intensity` says; padding has the
    channel's darkest value. Raises `DataError` for a volume that is not a usable scan.
    """
    if volume.ndim not in (3, 4):
        raise DataError(
            f"the image has shape {volume.shape}; a scan is (X, Y, Z) or (X, Y, Z, channels): "
            "split time series and stacks into one file a volume"
        )
    geometry = Geometry.plan(volume.shape[:3], affine, config)
    channels = volume[..., np.newaxis] if volume.ndim == 3 else volume
    prepared = [_prepare_channel(channels[..., c], geometry, config) for c in range(channels.shape[3])]
    return np.stack(prepared, axis=1), geometry


def prepare_label(label: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Slices (S, H, W) of a `label` map (X, Y, Z), by nearest neighbour; padding is background.

    Raises `DataError` when the label map is not on the grid of its image.
    """
    if label.shape != geometry.shape:
        raise DataError(
            f"the label map has shape {label.shape}, its image {geometry.shape}: "
            "they must lie on the same grid"
        )
    slices = _resample_nearest(_to_slices(label, geometry), geometry.resampled)
    return _fit(slices, geometry.size, fill=0)


def restore_label(slices: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """A label map (X, Y, Z) on the scan's own grid from prepared `slices` (S, H, W).

    Exact inverse of `prepare_label` where nothing was resampled; what was cropped away becomes
    background. Raises `DataError` when the slices do not belong to `geometry`.
    """
    expected = (geometry.slices, *geometry.size)
    if slices.shape != expected:
        raise DataError(f"slices of shape {slices.shape} do not belong to a scan that has {expected}")
    native = _resample_nearest(_fit(slices, geometry.resampled, fill=0), geometry.slice_shape)
    row, column = _canonical_in_plane(geometry.slice_axis)
    canonical = native.transpose(np.argsort([geometry.slice_axis, row, column]))
    way_back = orientations.ornt_transform(orientations.axcodes2ornt(CANONICAL_AXES), geometry._orientation)
    return np.ascontiguousarray(orientations.apply_orientation(canonical, way_back))


def _checked_affine(shape: tuple[int, ...], affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    matrix = np.asarray(affine, dtype=np.float64)
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"the image has shape {shape}; a volume has three axes, none of them empty")
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DataError(f"the affine {matrix.tolist()} is not a finite 4 x 4 matrix: repair the header")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-12 or np.isnan(orientations.io_orientation(matrix)).any():
        raise DataError(f"the affine {matrix.tolist()} maps voxels onto a plane: repair the header")
    return matrix


def _canonical_in_plane(slice_axis: int) -> tuple[int, int]:
    """Canonical axes along rows and columns: rows run along the higher one."""
    column, row = (axis for axis in range(3) if axis != slice_axis)
    return row, column


def _to_slices(volume: npt.NDArray[Any], geometry: Geometry) -> npt.NDArray[Any]:
    """(X, Y, Z) to (S, rows, columns) on the canonical axes, nothing resampled."""
    turn = orientations.ornt_transform(geometry._orientation, orientations.axcodes2ornt(CANONICAL_AXES))
    canonical: npt.NDArray[Any] = orientations.apply_orientation(volume, turn)
    return canonical.transpose(geometry.slice_axis, *_canonical_in_plane(geometry.slice_axis))


def _prepare_channel(
    channel: npt.NDArray[Any], geometry: Geometry, config: DataConfig
) -> npt.NDArray[np.float32]:
    voxels = np.asarray(channel, dtype=np.float32)
    if not np.isfinite(voxels).all():
        bad = int(np.count_nonzero(~np.isfinite(voxels)))
        raise DataError(f"{bad} of {voxels.size} voxels are NaN or infinite: export the scan anew")
    slices = _to_slices(_scale_intensity(voxels, config), geometry)
    slices = _resample_linear(slices, geometry.resampled)
    return _fit(slices, geometry.size, fill=float(slices.min()))


def _scale_intensity(voxels: npt.NDArray[np.float32], config: DataConfig) -> npt.NDArray[np.float32]:
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
    scaled = (voxels - np.float32(offset)) / np.float32(scale)
    return scaled if config.intensity == "zscore" else np.clip(scaled, 0.0, 1.0)


def _resample_linear(slices: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    if slices.shape[1:] == size:
        return slices
    batch = torch.from_numpy(np.ascontiguousarray(slices))[:, None]
    resized = functional.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    return np.asarray(resized[:, 0].numpy(), dtype=np.float32)


def _resample_nearest(slices: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Pixel centres of the new grid look up the old pixel that they fall in."""
    for axis, new in ((1, size[0]), (2, size[1])):
        old = slices.shape[axis]
        if old != new:
            index = ((np.arange(new) + 0.5) * old / new).astype(np.intp)
            slices = np.take(slices, index, axis=axis)
    return slices


def _fit(slices: npt.NDArray[Any], size: tuple[int, int], *, fill: float) -> npt.NDArray[Any]:
    """Crop or pad rows and columns of (S, rows, columns) around the centre.

    Fitting to a size and back to the old one returns every pixel that survived to its place:
    both ways take the smaller half of the difference on the leading side.
    """
    fitted = np.full((slices.shape[0], *size), fill, dtype=slices.dtype)
    source: list[slice] = [slice(None)]
    target: list[slice] = [slice(None)]
    for old, new in zip(slices.shape[1:], size, strict=True):
        width, margin = min(old, new), abs(old - new) // 2
        source.append(slice(margin, margin + width) if old > new else slice(width))
        target.append(slice(margin, margin + width) if new > old else slice(width))
    fitted[tuple(target)] = slices[tuple(source)]
    return fitted

"""Volumes in HDF5 files, whole or one file a slice. The files state no geometry."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from arco_core.errors import DataError
from infra.datasets.volume import Volume, voxel_digest
from infra.storage import Store


@dataclass(frozen=True)
class Hdf5Volume:
    """One dataset of an HDF5 file as a `VolumeSource`.

    `axes` says which of its axes are X, Y and Z, and `directions` where they point (RAS+; 1 mm a voxel).
    """

    path: str
    key: str
    axes: tuple[int, int, int]
    directions: tuple[int, int, int]

    @property
    def paths(self) -> tuple[str, ...]:
        """See `VolumeSource`."""
        return (self.path,)

    def load(self, raw: Store) -> Volume:
        """See `VolumeSource`."""
        voxels = read_hdf5(raw, self.path, self.key, ndim=3).transpose(self.axes)
        return _volume(self.path, voxels, self.directions)

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`: of the voxels; the file holds image and annotation."""
        return self.load(raw).sha256


@dataclass(frozen=True)
class Hdf5Slices:
    """One dataset of several HDF5 files, a slice (rows, columns) each, as a `VolumeSource`.

    X runs along the columns, Y along the rows and Z through `paths`; `directions` as in `Hdf5Volume`.
    """

    paths: tuple[str, ...]
    key: str
    directions: tuple[int, int, int]

    def load(self, raw: Store) -> Volume:
        """See `VolumeSource`. Raises `DataError` for slices of different sizes, too."""
        slices = [read_hdf5(raw, path, self.key, ndim=2) for path in self.paths]
        for path, other in zip(self.paths, slices, strict=True):
            if other.shape != slices[0].shape:
                raise DataError(
                    f"{path} has shape {other.shape}, {self.paths[0]} {slices[0].shape}: "
                    "slices of one scan must have one size"
                )
        return _volume(self.paths[0], np.stack(slices).transpose(2, 1, 0), self.directions)

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`: of the voxels; the files hold image and annotation."""
        return self.load(raw).sha256


def read_hdf5(raw: Store, path: str, key: str, *, ndim: int) -> npt.NDArray[Any]:
    """The dataset `key` of the file at `path`. Raises `DataError`, naming the file, where there is none of
    real numbers with `ndim` axes."""
    data = raw.read_bytes(path)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            dataset = _dataset(file, path, key)
            if dataset.ndim != ndim or dataset.dtype.kind not in "biuf":
                raise DataError(
                    f"{path}: {key!r} has shape {dataset.shape} and type {dataset.dtype}; it must hold real "
                    f"numbers along {ndim} axes"
                )
            return np.asarray(dataset[()])
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is not a readable HDF5 file ({error}): copy or export the scan again"
        ) from error


def _dataset(file: h5py.File, path: str, key: str) -> h5py.Dataset:
    found = file.get(key)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path} has no dataset {key!r}; it has {', '.join(map(repr, file)) or 'none'}")
    return found


def _volume(path: str, voxels: npt.NDArray[Any], directions: tuple[int, int, int]) -> Volume:
    affine = np.diag([*map(float, directions), 1.0])
    return Volume(path=path, voxels=voxels, affine=affine, sha256=voxel_digest(voxels))

"""Volumes in HDF5 files, whole or one file a slice. The files state no geometry.

An HDF5 file may point at other files and promise more than it holds; neither is followed. Messages quote none
of its own names (keys, fields of a type, filters), which may be a patient's.
"""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from arco_core.errors import DataError
from infra.datasets.volume import DEFLATE_RATIO, MAX_BYTES, Volume, voxel_digest
from infra.storage import Store

_KEYS = ("image", "label")
"""Those that readers ask for."""
_SMALL = 64 * 2**10
"""Bytes that may be promised without being stored: HDF5 does not store what was never written."""


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
        voxels = decode_hdf5(raw.read_bytes(self.path), self.path, self.key, ndim=3).transpose(self.axes)
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
        """See `VolumeSource`. Raises `DataError` for slices of different sizes, or of too many bytes, too."""
        slices: list[npt.NDArray[Any]] = []
        for path in self.paths:
            slices.append(decode_hdf5(raw.read_bytes(path), path, self.key, ndim=2))
            if slices[-1].shape != slices[0].shape:
                raise DataError(
                    f"{path} has shape {slices[-1].shape}, {self.paths[0]} {slices[0].shape}: "
                    "slices of one scan must have one size"
                )
            if slices[-1].nbytes * len(self.paths) > MAX_BYTES:
                raise DataError(
                    f"{path} and the other slices of its scan take more than {MAX_BYTES / 2**30:g} GiB: cut "
                    "or resample it"
                )
        return _volume(self.paths[0], np.stack(slices).transpose(2, 1, 0), self.directions)

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`: of the voxels; the files hold image and annotation."""
        return self.load(raw).sha256


def decode_hdf5(data: bytes, path: str, key: str, *, ndim: int) -> npt.NDArray[Any]:
    """The dataset `key` in the bytes of an HDF5 file. Raises `DataError`, naming `path`, where there is none
    of real numbers with `ndim` axes inside the file, or where it is damaged or too large."""
    if not data:
        raise DataError(f"{path} is empty (0 bytes): copy or export the scan again")
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            dataset = _dataset(file, path, key)
            _check(dataset, path, key, ndim=ndim, size=len(data))
            voxels = np.asarray(dataset[()])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, zlib.error) as error:
        raise DataError(
            f"{path} is not a readable HDF5 file ({type(error).__name__}): copy or export the scan again"
        ) from None  # the cause may quote the file
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def _dataset(file: h5py.File, path: str, key: str) -> h5py.Dataset:
    links = file.id.links
    name = key.encode()
    if not links.exists(name):
        known = [repr(word) for word in _KEYS if links.exists(word.encode())]
        others = len(file) - len(known)
        found = " and ".join(known + [f"{others} other key{'s' * (others != 1)}"] * (others > 0))
        raise DataError(f"{path} lacks the key {key!r}; it has {found or 'none'}: export it with both keys")
    if links.get_info(name).type != h5py.h5l.TYPE_HARD:
        raise DataError(f"{path}: {key!r} is a link; it must lie in the file itself: export it again")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{path}: {key!r} is a group, not an array: export it again")
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{path}: {key!r} keeps its voxels in other files: export it into one")
    return dataset


def _check(dataset: h5py.Dataset, path: str, key: str, *, ndim: int, size: int) -> None:
    """Refuse what is not an image, or what would take more memory than the file can account for."""
    shape, dtype = dataset.shape, dataset.dtype
    if shape is None or len(shape) != ndim or dtype.kind not in "biuf" or min(shape) < 1:
        raise DataError(
            f"{path}: {key!r} has shape {shape} and type {dtype.name}; it must hold real numbers along "
            f"{ndim} axes"
        )
    promised = math.prod(shape) * dtype.itemsize
    stored = dataset.id.get_storage_size()
    chunk = math.prod(dataset.chunks or (0,)) * dtype.itemsize
    if promised > MAX_BYTES or stored > size or max(promised, chunk) > stored * DEFLATE_RATIO + _SMALL:
        raise DataError(
            f"{path}: {key!r} promises {promised} bytes in pieces of {chunk}, {stored} stored in a file of "
            f"{size}; at most {DEFLATE_RATIO} times what is stored and {MAX_BYTES / 2**30:g} GiB are read: "
            "export it again"
        )
    for number in range(dataset.id.get_num_chunks() if dataset.chunks else 0):
        info = dataset.id.get_chunk_info(number)
        if info.size * DEFLATE_RATIO > MAX_BYTES and dataset.compression == "gzip":
            _, packed = dataset.id.read_direct_chunk(info.chunk_offset)
            if len(zlib.decompressobj().decompress(packed, chunk + _SMALL)) > chunk + _SMALL // 2:
                raise DataError(f"{path}: a piece of {key!r} grows past its size: export it again")


def _volume(path: str, voxels: npt.NDArray[Any], directions: tuple[int, int, int]) -> Volume:
    affine = np.diag([*map(float, directions), 1.0])
    return Volume(path=path, voxels=voxels, affine=affine, sha256=voxel_digest(voxels))

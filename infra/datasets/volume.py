"""A volume in memory, and what names one in a raw folder, whatever its file format."""

from __future__ import annotations

import gzip
import hashlib
import io
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes

from arco_core.errors import DataError
from infra.storage import Store

MAX_BYTES = 4 * 2**30
"""Of one decoded volume: twice what the samples of a case may take. What promises more is not read."""
DEFLATE_RATIO = 1032
"""How many bytes one byte of gzip can become at most."""
TRAILING_BYTES = 64 * 2**10
"""Some tools pad files; more than this after the last voxel is not padding."""
_SPACING_MM = (1e-3, 1e3)
"""No scanner has smaller or larger voxels; a header that says so is in other units, or damaged."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Voxels of a scan or an annotation, in the file's order, and the affine to millimetres (RAS+)."""

    path: str
    """Where it was read from, for messages."""
    voxels: npt.NDArray[Any]
    """(X, Y, Z), or with channels (X, Y, Z, C). Scaled as the header says; of the file's own type where it
    asks for no scaling."""
    affine: npt.NDArray[np.float64]
    sha256: str
    """As `VolumeSource.digest`."""


class VolumeSource(Protocol):
    """One volume of a raw folder: one file, several, or a part of one. Can be pickled."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Its files, relative to the raw folder."""
        ...

    def load(self, raw: Store) -> Volume:
        """The volume. Raises `DataError`, naming the file, for one that cannot be decoded."""
        ...

    def digest(self, raw: Store) -> str:
        """sha256 that is the same for the same content: of the file, or of the voxels where a file holds
        more than the volume. Raises as `load`."""
        ...


def check_affine(affine: npt.NDArray[np.float64], path: str) -> None:
    """Refuse an affine that places no voxel of the file at `path`: a `DataError`."""
    sizes = voxel_sizes(affine)
    low, high = _SPACING_MM
    if not np.isfinite(affine).all() or not all(low <= size <= high for size in sizes):
        raise DataError(
            f"{path} has the affine {affine.round(4).tolist()}, with voxels of {sizes.round(4).tolist()} mm; "
            f"they must measure {low:g} to {high:g} mm: repair the header, or export the scan again"
        )
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-3:
        raise DataError(
            f"{path} has the affine {affine.round(4).tolist()}, which maps voxels onto a plane: repair the "
            "header, or export the scan again"
        )


def gunzip(data: bytes, limit: int) -> bytes:
    """The content of gzipped `data`, at most `limit` bytes of it.

    Raises `EOFError`, `OSError` or `zlib.error` for damaged data.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return file.read(limit)


def sha256(data: bytes) -> str:
    """Hexadecimal sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def voxel_digest(voxels: npt.NDArray[Any]) -> str:
    """Hexadecimal sha256 over type, shape and voxels."""
    header = f"{voxels.dtype.str} {voxels.shape} ".encode()
    return sha256(header + np.ascontiguousarray(voxels).tobytes())

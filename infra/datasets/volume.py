"""A volume in memory, and what names one in a raw folder, whatever its file format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from infra.storage import Store


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


def sha256(data: bytes) -> str:
    """Hexadecimal sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def voxel_digest(voxels: npt.NDArray[Any]) -> str:
    """Hexadecimal sha256 over type, shape and voxels."""
    header = f"{voxels.dtype.str} {voxels.shape} ".encode()
    return sha256(header + np.ascontiguousarray(voxels).tobytes())

"""NIfTI files from a store's bytes."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from arco_core.errors import DataError
from infra.datasets.volume import Volume, sha256
from infra.storage import Store


@dataclass(frozen=True)
class NiftiFile:
    """A NIfTI file as a `VolumeSource`."""

    path: str

    @property
    def paths(self) -> tuple[str, ...]:
        """See `VolumeSource`."""
        return (self.path,)

    def load(self, raw: Store) -> Volume:
        """See `VolumeSource`."""
        return read_nifti(raw, self.path)

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`: of the file."""
        return sha256(raw.read_bytes(self.path))


def read_nifti(raw: Store, path: str) -> Volume:
    """The volume at `path`. Raises `DataError`, naming the file, for one that cannot be decoded."""
    data = raw.read_bytes(path)
    try:
        content = gzip.decompress(data) if path.endswith(".gz") else data
        image = nib.Nifti1Image.from_bytes(content)
        voxels = np.asarray(image.dataobj)
    except (EOFError, zlib.error) as error:
        raise DataError(_message(path, f"truncated or damaged ({error}, {len(data)} bytes)")) from error
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, ValueError) as error:
        raise DataError(_message(path, f"not a readable NIfTI file ({error})")) from error
    if voxels.dtype.kind not in "biuf":
        raise DataError(_message(path, f"of type {voxels.dtype}, not of real numbers"))
    return Volume(
        path=path,
        voxels=voxels,
        affine=np.asarray(image.affine, dtype=np.float64),
        sha256=sha256(data),
    )


def _message(path: str, problem: str) -> str:
    return f"{path} is {problem}: copy or export the scan again"

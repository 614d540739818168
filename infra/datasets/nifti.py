"""NIfTI files from a store's bytes."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from arco_core.errors import DataError
from infra.storage import Store


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Voxels of a file, in the file's order, and the affine to millimetres (RAS+)."""

    path: str
    voxels: npt.NDArray[Any]
    """Scaled as the header says; of the file's own type where it asks for no scaling."""
    affine: npt.NDArray[np.float64]
    sha256: str
    """Over the file as it is stored."""


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
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _message(path: str, problem: str) -> str:
    return f"{path} is {problem}: copy or export the scan again"

"""NRRD files from a store's bytes, which may hold anything."""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import dataclass
from typing import Any

import nrrd
import numpy as np
import numpy.typing as npt

from arco_core.errors import DataError
from infra.datasets.volume import (
    DEFLATE_RATIO,
    MAX_BYTES,
    TRAILING_BYTES,
    Volume,
    check_affine,
    gunzip,
    sha256,
)
from infra.storage import Store

_HEADER_BYTES = 64 * 2**10
_LARGEST_ITEM = 8
"""Bytes of NRRD's largest number."""
_TO_RAS = {
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
}
_MM = {"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "μm": 0.001}
"""Millimetres by unit; the micro sign is in Unicode twice."""
_ELSEWHERE = ("data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip")
"""Fields of a header whose voxels do not follow it."""


@dataclass(frozen=True)
class NrrdFile:
    """A NRRD file with its voxels inside as a `VolumeSource`."""

    path: str

    @property
    def paths(self) -> tuple[str, ...]:
        """See `VolumeSource`."""
        return (self.path,)

    def load(self, raw: Store) -> Volume:
        """See `VolumeSource`."""
        return decode_nrrd(raw.read_bytes(self.path), self.path)

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`: of the file."""
        return sha256(raw.read_bytes(self.path))


def decode_nrrd(data: bytes, path: str) -> Volume:
    """The volume (X, Y, Z) in the bytes of a NRRD file, raw or gzipped.

    Raises `DataError`, naming `path`, for one that is damaged, too large, without a geometry or with its
    voxels in another file. What the header says in words is not repeated.
    """
    if not data:
        raise DataError(f"{path} is empty (0 bytes): copy or export the scan again")
    try:
        file = io.BytesIO(data[:_HEADER_BYTES])
        header = nrrd.read_header(file)
        affine = _affine(header, path)
        content = _content(header, data[file.tell() :], path)
        voxels = nrrd.read_data(header | {"encoding": "raw"}, content)
        if len(content.read()) > TRAILING_BYTES:
            raise DataError(f"{path} is longer than its header promises: copy or export the scan again")
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged: copy or export the scan again") from error
    except (
        nrrd.NRRDError,
        ArithmeticError,
        LookupError,
        OSError,
        StopIteration,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(
            f"{path} is not a readable NRRD file ({type(error).__name__}): copy or export the scan again"
        ) from None  # the cause may quote the header
    native = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    return Volume(path=path, voxels=native, affine=affine, sha256=sha256(data))


def _content(header: Any, body: bytes, path: str) -> io.BytesIO:
    """The voxels' bytes."""
    if any(field in header for field in _ELSEWHERE):
        raise DataError(f"{path} keeps its voxels in another file or place: save it as one .nrrd file")
    encoding = str(header["encoding"]).lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise DataError(f"{path} is neither raw nor gzipped: save it with the encoding gzip")
    sizes = [int(side) for side in header["sizes"]]
    limit = math.prod(sizes) * _LARGEST_ITEM
    if len(sizes) != 3 or min(sizes) < 1:
        raise DataError(f"{path} has the shape {sizes}; a scan is (X, Y, Z): split it into one file a volume")
    if limit > MAX_BYTES:
        raise DataError(
            f"{path} would take up to {limit / 2**30:.1f} GiB by its header (shape {sizes}), more than "
            f"{MAX_BYTES / 2**30:g}: repair the header, or cut or resample the scan"
        )
    if encoding == "raw":
        return io.BytesIO(body)
    if math.prod(sizes) > len(body) * DEFLATE_RATIO:
        raise EOFError
    return io.BytesIO(gunzip(body, limit + TRAILING_BYTES + 1))


def _affine(header: Any, path: str) -> npt.NDArray[np.float64]:
    space = str(header.get("space", "")).lower()
    directions = np.asarray(header.get("space directions", ()), np.float64)
    origin = np.asarray(header.get("space origin", (0.0, 0.0, 0.0)), np.float64)
    if space not in _TO_RAS or directions.shape != (3, 3) or origin.shape != (3,):
        raise DataError(
            f"{path} does not say how it lies in the patient: it needs the fields 'space' (one of "
            f"{', '.join(name for name in _TO_RAS if '-' in name)}) and 'space directions'; export it again"
        )
    units = [str(unit).strip().lower() for unit in header.get("space units", ("mm",) * 3)]
    if len(units) != 3 or not _MM.keys() >= set(units):
        raise DataError(
            f"{path} does not measure its space in units that are known: its 'space units' must be three of "
            f"{', '.join(map(repr, filter(None, _MM)))}, or be left out for mm; export it again"
        )
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions.T, origin
    to_ras_mm = [sign * _MM[unit] for sign, unit in zip(_TO_RAS[space], units, strict=True)]
    affine = np.diag([*to_ras_mm, 1.0]) @ affine
    check_affine(affine, path)
    return affine

"""NIfTI files from a store's bytes, which may hold anything.

A header is checked against the file before memory is taken for what it promises, and its two ways
to state the geometry against each other. Its free text (description, names) is never looked at.
"""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from arco_core.errors import DataError
from infra.datasets.volume import DEFLATE_RATIO, MAX_BYTES, TRAILING_BYTES, Volume, check_affine, sha256
from infra.storage import Store

_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
"""By the header's size, which is its first number."""
_MAGIC = (b"n+1", b"n+2")
_GZIP_MAGIC = b"\x1f\x8b"
_SPACING_TOLERANCE = 0.01
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres by the low bits of xyzt_units: unknown, which everybody takes for mm, m, mm and µm."""


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
        return decode_nifti(raw.read_bytes(self.path), self.path)

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`: of the file."""
        return sha256(raw.read_bytes(self.path))


def decode_nifti(data: bytes, path: str) -> Volume:
    """The volume in the bytes of a NIfTI file. Raises as `decode_with_header`."""
    return decode_with_header(data, path)[0]


def decode_with_header(data: bytes, path: str) -> tuple[Volume, Any]:
    """The volume in the bytes of a NIfTI file, gzipped or not, and its header as nibabel has it.

    Raises `DataError`, naming `path`, for one that is damaged, too large, without a geometry or not of
    real numbers. Trailing axes of length 1 are dropped.
    """
    if not data:
        raise DataError(f"{path} is empty (0 bytes): copy or export the scan again")
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused where it matters
            header, content = _read(data, path)
            affine = _affine(header, path)
            voxels = _voxels(header, content)
    except (EOFError, zlib.error) as error:
        raise DataError(_message(path, f"truncated or damaged ({error}, {len(data)} bytes)")) from error
    except (ImageFileError, HeaderDataError, LookupError, OSError, OverflowError, ValueError) as error:
        raise DataError(_message(path, f"not a readable NIfTI file ({error})")) from error
    return Volume(path=path, voxels=voxels, affine=affine, sha256=sha256(data)), header


def _read(data: bytes, path: str) -> tuple[Any, bytes]:
    """The header, and the file's content from its beginning to its last voxel."""
    packed = data.startswith(_GZIP_MAGIC)
    file = gzip.GzipFile(fileobj=io.BytesIO(data)) if packed else io.BytesIO(data)
    start = file.read(max(_HEADERS))
    size = next((n for order in ("little", "big") if (n := int.from_bytes(start[:4], order)) in _HEADERS), 0)
    if not size:
        raise ImageFileError("it does not begin with a NIfTI header")
    if len(start) < size:
        raise EOFError(f"the header alone has {size} bytes")
    header = _HEADERS[size](start[:size], check=False)  # nibabel's own check quotes what it finds
    if header["magic"].item() not in _MAGIC:
        raise ImageFileError("it is not a NIfTI file that holds its own voxels")
    needed = _size(header, path)
    possible = len(data) * DEFLATE_RATIO if packed else len(data)
    if needed > possible:
        raise EOFError(f"its header promises {needed} bytes")
    content = start + file.read(needed - len(start) + TRAILING_BYTES + 1)
    if len(content) < needed:
        raise EOFError(f"its header promises {needed} bytes, it holds {len(content)}")
    if len(content) > needed + TRAILING_BYTES:
        raise DataError(_message(path, f"longer than the {needed} bytes that its header promises"))
    return header, content


def _size(header: Any, path: str) -> int:
    """Bytes up to the last voxel. Raises `DataError` for a header that cannot be a scan's."""
    shape = header.get_data_shape()
    dtype = header.get_data_dtype()
    if dtype.kind not in "biuf":
        raise DataError(_message(path, f"of type {dtype}, not of real numbers"))
    if not shape or min(shape) < 1:
        raise DataError(_message(path, f"of the impossible shape {shape}"))
    size = _offset(header) + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > MAX_BYTES:
        raise DataError(
            f"{path} would take {size / 2**30:.1f} GiB by its header (shape {shape}, {dtype}), more than "
            f"{MAX_BYTES / 2**30:g}: repair the header, or cut or resample the scan"
        )
    return size


def _offset(header: Any) -> int:
    return max(int(header["vox_offset"]), int(header.single_vox_offset))


def _voxels(header: Any, content: bytes) -> npt.NDArray[Any]:
    """(X, Y, Z) or (X, Y, Z, C), scaled in single precision where the header asks for it."""
    shape = header.get_data_shape()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    count = int(np.prod(shape))
    voxels = np.frombuffer(content, header.get_data_dtype(), count, _offset(header)).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    if slope in (None, 1.0) and not intercept:
        return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    return voxels.astype(np.float32) * np.float32(slope) + np.float32(intercept or 0.0)


def _affine(header: Any, path: str) -> npt.NDArray[np.float64]:
    """The sform or the qform, in mm: the first that is set and agrees with the voxel size in pixdim.

    Both may be set: ACDC's sform has unit voxels, its qform the true ones.
    """
    unit = unit_mm(header)
    if unit is None:
        raise DataError(
            f"{path} measures its voxels in a unit that NIfTI does not have (xyzt_units = "
            f"{int(header['xyzt_units'])}): export it again, or set it with nibabel, for instance: "
            "image.header.set_xyzt_units('mm')"
        )
    zooms = unit * np.abs(np.asarray(header.get_zooms()[:3], np.float64))
    forms = [header.get_sform(coded=True), header.get_qform(coded=True)]
    stated = [scale_affine(np.asarray(matrix, np.float64), unit) for matrix, code in forms if code]
    if not stated:
        raise DataError(
            f"{path} does not say how it lies in space (sform_code and qform_code are 0): export it again, "
            "or set its affine, with nibabel for instance: image.set_sform(affine, code=1)"
        )
    if len(zooms) < 3:
        raise DataError(_message(path, f"of the shape {header.get_data_shape()}, not a volume"))
    for matrix in stated:
        check_affine(matrix, path)
        if np.allclose(voxel_sizes(matrix), zooms, rtol=_SPACING_TOLERANCE):
            return matrix
    raise DataError(
        f"{path} contradicts itself: its affine has voxels of {_mm(voxel_sizes(stated[0]))} mm, its pixdim "
        f"of {_mm(zooms)} mm; export it again, or save it with nibabel.Nifti1Image(voxels, affine)"
    )


def unit_mm(header: Any) -> float | None:
    """Millimetres in the unit of length of a NIfTI header's affines; none where it is not one of NIfTI's."""
    return _MM.get(int(header["xyzt_units"]) & 0b111)


def scale_affine(affine: npt.NDArray[np.float64], factor: float) -> npt.NDArray[np.float64]:
    """`affine` to coordinates that are `factor` times as many."""
    return np.diag([factor, factor, factor, 1.0]) @ affine


def _mm(sizes: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def _message(path: str, problem: str) -> str:
    return f"{path} is {problem}: copy or export the scan again"

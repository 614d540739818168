"""DICOM series from a store's bytes, which may hold anything.

Of a file's header only geometry and pixel layout are read, so that no name of a patient, a physician or a
hospital can get any further; messages name the file and never quote a header.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID

from arco_core.errors import DataError
from infra.datasets.volume import MAX_BYTES, Volume, check_affine, sha256
from infra.storage import Store

# Complaints about values quote them, and go to the log besides being warnings.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

PREFIX_BYTES = 132
"""A file begins with 128 bytes of anything and then `DICM`."""
_TAGS = [
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "ImageOrientationPatient", "ImagePositionPatient",
    "NumberOfFrames", "PhotometricInterpretation", "PixelData", "PixelRepresentation", "PixelSpacing",
    "RescaleIntercept", "RescaleSlope", "Rows", "SamplesPerPixel", "SeriesInstanceUID", "SliceThickness",
    "TransferSyntaxUID",
]  # fmt: skip
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_GAP = 0.1
"""Share of the slice distance by which a slice may lie off its place."""
_CLOSEST_MM, _FARTHEST_MM = 1e-3, 1e6
"""What is nearer to another slice lies in its place; what is farther from the origin lies nowhere."""
_ERRORS = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError,
    NotImplementedError, OSError, RecursionError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series, a slice each, in any order, as a `VolumeSource`."""

    paths: tuple[str, ...]

    def load(self, raw: Store) -> Volume:
        """See `VolumeSource`."""
        slices, digests, total = [], [], 0
        for path in self.paths:
            data = raw.read_bytes(path)
            slices.append(_decode(data, path))
            digests.append(sha256(data))
            total += slices[-1].pixels.nbytes
            if total > MAX_BYTES:
                raise DataError(
                    f"{path} and its series take more than {MAX_BYTES / 2**30:g} GiB: split or resample it"
                )
        return _stack(slices, _joined(digests))

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`: over the files' own."""
        return _joined([sha256(raw.read_bytes(path)) for path in self.paths])


def is_dicom(prefix: bytes) -> bool:
    """Whether a file that begins with `prefix` (`PREFIX_BYTES`) is DICOM."""
    return prefix[128:PREFIX_BYTES] == b"DICM"


@dataclass(frozen=True, kw_only=True)
class _Slice:
    path: str
    series: str
    pixels: npt.NDArray[Any]
    """(rows, columns), rescaled."""
    position: npt.NDArray[np.float64]
    """Centre of the first pixel, mm (LPS)."""
    axes: npt.NDArray[np.float64]
    """(2, 3): one column further, one row further, mm (LPS)."""
    thickness: float | None


def _decode(data: bytes, path: str) -> _Slice:
    if not data:
        raise DataError(f"{path} is empty (0 bytes): copy or export the series again")
    if not is_dicom(data[:PREFIX_BYTES]):
        raise DataError(f"{path} is not a DICOM file: leave only the slices of one series in its folder")
    if _DEFLATED in data:
        raise DataError(f"{path} is a deflated DICOM file: export the series uncompressed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the header
            dataset = pydicom.dcmread(io.BytesIO(data), specific_tags=list(_TAGS))
            _check(dataset, path, len(data))
            return _Slice(
                path=path,
                series=str(dataset.SeriesInstanceUID),
                pixels=_pixels(dataset),
                position=_position(dataset),
                axes=_axes(dataset),
                thickness=float(dataset.SliceThickness) if dataset.get("SliceThickness") else None,
            )
    except _ERRORS as error:
        raise DataError(
            f"{path} is not a readable DICOM slice ({type(error).__name__}): export the series again, as CT "
            "or MR images"
        ) from None  # the cause may quote the header


def _check(dataset: Any, path: str, size: int) -> None:
    """Refuse what is not a plain slice, and what is larger than its file can account for."""
    gray = str(dataset.PhotometricInterpretation) in ("MONOCHROME1", "MONOCHROME2")
    if int(dataset.get("NumberOfFrames") or 1) != 1 or int(dataset.SamplesPerPixel) != 1 or not gray:
        raise DataError(
            f"{path} holds several frames or colours, not one slice: convert it to NIfTI (dcm2niix) or "
            "export the series as single slices"
        )
    promised = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax.is_compressed:
        raise DataError(
            f"{path} has compressed pixels ({syntax.name}), which ARCO does not decode: decompress the "
            "series first (dcmdjpeg of DCMTK, gdcmconv --raw)"
        )
    if not 0 < promised <= min(size, MAX_BYTES):
        raise DataError(
            f"{path} is truncated: {promised} bytes of pixels by its header, {size} in all; copy it again"
        )


def _axes(dataset: Any) -> npt.NDArray[np.float64]:
    row_mm, column_mm = (float(value) for value in dataset.PixelSpacing)
    cosines = np.array([float(v) for v in dataset.ImageOrientationPatient]).reshape(2, 3)
    if not (min(row_mm, column_mm) > 0 and np.allclose(cosines @ cosines.T, np.eye(2), atol=0.01)):
        raise ValueError("pixels without an extent or a direction")
    axes: npt.NDArray[np.float64] = cosines * np.array([[column_mm], [row_mm]])
    return axes


def _position(dataset: Any) -> npt.NDArray[np.float64]:
    position = np.asarray([float(v) for v in dataset.ImagePositionPatient], np.float64).reshape(3)
    if not np.abs(position).max() <= _FARTHEST_MM:  # nor where it is not a number
        raise ValueError("a slice that lies nowhere")
    return position


def _pixels(dataset: Any) -> npt.NDArray[Any]:
    pixels = np.asarray(dataset.pixel_array)
    slope, intercept = (float(dataset.get(k) or d) for k, d in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    if pixels.ndim != 2:
        raise ValueError("not a slice")
    if slope == 1 and intercept == 0:
        return pixels
    return pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _stack(slices: Sequence[_Slice], digest: str) -> Volume:
    first = slices[0]
    normal = np.cross(*first.axes)
    for other in slices[1:]:
        if other.series != first.series:
            raise DataError(
                f"{other.path} and {first.path} are of two series: give each series its own folder"
            )
        same = other.pixels.shape == first.pixels.shape and np.allclose(other.axes, first.axes, atol=1e-4)
        if not same:
            raise DataError(
                f"{other.path} and {first.path} differ in size, pixel spacing or orientation: keep only "
                "slices of one stack in the folder (no localizer)"
            )
    ordered = sorted(slices, key=lambda s: float(s.position @ normal))
    affine = np.eye(4)
    affine[:3, :2] = first.axes.T
    affine[:3, 2] = _step(ordered, normal)
    affine[:3, 3] = ordered[0].position
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    check_affine(affine, ordered[0].path)
    voxels = np.stack([s.pixels for s in ordered]).transpose(2, 1, 0)
    return Volume(path=ordered[0].path, voxels=voxels, affine=affine, sha256=digest)


def _step(ordered: Sequence[_Slice], normal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From one slice to the next, mm (LPS). Raises `DataError` where they are not evenly spaced."""
    unit = normal / np.linalg.norm(normal)
    if len(ordered) == 1:
        if not ordered[0].thickness:
            raise DataError(f"{ordered[0].path} is alone and has no slice thickness: copy the whole series")
        return unit * ordered[0].thickness
    positions = np.stack([s.position for s in ordered])
    steps = np.diff(positions @ unit)
    usual = float(np.median(steps))
    pairs = [f"{one.path} and {other.path}" for one, other in pairwise(ordered)]
    for pair, step in zip(pairs, steps, strict=True):
        if step < max(_GAP * usual, _CLOSEST_MM):
            raise DataError(
                f"{pair} lie in the same place: keep one volume in the folder (a time series holds several)"
            )
    for pair, step in zip(pairs, steps, strict=True):
        if step > (1 + _GAP) * usual:
            missing = max(1, round(step / usual) - 1)
            raise DataError(
                f"{pair} are {step:.2f} mm apart, the other slices {usual:.2f} mm: {missing} slices seem to "
                "be missing; copy the whole series again"
            )
    step_vector: npt.NDArray[np.float64] = (positions[-1] - positions[0]) / (len(ordered) - 1)
    expected = positions[0] + np.arange(len(ordered))[:, None] * step_vector
    if np.abs(positions - expected).max() > _GAP * usual * len(ordered) ** 0.5:
        raise DataError(
            f"{ordered[0].path} and its series are not evenly spaced: keep one stack of slices in the folder"
        )
    return step_vector


def _joined(digests: Sequence[str]) -> str:
    return sha256(" ".join(digests).encode())

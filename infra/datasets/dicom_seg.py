"""A mask of a DICOM series as a DICOM segmentation that refers to it.

Unlike everything that ARCO keeps, the file names the patient: a segmentation belongs to a study, so what says
whose and which it is is copied from the series (by highdicom, as the standard's modules ask).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import generate_uid

import arco_core
from arco_core.errors import DataError
from infra.datasets.dicom import DicomSeries
from infra.datasets.volume import sha256
from infra.storage import Store

_SCHEME = "99ARCO"
"""Coding scheme of the structures: classes are named freely, so that no public code is known to fit."""
_SERIES_NUMBER = 9000
"""Behind what a scanner gives; viewers list series by number."""


def encode_segmentation(
    raw: Store,
    series: DicomSeries,
    mask: npt.NDArray[np.uint8],
    classes: Sequence[str],
    *,
    model_version: str,
) -> bytes:
    """The bytes of a DICOM file: a binary segmentation, one segment a structure, its frames on the slices.

    The same series, mask and model give the same unique identifiers.

    Args:
        raw: where the series is.
        series: what was segmented.
        mask: class indices (X, Y, Z), on the grid of `series.load`.
        classes: names, background first.
        model_version: told in the file.

    Raises:
        DataError: the series lacks what a segmentation must quote.
    """
    import highdicom as hd  # costs seconds, and few scans are DICOM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote the header
        slices = _sorted_slices([_header(raw, path) for path in series.paths])
        identity = f"{slices[0].SeriesInstanceUID} {model_version} {sha256(mask.tobytes())}"
        try:
            segmentation = hd.seg.Segmentation(
                source_images=slices,
                pixel_array=np.ascontiguousarray(mask.transpose(2, 1, 0)),
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _segment(hd, number, name, model_version) for number, name in enumerate(classes) if number
                ],
                series_instance_uid=generate_uid(entropy_srcs=[identity, "series"]),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=generate_uid(entropy_srcs=[identity, "instance"]),
                instance_number=1,
                manufacturer="ARCO",
                manufacturer_model_name="ARCO",
                software_versions=arco_core.__version__,
                device_serial_number=model_version,
                content_label="SEGMENTATION",
                series_description="ARCO segmentation (research)",
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{series.paths[0]} and its series cannot carry a DICOM segmentation ({_what(error)}): "
                "export it again with all its attributes, or write NIfTI only (--no-dicom)"
            ) from None  # the cause may quote the header
        sink = io.BytesIO()
        segmentation.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def _header(raw: Store, path: str) -> Any:
    dataset = pydicom.dcmread(io.BytesIO(raw.read_bytes(path)), stop_before_pixels=True)
    for key in ("SOPClassUID", "SOPInstanceUID"):  # the file's own header has them, too
        if key not in dataset:
            setattr(dataset, key, dataset.file_meta[f"MediaStorage{key}"].value)
    return dataset


def _sorted_slices(slices: list[Any]) -> list[Any]:
    """In the order of the axis Z of `DicomSeries.load`."""
    row, column = np.array([float(v) for v in slices[0].ImageOrientationPatient]).reshape(2, 3)
    normal = np.cross(row, column)
    return sorted(slices, key=lambda s: float(np.dot([float(v) for v in s.ImagePositionPatient], normal)))


def structure_code(name: str) -> str:
    """The code of a structure: the same for the same name, whatever the dataset and the order of its classes.

    At most 16 characters, as DICOM wants of a code value: the start of the name, and a part of its sha256.
    """
    start = re.sub("[^A-Z0-9]", "", name.upper())[:9]
    return f"{start}-{sha256(name.encode())[:6].upper()}"


def _segment(hd: Any, number: int, name: str, model_version: str) -> Any:
    structure = hd.sr.CodedConcept(value=structure_code(name), scheme_designator=_SCHEME, meaning=name[:64])
    anatomy = hd.sr.CodedConcept(value="123037004", scheme_designator="SCT", meaning="Anatomical Structure")
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=anatomy,
        segmented_property_type=structure,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="ARCO",
            version=model_version,
            family=hd.sr.CodedConcept(
                value="123109", scheme_designator="DCM", meaning="Artificial Intelligence"
            ),
        ),
    )


def _what(error: Exception) -> str:
    """Only the name of an attribute that is missing: messages may quote its value."""
    if isinstance(error, AttributeError) and error.name:
        return f"it lacks {error.name}"
    return type(error).__name__

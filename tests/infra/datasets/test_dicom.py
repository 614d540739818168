"""DICOM series: whole, of one stack, and decoded without a word of their headers."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from arco_core.errors import DataError
from infra.datasets.dicom import DicomSeries
from infra.datasets.readers.detect import read_raw
from infra.datasets.volume import Volume
from infra.storage import Store

from .raw_files import (
    dicom_series,
    scan,
    write_dicom,
)

IMAGE, _ = scan(0)


def series(tmp_path: Path, change: Callable[[list[Dataset]], list[Dataset]]) -> Volume:
    folder = write_dicom(tmp_path / "s", change(dicom_series(IMAGE)))
    return DicomSeries(tuple(f"s/{path.name}" for path in folder.iterdir())).load(Store(str(tmp_path)))


def edited(number: int, **values: object) -> Callable[[list[Dataset]], list[Dataset]]:
    """Change attributes of one slice; a value of None removes the attribute."""

    def change(slices: list[Dataset]) -> list[Dataset]:
        for name, value in values.items():
            if value is None:
                delattr(slices[number], name)
            else:
                setattr(slices[number], name, value)
        return slices

    return change


def with_syntax(uid: str) -> Callable[[list[Dataset]], list[Dataset]]:
    def change(slices: list[Dataset]) -> list[Dataset]:
        slices[1].file_meta.TransferSyntaxUID = uid
        if uid == JPEG2000Lossless:
            slices[1]["PixelData"].is_undefined_length = True
            slices[1].PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd"
        return slices

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: [*s[:2], *s[3:]], r"are 16\.00 mm apart, the other slices 8\.00 mm: 1 slices seem"),
        (edited(2, ImagePositionPatient=[-20, -30, -32]), "lie in the same place"),
        (lambda s: [*s[:2], *(copy.deepcopy(s[1]) for _ in range(4))], "lie in the same place: keep one"),
        (edited(2, ImagePositionPatient=["-20", "-30", "1e300"]), "not a readable DICOM slice"),
        (edited(4, ImagePositionPatient=[-20, -30, -4]), r"are 12\.00 mm apart"),
        (edited(2, ImagePositionPatient=[20, -30, -24]), "not evenly spaced"),
        (edited(2, SeriesInstanceUID="1.2.4"), "are of two series"),
        (edited(2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "differ in size, pixel spacing"),
        (edited(2, PixelSpacing=[1.25, 1.6]), "differ in size, pixel spacing"),
        (edited(2, PixelSpacing=[0, 0]), "not a readable DICOM slice"),
        (edited(2, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not a readable DICOM slice"),
        (lambda s: [edited(0, PixelSpacing=[1e7, 1e7])(s)[0]], "must measure"),
        (lambda s: [edited(0, SliceThickness=None)(s)[0]], "is alone and has no slice thickness"),
        (edited(2, ImagePositionPatient=None), "not a readable DICOM slice"),
        (edited(2, PixelData=None), "is truncated"),
        (edited(2, PixelData=b"12"), "is truncated"),
        (edited(2, Rows=60000, Columns=60000), r"is truncated: 7200000000 bytes of pixels"),
        (edited(2, NumberOfFrames=3), "holds several frames or colours"),
        (edited(2, PhotometricInterpretation="PALETTE COLOR"), "holds several frames or colours"),
        (with_syntax(JPEG2000Lossless), "has compressed pixels"),
        (with_syntax(DeflatedExplicitVRLittleEndian), "is a deflated DICOM file"),
    ],
)  # fmt: skip
def test_dicom(tmp_path: Path, change: Callable[[list[Dataset]], list[Dataset]], message: str) -> None:
    with pytest.raises(DataError, match=rf"^s/\d+\.dcm.*{message}") as caught:
        series(tmp_path, change)
    assert "SECRET" not in str(caught.value)


def test_foreign_files_in_a_dicom_folder(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "s", dicom_series(IMAGE))
    for name, content, message in (("z.dcm", b"", "is empty"), ("z.dcm", b"<html>", "is not a DICOM file")):
        (folder / name).write_bytes(content)
        (case,) = read_raw(Store(str(tmp_path))).cases
        with pytest.raises(DataError, match=rf"^s/z\.dcm {message}"):
            case.channels[0].load(Store(str(tmp_path)))


def test_one_slice_a_tilted_gantry_and_rescaling_are_read(tmp_path: Path) -> None:
    def tilted(slices: list[Dataset]) -> list[Dataset]:
        for number, item in enumerate(slices):
            item.ImagePositionPatient = [-20, -30 + 1.5 * number, -40 + 8 * number]
            item.RescaleSlope, item.RescaleIntercept = 0.5, -512
        return slices

    volume = series(tmp_path, tilted)
    np.testing.assert_array_equal(volume.voxels, IMAGE * 0.5)
    np.testing.assert_allclose(volume.affine[:, 2], [0, -1.5, 8, 0])
    shutil.rmtree(tmp_path / "s")
    assert series(tmp_path, lambda slices: slices[:1]).affine[2, 2] == 8

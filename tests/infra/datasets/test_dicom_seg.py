"""A DICOM segmentation lies where its series lies, and belongs to the same study."""

from __future__ import annotations

import io
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from arco_core.errors import DataError
from infra.datasets.dicom import DicomSeries
from infra.datasets.dicom_seg import encode_segmentation, structure_code
from infra.storage import Store
from tests.infra.datasets.raw_files import SHAPE, dicom_series, scan, write_dicom

CLASSES = ("background", "left ventricle", "myocardium")


def complete(slices: list[Dataset]) -> list[Dataset]:
    """With what hospitals' files have and the readers' tests do without."""
    for dataset in slices:
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = "1.2.3.4", "1.2.3.5"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240102", "101112", "7"
        dataset.AccessionNumber = dataset.PatientBirthDate = dataset.PatientSex = ""
    return slices


def write_series(folder: Path) -> DicomSeries:
    write_dicom(folder, complete(dicom_series(scan(0)[0])))
    return DicomSeries(tuple(sorted(path.name for path in folder.iterdir())))


def mask() -> np.ndarray:
    """Nothing in the first slice, and no symmetry that could hide a turn."""
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[3:9, 2:6, 1:4] = 1
    voxels[10:20, 4:17, 2:5] = 2
    return voxels


def test_the_file_lies_on_the_series(tmp_path: Path) -> None:
    series, raw = write_series(tmp_path), Store(str(tmp_path))
    data = encode_segmentation(raw, series, mask(), CLASSES, model_version="abc")
    found = pydicom.dcmread(io.BytesIO(data))
    assert found.SOPClassUID == pydicom.uid.SegmentationStorage
    assert (found.PatientID, found.StudyInstanceUID, found.FrameOfReferenceUID) == (
        "SECRET-ID",
        "1.2.3.4",
        "1.2.3.5",
    )
    assert [s.SegmentLabel for s in found.SegmentSequence] == list(CLASSES[1:])
    reader = hd.seg.Segmentation.from_dataset(found)
    volume = reader.get_volume(combine_segments=True, skip_overlap_checks=True)
    ras = (
        np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    )  # highdicom's is LPS, with axes (slices, rows, columns)
    affine = series.load(raw).affine
    back = np.zeros(SHAPE, np.uint8)
    to_mask = np.linalg.inv(affine) @ ras
    for index in np.argwhere(volume.array > 0):
        x, y, z = (to_mask @ [*index, 1])[:3].round(4)
        assert all(float(v).is_integer() for v in (x, y, z))
        back[int(x), int(y), int(z)] = volume.array[tuple(index)]
    np.testing.assert_array_equal(back, mask())


def test_each_frame_names_the_slice_that_it_covers(tmp_path: Path) -> None:
    series, raw = write_series(tmp_path), Store(str(tmp_path))
    found = pydicom.dcmread(
        io.BytesIO(encode_segmentation(raw, series, mask(), CLASSES, model_version="abc"))
    )
    slices = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    positions = {s.file_meta.MediaStorageSOPInstanceUID: s.ImagePositionPatient for s in slices}
    assert found.NumberOfFrames == 3 + 3  # slices without a structure are left out
    for frame in found.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert frame.PlanePositionSequence[0].ImagePositionPatient == positions[source]


def test_the_same_mask_has_the_same_identifiers(tmp_path: Path) -> None:
    series, raw = write_series(tmp_path), Store(str(tmp_path))
    other = np.where(mask() == 1, 2, mask()).astype(np.uint8)
    uids = [
        pydicom.dcmread(
            io.BytesIO(encode_segmentation(raw, series, m, CLASSES, model_version="abc"))
        ).SOPInstanceUID
        for m in (mask(), mask(), other)
    ]
    assert uids[0] == uids[1] != uids[2]


def test_a_structure_has_the_same_code_in_every_dataset(tmp_path: Path) -> None:
    series, raw = write_series(tmp_path), Store(str(tmp_path))
    codes: list[dict[str, str]] = []
    for classes in (CLASSES, ("background", "myocardium", "liver")):
        found = pydicom.dcmread(
            io.BytesIO(encode_segmentation(raw, series, mask(), classes, model_version="abc"))
        )
        types = [s.SegmentedPropertyTypeCodeSequence[0] for s in found.SegmentSequence]
        assert {t.CodingSchemeDesignator for t in types} == {"99ARCO"}
        codes.append({t.CodeMeaning: t.CodeValue for t in types})
    assert codes[0]["myocardium"] == codes[1]["myocardium"]
    assert len({*codes[0].values(), *codes[1].values()}) == 3


@pytest.mark.parametrize(
    "name", ["left ventricle", "left-ventricle", "left ventricular wall", "肝臓", "a" * 99]
)
def test_codes_of_different_names_differ_and_fit(name: str) -> None:
    code = structure_code(name)
    assert len(code) <= 16 and code.isascii()
    assert code != structure_code(f"{name}s")


def test_a_mask_of_background_alone(tmp_path: Path) -> None:
    series, raw = write_series(tmp_path), Store(str(tmp_path))
    data = encode_segmentation(raw, series, np.zeros(SHAPE, np.uint8), CLASSES, model_version="abc")
    assert not pydicom.dcmread(io.BytesIO(data)).pixel_array.any()


def test_a_series_without_a_study_is_named_and_no_header_quoted(tmp_path: Path) -> None:
    write_dicom(tmp_path, dicom_series(scan(0)[0]))
    series = DicomSeries(tuple(sorted(path.name for path in tmp_path.iterdir())))
    with pytest.raises(DataError, match=r"it lacks \w+\): export it again") as caught:
        encode_segmentation(Store(str(tmp_path)), series, mask(), CLASSES, model_version="abc")
    assert "SECRET" not in str(caught.value) and caught.value.__cause__ is None

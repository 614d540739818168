"""Annotations that do not fit their scan, scans that do not fit the dataset, files of every format."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from arco_core.config import DataConfig
from arco_core.errors import DataError
from infra.datasets.convert import convert_case
from infra.datasets.dicom import DicomSeries
from infra.datasets.hdf5 import Hdf5Slices, Hdf5Volume
from infra.datasets.nifti import NiftiFile
from infra.datasets.nrrd import NrrdFile
from infra.datasets.readers.base import RawCase
from infra.datasets.readers.detect import read_raw
from infra.datasets.validate import check_label, check_sizes, stack_channels
from infra.datasets.volume import MAX_BYTES, Volume, VolumeSource
from infra.storage import Store

from .raw_files import AFFINE, SHAPE, scan

IMAGE, LABEL = scan(0)


def volume(voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Volume:
    return Volume(path="v", voxels=voxels, affine=affine, sha256="")


CLASSES = ("background", "a", "b", "c")


@pytest.mark.parametrize(
    ("label", "affine", "message"),
    [
        (LABEL[..., None].repeat(2, -1), AFFINE, "has shape"),
        (LABEL * 0.3, AFFINE, r"holds 0\.3, 0\.6, 0\.9, which are no class numbers"),
        (np.where(LABEL == 1, np.nan, LABEL), AFFINE, "holds nan"),
        (np.where(LABEL == 1, np.inf, LABEL), AFFINE, "holds inf"),
        (LABEL + np.uint8(2), AFFINE, r"label values 4, 5 in \d+ voxels; the classes are 0 background, 1 a"),
        (LABEL.astype(np.int16) - 1, AFFINE, "label values -1 "),
        (LABEL.astype(np.float64) * 1e300, AFFINE, "label values 1e"),
        (LABEL[::-1], AFFINE @ np.diag([-1, 1, 1, 1]), r"v \(RPS\) and v \(LPS\) have different"),
        (LABEL, AFFINE + np.eye(4)[:, [3, 3, 3, 0]] * 5, "different affines"),
    ],
)  # fmt: skip
def test_label(label: np.ndarray, affine: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_label(volume(label, affine), volume(IMAGE), CLASSES)


def test_float_labels_that_are_class_numbers_are_taken() -> None:
    checked = check_label(volume(LABEL.astype(np.float64)), volume(IMAGE), CLASSES)
    assert checked.dtype == np.uint8
    np.testing.assert_array_equal(checked, LABEL)
    elsewhere = volume(LABEL, np.eye(4))
    np.testing.assert_array_equal(check_label(elsewhere, volume(IMAGE), CLASSES, own_affine=False), LABEL)


def test_time_series_where_a_volume_is_meant() -> None:
    with pytest.raises(DataError, match=r"v holds 30 volumes .*split a time series into one file a volume"):
        stack_channels([volume(np.zeros((*SHAPE, 30)))], 1)


@pytest.mark.parametrize(
    ("voxels", "affine", "message"),
    [
        (IMAGE[1:], AFFINE, "must lie on one grid"),
        (IMAGE[::-1], AFFINE @ np.diag([-1, 1, 1, 1]), r"v \(RPS\) and v \(LPS\) have different affines"),
        (IMAGE, np.diag([1, 1, 2 / 8, 1]) @ AFFINE, "different affines .* must lie on one grid"),
        (IMAGE, AFFINE + np.eye(4)[:, [3, 3, 3, 0]] * 500, "different affines"),
        (IMAGE, AFFINE @ np.diag([1.04, 1, 1, 1]), "different affines"),
    ],
    ids=["shape", "mirrored", "spacing", "shifted", "a voxel off at the end"],
)
def test_channels_that_lie_elsewhere(voxels: np.ndarray, affine: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        stack_channels([volume(IMAGE), volume(voxels, affine)], 2)


def test_channels_whose_headers_are_rounded() -> None:
    """The voxel size to three digits, as some tools write it, and the noise of single precision."""
    fine = np.diag([0.7421875, 0.7421875, 2.5, 1.0])
    rounded, scan = fine.round(3), np.broadcast_to(np.int16(1), (512, 512, 4))
    stacked = stack_channels([volume(scan, fine), volume(scan, rounded)], 2)
    assert stacked.shape == (512, 512, 4, 2)


def test_channels_of_mixed_orientations_are_refused(tmp_path: Path) -> None:
    """One case of two files, the second of which another tool has turned: no header counts more."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(IMAGE, AFFINE))
    nib.save(nib.Nifti1Image(IMAGE, AFFINE), tmp_path / "a_0000.nii.gz")
    nib.save(turned, tmp_path / "a_0001.nii.gz")
    case = RawCase(
        case_id="a",
        patient_id="a",
        channels=(NiftiFile("a_0000.nii.gz"), NiftiFile("a_0001.nii.gz")),
        annotation=None,
    )
    with pytest.raises(
        DataError, match=r"a_0001\.nii\.gz \(RAS\) and a_0000\.nii\.gz \(LPS\) have different"
    ):
        convert_case(Store(str(tmp_path)), case, config=DataConfig(image_size=(32, 32)), channels=2)


def test_scans_of_mixed_orientations_give_the_same_slices(tmp_path: Path) -> None:
    """The same patient, stored in two orders of the axes; annotations alike."""
    turned = nib.as_closest_canonical(nib.Nifti1Image(IMAGE, AFFINE))
    turned_label = nib.as_closest_canonical(nib.Nifti1Image(LABEL, AFFINE))
    for patient, image, label in (
        ("patient001", nib.Nifti1Image(IMAGE, AFFINE), nib.Nifti1Image(LABEL, AFFINE)),
        ("patient002", turned, turned_label),
    ):
        folder = tmp_path / "raw" / patient
        folder.mkdir(parents=True)
        nib.save(image, folder / f"{folder.name}_frame01.nii.gz")
        nib.save(label, folder / f"{folder.name}_frame01_gt.nii.gz")
    config = DataConfig(name="x", image_size=(32, 32), classes=CLASSES)
    raw = Store(str(tmp_path / "raw"))
    first, second = (convert_case(raw, case, config=config, channels=1) for case in read_raw(raw).cases)
    for column in ("image", "label"):
        assert first.samples.column(column).equals(second.samples.column(column))


def test_file_larger_than_any_volume_is_refused_unread() -> None:
    case = RawCase(case_id="a", patient_id="a", channels=(NiftiFile("a.nii"),), annotation=NiftiFile("b.nii"))
    check_sizes([case], {"a.nii": MAX_BYTES, "b.nii": 0})
    with pytest.raises(
        DataError, match=r"b\.nii has 5\.0 GiB, more than the 4 GiB .*data\.exclude=\[\"a\"\]'"
    ):
        check_sizes([case], {"a.nii": 1, "b.nii": 5 * 2**30})


@pytest.mark.parametrize(
    "source",
    [
        NiftiFile("x"),
        NrrdFile("x"),
        Hdf5Volume("x", "image", axes=(0, 1, 2), directions=(1, 1, 1)),
        Hdf5Slices(("x",), "image", directions=(1, 1, 1)),
        DicomSeries(("x",)),
    ],
)
def test_empty_file_of_every_format(tmp_path: Path, source: VolumeSource) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(DataError, match=r"^x is empty \(0 bytes\): copy or export the"):
        source.load(Store(str(tmp_path)))

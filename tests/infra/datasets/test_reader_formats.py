"""Published datasets as they are released, written here in exactly their layout, and hospitals' folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arco_core.config import DataConfig, load
from arco_core.errors import DataError
from infra.datasets import DatasetVersion, prepare_dataset
from infra.datasets.readers import mmwhs
from infra.datasets.readers.base import RawDataset
from infra.datasets.readers.detect import all_readers, read_raw
from infra.datasets.volume import Volume
from infra.storage import Store

from .conftest import TINY
from .raw_files import AFFINE, SHAPE, dicom_series, scan, write_dicom, write_hdf5, write_nifti, write_nrrd

CONFIG = DataConfig(name="x", image_size=(32, 32), validation_fraction=0.25, test_fraction=0.0)


def read(root: Path) -> RawDataset:
    return read_raw(Store(str(root)))


def prepare(root: Path, **changes: object) -> DatasetVersion:
    config = DataConfig(**(vars(CONFIG) | changes))  # type: ignore[arg-type]
    return prepare_dataset(str(root), Store(str(root.parent / "store")), config, use_ray=False)


def loaded(root: Path, case_id: str) -> tuple[Volume, Volume | None]:
    """Image and annotation of a case."""
    case = next(case for case in read(root).cases if case.case_id == case_id)
    store = Store(str(root))
    return case.channels[0].load(store), None if case.annotation is None else case.annotation.load(store)


def write_acdc(root: Path) -> Path:
    for number, folder in ((1, "training"), (2, "training"), (101, "testing")):
        base = root / folder / f"patient{number:03d}"
        for frame in (1, 12):
            image, label = scan(number * 100 + frame)
            write_nifti(base / f"patient{number:03d}_frame{frame:02d}.nii.gz", image)
            write_nifti(base / f"patient{number:03d}_frame{frame:02d}_gt.nii.gz", label)
        write_nifti(base / f"patient{number:03d}_4d.nii.gz", np.stack([image] * 3, -1), AFFINE)
        (base / "Info.cfg").write_text(
            "ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
        )
    write_nifti(root / "testing" / "patient102" / "patient102_frame01.nii.gz", scan(3)[0])
    (root / "training" / "MANDATORY_CITATION.md").write_text("cite")
    return root


def write_lits(root: Path) -> Path:
    for number in (0, 1, 27):
        image, label = scan(number, classes=3)
        folder = root / ("Training Batch 1" if number < 2 else "Training Batch 2")
        write_nifti(folder / f"volume-{number}.nii", image)
        # as in the released files, the annotation's header is not the scan's
        write_nifti(folder / f"segmentation-{number}.nii", label, np.eye(4) if number else AFFINE)
    write_nifti(root / "test-volume-3.nii", scan(9)[0])
    return root


def write_mmwhs(root: Path) -> Path:
    values = np.array([0, 500, 600, 420, 550, 205, 820, 850], np.int16)
    for modality, number in (("ct", 1001), ("ct", 1002), ("mr", 1001)):
        image, label = scan(number + 500 * (modality == "mr"), classes=8)
        stem = root / f"{modality}_train" / f"{modality}_train_{number}"
        write_nifti(stem.with_name(stem.name + "_image.nii.gz"), image)
        label = values[label]
        if modality == "mr":
            label[0, 0, 0] = 421
        write_nifti(stem.with_name(stem.name + "_label.nii.gz"), label)
    write_nifti(root / "ct_test" / "ct_test_2001_image.nii.gz", scan(5)[0])
    return root


def write_la_nrrd(root: Path) -> Path:
    for name, folder in (("0RZDK210BSMWAA6467LU", "Training Set"), ("1D7CUD1955YZPGK8XHJX", "Training Set"),
                         ("4W22FRSXO42GWTAKLLBV", "Testing Set")):  # fmt: skip
        image, label = scan(len(name) + ord(name[0]), classes=2)
        write_nrrd(root / folder / name / "lgemri.nrrd", (image + 300).clip(0).astype(np.uint8))
        write_nrrd(root / folder / name / "laendo.nrrd", label * np.uint8(255))
        write_nrrd(root / folder / name / "lawall.nrrd", label * np.uint8(255))
    return root


def write_la_hdf5(root: Path, train: int = 4, test: int = 1) -> Path:
    names = [f"{chr(81 - n)}RZDK210BSMWAA6467LU" for n in range(train + test)]
    for number, name in enumerate(names):
        image, label = scan(number, classes=2)
        write_hdf5(
            root / "2018LA_Seg_Training Set" / name / "mri_norm2.h5", image.astype(np.float32) / 100, label
        )
    (root / "train.list").write_text("\n".join(names[:train]) + "\n")
    (root / "test.list").write_text("\n".join(names[train:]) + "\n")
    return root


def test_acdc_as_released(tmp_path: Path) -> None:
    root = write_acdc(tmp_path / "ACDC")
    dataset = read(root)
    assert (dataset.name, dataset.classes, dataset.channels) == ("ACDC", ("background", "RV", "Myo", "LV"), 1)
    assert [case.case_id for case in dataset.cases] == [
        f"patient{patient}_frame{frame}" for patient in ("001", "002", "101") for frame in ("01", "12")
    ]
    version = prepare(root)
    assert version.patients("test") == ("patient101",)
    assert len(version.patients("validation")) == len(version.patients("train")) == 1
    image, label = scan(112)
    np.testing.assert_array_equal(version.reference("patient001_frame12"), label)
    np.testing.assert_array_equal(loaded(root, "patient001_frame12")[0].voxels, image)


def test_acdc_training_folder_alone_and_incomplete(tmp_path: Path) -> None:
    root = write_acdc(tmp_path / "ACDC") / "training"
    assert {case.patient_id for case in read(root).cases} == {"patient001", "patient002"}
    (root / "patient002" / "patient002_frame01.nii.gz").unlink()
    with pytest.raises(
        DataError, match=r"1 annotations have no scan: patient002/patient002_frame01_gt\.nii\.gz"
    ):
        read(root)


def test_lits_believes_the_scans_header(tmp_path: Path) -> None:
    root = write_lits(tmp_path / "LITS")
    dataset = read(root)
    assert (dataset.name, dataset.classes) == ("LiTS", ("background", "liver", "lesion"))
    assert [case.case_id for case in dataset.cases] == ["volume-0", "volume-1", "volume-27"]
    version = prepare(root)
    np.testing.assert_array_equal(version.reference("volume-27"), scan(27, classes=3)[1])
    write_nifti(root / "volume-27.nii", scan(28)[0])
    with pytest.raises(DataError, match="case '27' exists more than once"):
        read(root)


def test_mmwhs_values_become_classes(tmp_path: Path) -> None:
    root = write_mmwhs(tmp_path / "MMWHS")
    dataset = read(root)
    assert dataset.name == "MMWHS" and dataset.classes == mmwhs.CLASSES
    assert [case.case_id for case in dataset.cases] == ["ct_train_1001", "ct_train_1002", "mr_train_1001"]
    version = prepare(root)
    np.testing.assert_array_equal(version.reference("ct_train_1002"), scan(1002, classes=8)[1])
    expected = scan(1501, classes=8)[1]
    expected[0, 0, 0] = mmwhs.CLASSES.index("LA")
    np.testing.assert_array_equal(version.reference("mr_train_1001"), expected)
    only = prepare(root / "ct_train", name="ct")
    assert [case.case_id for case in only.cases] == ["ct_train_1001", "ct_train_1002"]


def test_value_of_no_class_is_refused(tmp_path: Path) -> None:
    root = write_mmwhs(tmp_path / "MMWHS")
    label = np.full(SHAPE, 500, np.int16)
    label[0, :2, 0] = 7
    write_nifti(root / "ct_train" / "ct_train_1001_label.nii.gz", label)
    with pytest.raises(
        DataError, match="has 2 voxels of no class, one with the value 7; its format has 0, 205, 420,"
    ):
        prepare(root)


def test_la_as_released(tmp_path: Path) -> None:
    root = write_la_nrrd(tmp_path / "LA")
    dataset = read(root)
    assert (dataset.name, dataset.classes) == ("LA", ("background", "left atrium"))
    version = prepare(root)
    assert version.patients("test") == ("4W22FRSXO42GWTAKLLBV",)
    case = version.case("0RZDK210BSMWAA6467LU")
    assert case.geometry.voxel_spacing_mm == (0.625, 0.625, 1.25)
    np.testing.assert_allclose(np.array(case.geometry.affine), np.diag([-0.625, -0.625, 1.25, 1]))
    np.testing.assert_array_equal(version.reference(case.case_id), scan(20 + ord("0"), classes=2)[1])


def test_la_hdf5_with_its_lists(tmp_path: Path) -> None:
    root = write_la_hdf5(tmp_path / "LA")
    version = prepare(root)
    order = [f"{letter}RZDK210BSMWAA6467LU" for letter in "QPONM"]
    assert version.patients("validation") == (order[4],) and version.patients("test") == ()
    assert [list(version.labeled_patients(n, seed=n)) for n in (1, 3)] == [order[:1], order[:3]]
    np.testing.assert_array_equal(version.reference(order[1]), scan(1, classes=2)[1])
    assert not version.manifest.spacing_known
    image, _ = loaded(root, order[1])
    np.testing.assert_array_equal(image.voxels, scan(1, classes=2)[0].astype(np.float32) / 100)


def test_la_lists_that_contradict_the_files_are_refused(tmp_path: Path) -> None:
    root = write_la_hdf5(tmp_path / "LA")
    (root / "test.list").write_text("QRZDK210BSMWAA6467LU\n")
    with pytest.raises(DataError, match=r"QRZDK210BSMWAA6467LU is in train\.list and in test\.list"):
        read(root)
    (root / "test.list").write_text("nobody\n")
    with pytest.raises(DataError, match=r"test\.list names 'nobody', which has no mri_norm2\.h5"):
        read(root)
    (root / "test.list").unlink()
    assert read(root).held_out == {} and read(root).notes[0].startswith("1 scans are in none of the lists")


def test_plain_folder_of_scans(tmp_path: Path) -> None:
    root = tmp_path / "Archive 7"
    write_nifti(root / "loose.nii", scan(1)[0])
    write_nifti(root / "Jürgen 2" / "köpf 1.nii.gz", scan(2)[0])
    write_nifti(root / "Jürgen 2" / "b" / "x.nii.gz", scan(3)[0])
    dataset = read(root)
    assert (dataset.name, dataset.classes) == ("Archive 7", ())
    assert [(case.case_id, case.patient_id, case.annotation) for case in dataset.cases] == [
        ("Jürgen 2_b_x", "Jürgen 2", None),
        ("Jürgen 2_köpf 1", "Jürgen 2", None),
        ("loose", "loose", None),
    ]
    with pytest.raises(DataError, match="none of the 2 patients is annotated"):
        prepare(root)


@pytest.mark.parametrize("name", ["{:d}.dcm", "IM{:05d}", "1.2.840.{:d}", "{:d}.IMA"])
def test_dicom_series(tmp_path: Path, name: str) -> None:
    root = tmp_path / "archive"
    for number in range(2):
        write_dicom(root / f"p{number}" / "ct", dicom_series(scan(number)[0]), name)
    (root / "DICOMDIR").write_bytes(b"index")
    (root / "notes.txt").write_text("mine")
    dataset = read(root)
    assert [(case.case_id, case.patient_id) for case in dataset.cases] == [("p0_ct", "p0"), ("p1_ct", "p1")]
    volume, _ = loaded(root, "p1_ct")
    np.testing.assert_array_equal(volume.voxels, scan(1)[0])
    np.testing.assert_allclose(volume.affine, AFFINE)


def test_dicom_and_nifti_of_one_scan_give_the_same_slices(tmp_path: Path) -> None:
    """Unlabelled scans of both formats beside labelled ones, in `imagesUn`."""
    root, other = write_lits(tmp_path / "one" / "raw"), write_lits(tmp_path / "other" / "raw")
    write_nifti(other / "imagesUn" / "a.nii.gz", scan(50)[0])
    write_dicom(root / "imagesUn" / "b", dicom_series(scan(50)[0]))
    write_dicom(root / "imagesUn" / "c" / "series 1", dicom_series(scan(51)[0]))
    version = prepare(root)
    assert {c.case_id: c.patient_id for c in version.cases if not c.annotated} == {
        "b": "b",
        "c_series 1": "c",
    }
    np.testing.assert_array_equal(prepare(other).read_case("a")[0], version.read_case("b")[0])
    assert set(version.patients("train")) > {"b", "c"}
    write_nifti(root / "imagesUn" / "a.nii.gz", scan(50)[0])
    with pytest.raises(DataError, match="hold the same image: a, b"):  # whatever the format
        prepare(root)


def test_unlabelled_dicom_beside_a_decathlon_folder(raw: Path) -> None:
    write_dicom(raw / "imagesUn" / "ward 3", dicom_series(scan(50)[0]))
    assert [case.case_id for case in read(raw).cases][-2:] == ["case_005", "ward 3"]
    write_dicom(raw / "imagesUn" / "case_001", dicom_series(scan(51)[0]))
    with pytest.raises(DataError, match="case 'case_001' exists more than once: "):
        read(raw)


def test_unlabelled_folders_are_appended_to_a_version(tiny_raw: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    version = first = prepare_dataset(str(tiny_raw), store, TINY, use_ray=False)
    write_nifti(tmp_path / "night 1" / "a.nii.gz", scan(1)[0])
    write_dicom(tmp_path / "night 2" / "b" / "ct", dicom_series(scan(2)[0]))
    for folder in ("night 1", "night 2"):
        version = prepare_dataset(str(tmp_path / folder), store, TINY, use_ray=False, append_to=version.url)
    assert [case.case_id for case in version.cases if not case.annotated][:2] == ["a", "b_ct"]
    assert version.classes == first.classes
    assert version.patients("validation") == first.patients("validation")


def test_only_the_unlabelled_subfolder(tmp_path: Path) -> None:
    write_nifti(tmp_path / "imagesUn" / "a.nii.gz", scan(1)[0])
    assert [case.case_id for case in read(tmp_path).cases] == ["a"]


def test_folder_that_fits_no_format_lists_them_all(tmp_path: Path) -> None:
    (tmp_path / "scan.mha").touch()
    with pytest.raises(DataError, match="holds scans in no layout that is known") as caught:
        read(tmp_path)
    assert all(reader.layout in str(caught.value) for reader in all_readers())
    assert len({reader.name for reader in all_readers()}) == 9


def test_folder_that_fits_several_formats_names_these(tmp_path: Path) -> None:
    write_lits(tmp_path)
    write_la_nrrd(tmp_path)
    with pytest.raises(DataError, match="several layouts; give each its own folder") as caught:
        read(tmp_path)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("preset", "write"),
    [("acdc", write_acdc), ("lits", write_lits), ("mmwhs", write_mmwhs), ("la", write_la_nrrd)],
)
def test_presets_fit_their_datasets(tmp_path: Path, preset: str, write: object) -> None:
    root = write(tmp_path / "raw")  # type: ignore[operator]
    config = load(preset=preset).data
    version = prepare_dataset(str(root), Store(str(tmp_path / "store")), config, use_ray=False)
    assert version.name == preset
    assert config.image_size == ((80, 112, 112) if preset == "la" else (256, 256))
    voxels, _ = version.read_case(version.cases[0].case_id)
    assert voxels.shape[-len(config.image_size) :] == config.image_size
    if config.intensity != "zscore":
        assert 0 <= voxels.min() < voxels.max() <= 1


@pytest.mark.s3
def test_raw_folders_in_s3(aws: None, tmp_path: Path) -> None:
    raw = Store(f"s3://arco/{tmp_path.name}")
    raw.upload_folder(
        write_dicom(tmp_path / "ct" / "series", dicom_series(scan(4)[0]), "IM{:04d}").parent, "ct"
    )
    raw.upload_folder(write_la_hdf5(tmp_path / "la"), "la")
    (series,) = read_raw(Store(raw.join("ct"))).cases
    np.testing.assert_array_equal(series.channels[0].load(Store(raw.join("ct"))).voxels, scan(4)[0])
    dataset = read_raw(Store(raw.join("la")))
    assert len(dataset.cases) == 5 and len(dataset.labeled_order) == 4
    annotation = dataset.cases[-1].annotation
    assert annotation is not None
    label = annotation.load(Store(raw.join("la"))).voxels
    np.testing.assert_array_equal(label, scan(0, classes=2)[1])

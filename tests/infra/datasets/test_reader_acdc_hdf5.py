"""The semi-supervised literature's ACDC: its files, lists and labelled subsets."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from arco_core.config import DataConfig, load
from arco_core.errors import DataError
from infra.datasets import DatasetVersion, prepare_dataset
from infra.datasets.readers.base import RawDataset
from infra.datasets.readers.detect import read_raw
from infra.storage import Store

CONFIG = DataConfig(
    name="acdc", image_size=(32, 32), percentiles=(0.0, 100.0), test_fraction=0.0, exclude=("patient076",)
)
TRAIN = ("patient099", "patient002", "patient050")


def write_h5(path: Path, image: np.ndarray, label: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=image, compression="gzip")
        file.create_dataset("label", data=label, compression="gzip")


def volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label (slices, rows, columns)."""
    rng = np.random.default_rng(seed)
    return rng.random((11, 24, 20), dtype=np.float32), rng.integers(0, 4, (11, 24, 20), dtype=np.uint8)


def seed_of(case: str) -> int:
    return int(case[7:10]) * 10 + int(case[-1])


def write_lists(root: Path, **lists: Sequence[str]) -> None:
    for name, lines in lists.items():
        (root / f"{name}.list").write_text("\n".join(lines) + "\n")


@pytest.fixture
def acdc(tmp_path: Path) -> Path:
    """Three patients in slices, two in volumes; two frames each."""
    root = tmp_path / "ACDC"
    lines = []
    for patient in TRAIN:
        for frame in (1, 2):
            case = f"{patient}_frame{frame:02d}"
            image, label = volume(seed_of(case))
            for number in reversed(range(11)):
                lines.append(f"{case}_slice_{number + 1}")
                write_h5(root / "data" / "slices" / f"{lines[-1]}.h5", image[number], label[number])
    for patient in ("patient010", "patient011"):
        for frame in (1, 2):
            case = f"{patient}_frame{frame:02d}"
            write_h5(root / "data" / f"{case}.h5", *volume(seed_of(case)))
    write_lists(
        root,
        train_slices=lines,
        train=[f"{p}_frame0{f}" for p in TRAIN for f in (1, 2)],
        val=["patient011_frame01", "patient011_frame02", "patient010_frame01", "patient010_frame02"],
    )
    return root


def read(root: Path) -> RawDataset:
    return read_raw(Store(str(root)))


def prepare(root: Path, store: Path) -> DatasetVersion:
    return prepare_dataset(str(root), Store(str(store)), CONFIG, use_ray=False)


def test_slices_become_volumes_and_lists_become_splits(acdc: Path, tmp_path: Path) -> None:
    version = prepare(acdc, tmp_path / "store")
    assert version.classes == ("background", "RV", "Myo", "LV") and version.channels == 1
    assert version.patients("train") == ("patient002", "patient050", "patient099")
    assert version.patients("validation") == ("patient010", "patient011")
    assert version.patients("test") == ()
    assert not version.manifest.spacing_known
    assert len(version.cases) == 10
    for case in version.cases:
        image, label = volume(seed_of(case.case_id))
        assert case.geometry.shape == (20, 24, 11) and case.geometry.voxel_spacing_mm == (1, 1, 1)
        reference = version.reference(case.case_id)
        assert reference is not None
        np.testing.assert_array_equal(reference.transpose(2, 1, 0), label)
        slices, labels = version.read_case(case.case_id)
        assert labels is not None
        inner = np.s_[:, 4:28, 6:26]
        np.testing.assert_array_equal(labels[inner], label)
        expected = (image - image.min()) / (image.max() - image.min())
        np.testing.assert_allclose(slices[:, 0][inner], expected, atol=1e-3)


def test_labelled_subsets_are_the_literatures_whatever_the_seed(acdc: Path, tmp_path: Path) -> None:
    version = prepare(acdc, tmp_path / "store")
    for seed in range(3):
        assert version.labeled_patients(1, seed) == TRAIN[:1]
        assert version.labeled_patients(2, seed) == TRAIN[:2]
        assert version.labeled_patients(1.0 - 1e-9, seed) == TRAIN


def test_a_changed_list_is_another_version(acdc: Path, tmp_path: Path) -> None:
    first = prepare(acdc, tmp_path / "store")
    lines = (acdc / "train_slices.list").read_text().split()
    write_lists(acdc, train_slices=lines[::-1])
    second = prepare(acdc, tmp_path / "store")
    assert second.version != first.version
    assert second.labeled_patients(1, 0) == TRAIN[-1:]


def test_without_lists_all_scans_take_part_and_the_split_is_drawn(acdc: Path, tmp_path: Path) -> None:
    for path in acdc.glob("*.list"):
        path.unlink()
    version = prepare(acdc, tmp_path / "store")
    assert len(version.patients("train")) == 4 and len(version.patients("validation")) == 1


def test_notes_tell_what_the_folder_leaves_open(acdc: Path, tmp_path: Path) -> None:
    write_h5(acdc / "data" / "patient012_frame01.h5", *volume(7))
    notes: list[str] = []
    version = prepare_dataset(
        str(acdc), Store(str(tmp_path / "store")), CONFIG, use_ray=False, on_note=notes.append
    )
    assert "patient012" not in {case.patient_id for case in version.cases}
    assert notes == [
        "1 scans are in none of the lists and are left out",
        "the scans do not say how large a voxel is: it counts as 1 mm, so figures in mm are in voxels",
        "data.exclude names patient076, of which there is no scan",
    ]


def test_copies_are_refused_until_they_are_left_out(acdc: Path, tmp_path: Path) -> None:
    _, label = volume(0)
    for frame in (1, 2):  # the literature's patient 076: another annotation of patient 074's scans
        image = volume(990 + frame)[0]
        write_h5(acdc / "data" / f"patient076_frame0{frame}.h5", image, label)
    lines = (acdc / "train_slices.list").read_text().split()
    write_lists(acdc, train_slices=[*lines, "patient076_frame01", "patient076_frame02"])
    store = Store(str(tmp_path / "store"))
    everything = dataclasses.replace(CONFIG, exclude=())
    with pytest.raises(
        DataError,
        match=r"same image: patient076_frame01, patient099_frame01; .*"
        r"data\.exclude=\[\"patient099_frame01\", \"patient099_frame02\"\]'",
    ):
        prepare_dataset(str(acdc), store, everything, use_ray=False)
    one_frame = dataclasses.replace(CONFIG, exclude=("patient076_frame01", "patient099_frame02"))
    prepared = prepare_dataset(str(acdc), store, one_frame, use_ray=False)
    assert len(prepared.cases) == 10
    assert "patient076" not in {case.patient_id for case in prepare(acdc, tmp_path / "store").cases}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"val": ["patient200_frame01"]}, r"val\.list names patient200_frame01, which has no file"),
        ({"val": ["patient099_frame01"]}, "patient099 is listed for train and for validation"),
        ({"test": ["patient010_frame01"]}, "patient010 is listed for validation and for test"),
        ({"val": ["../../x"]}, r"the line '\.\./\.\./x' is not a scan"),
    ],
)
def test_lists_that_contradict_the_files_are_refused(
    acdc: Path, lists: dict[str, list[str]], message: str
) -> None:
    write_lists(acdc, **lists)
    with pytest.raises(DataError, match=message):
        read(acdc)


@pytest.mark.parametrize(
    ("slice_number", "message"), [(5, "lacks slice 5"), (1, "begins with slice 2"), (11, None)]
)
def test_missing_slices_are_noticed(acdc: Path, slice_number: int, message: str | None) -> None:
    missing = acdc / "data" / "slices" / f"patient002_frame01_slice_{slice_number}.h5"
    missing.unlink()
    if message is not None:  # nothing but the list says which slice is the last
        with pytest.raises(DataError, match=message):
            read(acdc)
    write_lists(acdc, train_slices=[p.stem for p in (acdc / "data" / "slices").iterdir()] + [missing.stem])
    with pytest.raises(DataError, match=missing.stem if message is None else message):
        read(acdc)


def test_a_slice_with_a_number_of_any_size_is_only_a_gap(acdc: Path) -> None:
    (acdc / "data" / "slices" / f"patient002_frame01_slice_{10**15}.h5").touch()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="patient002_frame01 lacks slice 12: copy the missing files"):
            read(acdc)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_slice_under_two_names_is_refused(acdc: Path) -> None:
    (acdc / "data" / "slices" / "patient002_frame01_slice_03.h5").touch()
    with pytest.raises(DataError, match=r"slice_03\.h5 and .*slice_3\.h5 are the same slice: remove one"):
        read(acdc)


@pytest.mark.realdata
def test_real_folder(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "ACDC"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    config = load(preset="acdc").data
    version = prepare_dataset(str(folder), Store(str(tmp_path)), config, use_ray=False)
    assert [len(version.patients(split)) for split in ("train", "validation", "test")] == [69, 10, 0]
    order = ["patient099", "patient038", "patient050", "patient100", "patient058", "patient021", "patient049"]
    for amount in (1, 3, 7):
        assert list(version.labeled_patients(amount, seed=amount)) == order[:amount]
    lines = (folder / "train_slices.list").read_text().split()
    for amount, count in ((1, 23), (3, 68), (7, 136)):
        listed = {line.partition("_")[0] for line in lines[:count]}
        assert listed == set(version.labeled_patients(amount, seed=0))
    assert sum(case.rows for case in version.cases if case.split == "train") == 1312 - 16

"""From a raw folder to a version, and everything that must stop on the way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from arco_core.errors import DataError, StoreError
from arco_core.preprocess import prepare_image, prepare_label, restore_label
from infra.datasets import DatasetVersion, prepare_dataset
from infra.datasets.convert import PreparedCase, convert_case
from infra.datasets.readers.base import RawCase
from infra.storage import Store

from .conftest import TINY, Spoil


def prepare(raw: Path, store: Path, **changes: object) -> DatasetVersion:
    config = dataclasses.replace(TINY, **changes)  # type: ignore[arg-type]
    return prepare_dataset(str(raw), Store(str(store)), config, use_ray=False)


def test_version_holds_every_case(tiny: DatasetVersion, tiny_raw: Path) -> None:
    assert tiny.name == "tiny" and len(tiny.version) == 12
    assert tiny.url.endswith(f"datasets/tiny/{tiny.version}")
    assert tiny.classes == ("background", "ring", "core") and tiny.channels == 1
    assert tiny.data_config == dataclasses.replace(TINY, classes=tiny.classes)
    assert [case.case_id for case in tiny.cases] == [f"case_{n:03d}" for n in range(6)]
    assert {split: len(tiny.patients(split)) for split in ("train", "validation", "test")} == {
        "train": 5,
        "validation": 1,
        "test": 0,
    }
    for case in tiny.cases:
        folder = "imagesTr" if case.annotated else "imagesUn"
        image = nib.load(tiny_raw / folder / f"{case.case_id}.nii.gz")
        slices, labels = tiny.read_case(case.case_id)
        expected, geometry = prepare_image(np.asarray(image.dataobj), image.affine, tiny.data_config)
        np.testing.assert_array_equal(slices, expected.astype(np.float16).astype(np.float32))
        assert case.geometry == geometry and case.rows == 4
        kind = "labeled" if case.annotated else "unlabeled"
        assert case.shard.startswith(f"{tiny.version}/{kind}/")
        reference = tiny.reference(case.case_id)
        assert case.annotated == (labels is not None) == (reference is not None)
        if reference is not None and labels is not None:
            voxels = np.asarray(nib.load(tiny_raw / "labelsTr" / f"{case.case_id}.nii.gz").dataobj)
            np.testing.assert_array_equal(reference, voxels)
            np.testing.assert_array_equal(restore_label(labels, geometry), voxels)


def test_labeled_patients_are_annotated_train_patients(tiny: DatasetVersion) -> None:
    annotated = {case.patient_id for case in tiny.cases if case.annotated}
    chosen = tiny.labeled_patients(3, seed=0)
    assert set(chosen) == annotated.intersection(tiny.patients("train"))
    assert tiny.labeled_patients(0.2, seed=0) == chosen[:1]
    with pytest.raises(DataError, match="only 3 of the 5"):
        tiny.labeled_patients(4, seed=0)


def test_unknown_names_are_refused(tiny: DatasetVersion) -> None:
    with pytest.raises(DataError, match="split 'val' does not exist"):
        tiny.patients("val")
    with pytest.raises(DataError, match="no case 'x'"):
        tiny.read_case("x")
    with pytest.raises(DataError, match="no patient x"):
        tiny.cases_of(["x"])


def test_same_input_gives_the_same_version_and_is_reused(raw: Path, tmp_path: Path) -> None:
    first = prepare(raw, tmp_path / "store")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.*")}
    again = prepare(raw, tmp_path / "store")
    assert again.url == first.url
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.*")}
    moved = Path(shutil.copytree(raw, tmp_path / "elsewhere"))
    assert prepare(moved, tmp_path / "other").version == first.version


def test_other_scans_or_settings_give_another_version(
    raw: Path, tmp_path: Path, change_voxels: Spoil
) -> None:
    first = prepare(raw, tmp_path / "store")
    assert prepare(raw, tmp_path / "store", split_seed=1).version != first.version
    assert prepare(raw, tmp_path / "store", image_size=(48, 32)).version != first.version
    change_voxels(raw / "labelsTr" / "case_000.nii.gz", lambda v: v * 0)
    assert prepare(raw, tmp_path / "store").version != first.version
    assert DatasetVersion.open(first.url).cases == first.cases


def test_failure_leaves_earlier_versions_and_is_finished_by_a_rerun(raw: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = prepare(raw, store)
    good = (raw / "imagesTr" / "case_001.nii.gz").read_bytes()
    (raw / "imagesTr" / "case_001.nii.gz").write_bytes(good[:-9])
    with pytest.raises(DataError):
        prepare(raw, store, split_seed=1)
    assert len(list(store.rglob("manifest.json"))) == 1
    assert DatasetVersion.open(first.url).cases == first.cases
    (raw / "imagesTr" / "case_001.nii.gz").write_bytes(good)
    assert len(prepare(raw, store, split_seed=1).cases) == 6


def test_open_says_what_is_wrong(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no dataset version: it has no manifest\.json"):
        DatasetVersion.open(str(tmp_path))
    version = prepare(raw, tmp_path / "store")
    folder = Path(version.url)
    next(folder.glob("cases-*.parquet")).write_bytes(b"")
    with pytest.raises(DataError, match="not the table that"):
        DatasetVersion.open(version.url)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(DataError, match="has format 99"):
        DatasetVersion.open(version.url)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="no dataset manifest"):
        DatasetVersion.open(version.url)


def test_multi_channel_images(raw: Path, tmp_path: Path, describe: Callable[..., None]) -> None:
    for path in [*raw.glob("images*/*.nii.gz")]:
        shutil.copy(path, path.with_name(path.name.replace(".nii", "_0000.nii")))
        path.rename(path.with_name(path.name.replace(".nii", "_0001.nii")))
    describe(raw, channel_names={"0": "T1", "1": "T2"})
    version = prepare(raw, tmp_path / "store")
    assert version.channels == 2
    slices, _ = version.read_case("case_000")
    assert slices.shape == (4, 2, 32, 32)
    np.testing.assert_array_equal(slices[:, 0], slices[:, 1])


def test_integer_and_float_files_may_mix(raw: Path, tmp_path: Path, change_voxels: Spoil) -> None:
    change_voxels(raw / "imagesTr" / "case_000.nii.gz", lambda v: np.clip(v, 0, 255).astype(np.uint8))
    change_voxels(raw / "labelsTr" / "case_001.nii.gz", lambda v: v.astype(np.float32))
    version = prepare(raw, tmp_path / "store")
    assert version.reference("case_001") is not None


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("labelsTr", lambda v: v[:-1], r"labelsTr/case_002\.nii\.gz has shape \(31, 32, 4\), its image"),
        ("labelsTr", lambda v: v + 2, r"label values 3, 4 .*classes are 0 background, 1 ring, 2 core"),
        ("labelsTr", lambda v: v.astype(np.int16) - 1, "label values -1 "),
        ("labelsTr", lambda v: v * 0.5, "holds 0.5, which are no class numbers"),
        ("labelsTr", lambda v: np.where(v == 2, np.nan, v), "holds nan"),
        ("imagesTr", lambda v: np.where(v == v.max(), np.inf, v), "1 of 4096 voxels are NaN or infinite"),
        ("imagesTr", lambda v: np.stack([v[..., None]] * 2, -1), "shape"),
        (
            "imagesTr",
            lambda v: np.stack([v, v], -1),
            r"holds 2 volumes \(shape \(32, 32, 4, 2\)\), the data have 1 channels",
        ),
        ("imagesTr", lambda v: v * 0, "no contrast"),
    ],
)
def test_bad_scan_is_refused_by_name(
    raw: Path,
    tmp_path: Path,
    change_voxels: Spoil,
    folder: str,
    change: Callable[[np.ndarray], np.ndarray],
    message: str,
) -> None:
    change_voxels(raw / folder / "case_002.nii.gz", change)
    with pytest.raises(DataError, match=rf"1 of 6 cases cannot be used:\n  case_002: .*{message}"):
        prepare(raw, tmp_path / "store")


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_truncated_file_is_refused_by_name(raw: Path, tmp_path: Path, kept: int) -> None:
    path = raw / "imagesTr" / "case_002.nii.gz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        DataError, match=r"imagesTr/case_002\.nii\.gz is (empty|truncated|not a readable NIfTI)"
    ):
        prepare(raw, tmp_path / "store")


def test_damaged_and_foreign_files_are_refused_by_name(raw: Path, tmp_path: Path) -> None:
    path = raw / "imagesTr" / "case_001.nii.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    (raw / "labelsTr" / "case_002.nii.gz").write_text("<html>not found</html>")
    with pytest.raises(
        DataError, match=r"2 of 6 cases .*\n.*case_001\.nii\.gz is .*\n.*case_002\.nii\.gz is "
    ):
        prepare(raw, tmp_path / "store")


def test_colour_image_is_refused(raw: Path, tmp_path: Path, change_voxels: Spoil) -> None:
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    change_voxels(raw / "imagesTr" / "case_002.nii.gz", lambda v: np.zeros(v.shape, rgb))
    with pytest.raises(DataError, match=r"case_002\.nii\.gz is of type .*, not of real numbers"):
        prepare(raw, tmp_path / "store")


def test_scan_that_changes_meanwhile_is_refused(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.datasets import packing as module

    def changing(source: Store, case: RawCase, **settings: Any) -> PreparedCase:
        prepared = convert_case(source, case, **settings)
        return dataclasses.replace(prepared, digests=dataclasses.replace(prepared.digests, image="other"))

    monkeypatch.setattr(module, "convert_case", changing)
    with pytest.raises(DataError, match="case_000 changed while it was prepared"):
        prepare(raw, tmp_path / "store")


def test_label_with_another_affine_is_refused(raw: Path, tmp_path: Path) -> None:
    path = raw / "labelsTr" / "case_002.nii.gz"
    label = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), np.diag([-1.5, 1.5, 8, 1])), path)
    with pytest.raises(DataError, match="different affines"):
        prepare(raw, tmp_path / "store")


def test_one_image_under_two_patients_is_refused(
    raw: Path, tmp_path: Path, describe: Callable[..., None]
) -> None:
    shutil.copy(raw / "imagesTr" / "case_000.nii.gz", raw / "imagesUn" / "copy.nii.gz")
    with pytest.raises(DataError, match="same image: case_000, copy"):
        prepare(raw, tmp_path / "store")
    describe(raw, patients={"copy": "case_000"})
    assert len(prepare(raw, tmp_path / "store").cases) == 7


def test_wrong_number_of_classes_is_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.classes = .* has 2 names, the dataset has 3"):
        prepare(raw, tmp_path / "store", classes=("background", "disc"))


def test_classes_in_another_order_are_refused(raw: Path, tmp_path: Path) -> None:
    """Else a preset's names would be given to other structures than the annotations mean."""
    with pytest.raises(DataError, match=r"'Core' at the label value 1, the dataset at 2: \['background',"):
        prepare(raw, tmp_path / "store", classes=("background", "Core", "ring"))
    other_words = ("none", "Ring", "Kern")
    assert prepare(raw, tmp_path / "store", classes=other_words).classes == other_words


def test_unwritable_store_is_refused_before_anything_is_read(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not writable"):
        prepare(raw, tmp_path / "file")


def test_progress_counts_cases(raw: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare_dataset(
        str(raw), Store(str(tmp_path / "s")), TINY, use_ray=False, on_case=lambda *counts: seen.append(counts)
    )
    assert seen == [(n, 6) for n in range(1, 7)]


def test_prepared_labels_are_those_of_the_references(tiny: DatasetVersion) -> None:
    for case in tiny.cases:
        reference = tiny.reference(case.case_id)
        if reference is not None:
            np.testing.assert_array_equal(
                tiny.read_case(case.case_id)[1], prepare_label(reference, case.geometry)
            )

"""The demo cohort: reproducible, plausible, and a valid raw folder."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from arco_core.config import load
from arco_core.errors import DataError
from infra.datasets import prepare_dataset
from infra.datasets.phantom import CLASSES, LV, MYO, RV, make_phantom
from infra.datasets.readers.detect import read_raw
from infra.datasets.synthetic import LABELED, PATIENTS, write_cohort
from infra.storage import Store


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_cohort(tmp_path / "a", patients=3, labeled=2, seed=5)
    second = write_cohort(tmp_path / "b", patients=3, labeled=2, seed=5)
    other = write_cohort(tmp_path / "c", patients=3, labeled=2, seed=6)
    assert contents(first) == contents(second) != contents(other)


def test_labels_do_not_change_the_scans(tmp_path: Path) -> None:
    few = write_cohort(tmp_path / "few", patients=2, labeled=1)
    full = write_cohort(tmp_path / "all", patients=2, labeled=2)
    assert (few / "imagesUn" / "demo_002.nii.gz").read_bytes() == (
        full / "imagesTr" / "demo_002.nii.gz"
    ).read_bytes()


def test_complete_cohort_is_left_alone_and_another_is_refused(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "demo", patients=2, labeled=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_cohort(folder, patients=2, labeled=1)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(DataError, match="holds another dataset"):
        write_cohort(folder, patients=3, labeled=1)
    (folder / "dataset.json").unlink()  # as if writing had been interrupted
    write_cohort(folder, patients=2, labeled=1)
    assert (folder / "dataset.json").exists()


@pytest.mark.parametrize(("patients", "labeled"), [(2, 0), (2, 3)])
def test_impossible_numbers_are_refused(tmp_path: Path, patients: int, labeled: int) -> None:
    with pytest.raises(DataError, match="must lie between"):
        write_cohort(tmp_path, patients=patients, labeled=labeled)


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/demo cannot be used: .*choose"):
        write_cohort(tmp_path / "file" / "demo", patients=1, labeled=1)


def test_hearts_look_like_hearts() -> None:
    phantoms = [make_phantom(np.random.default_rng(seed)) for seed in range(12)]
    shares = sum(np.bincount(p.label.ravel(), minlength=4) / p.label.size for p in phantoms) / len(phantoms)
    assert shares[0] > 0.75 and shares[1:].min() > 0.02
    for phantom in phantoms:
        image, label = phantom.image, phantom.label
        assert image.shape == label.shape and image.dtype == np.int16 and label.max() == 3
        assert phantom.spacing_mm[2] > 4 * phantom.spacing_mm[0]
        assert np.median(image[label == LV]) > 1.3 * np.median(image[label == MYO])
        middle = label[:, :, label.shape[2] // 3]
        around = ndimage.binary_dilation(middle == LV) & (middle != LV)
        assert (middle[around] == MYO).all(), "the cavity is enclosed by muscle"
        beside = ndimage.binary_dilation(middle == RV, iterations=2) & (middle == MYO)
        assert beside.any(), "the right ventricle lies beside the muscle"
        assert (label[:, :, -1] > 0).sum() < 0.3 * (label[:, :, 0] > 0).sum()


def test_default_cohort_fits_the_demo_preset(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "demo", patients=PATIENTS, labeled=LABELED)
    dataset = read_raw(Store(str(folder)))
    assert dataset.classes == CLASSES and len(dataset.cases) == PATIENTS
    assert nib.aff2axcodes(nib.load(folder / dataset.cases[0].image_paths[0]).affine) == ("L", "P", "S")
    config = load(preset="demo").data
    version = prepare_dataset(str(folder), Store(str(tmp_path / "store")), config, use_ray=False)
    assert len(version.patients("validation")) == 8
    assert len(version.labeled_patients(3, seed=0)) == 3
    assert all(version.read_case(case.case_id)[0].max() == 1 for case in version.cases[:3])

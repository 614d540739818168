"""Volumes from a raw folder to patches: prepared in bricks, drawn at random, resumed exactly."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from arco_core.bricks import brick_places
from arco_core.config import DataConfig, load
from arco_core.errors import DataError
from arco_core.preprocess import restore_label
from infra.datasets import DatasetVersion, SlicePool, prepare_dataset
from infra.datasets.blocks import BlockReader, Patches
from infra.datasets.draft import preview
from infra.datasets.readers.detect import read_raw
from infra.datasets.row_groups import row_groups_of
from infra.storage import Store
from tests.conftest import write_msd_folder

from .conftest import TINY
from .test_reader_formats import write_la_hdf5

PATCH = (16, 16, 16)
PATIENTS = [f"case_{n:03d}" for n in range(6)]
CONFIG = dataclasses.replace(TINY, image_size=PATCH)
BOTH = pytest.mark.parametrize("cache", [True, False], ids=["memory", "windows"])


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    """Six scans of 48 x 40 x 12 voxels: 12 slices are padded to 16, and cut into 2 x 2 bricks of 28 x 24."""
    raw = write_msd_folder(tmp_path_factory.mktemp("raw"), shape=(48, 40, 12))
    store = Store(str(tmp_path_factory.mktemp("store")))
    return prepare_dataset(str(raw), store, CONFIG, use_ray=False)


def draw(pool: SlicePool, batches: int) -> list[bytes]:
    return [image.numpy().tobytes() for _ in range(batches) for image in pool.next()[0]]


def test_a_version_holds_the_volumes_and_the_way_back(volumes: DatasetVersion) -> None:
    assert volumes.is_volumetric
    for case in volumes.cases:
        image, label = volumes.read_case(case.case_id)
        assert image.shape == (1, 1, 16, 40, 48)
        assert case.geometry.size == (16, 40, 48) and case.geometry.spacing_mm == (8.0, 1.5, 1.5)
        assert case.rows == len(case.row_groups) == len(brick_places((16, 40, 48), PATCH)) == 4
        reference = volumes.reference(case.case_id)
        assert (label is None) == (reference is None)
        if label is not None:
            np.testing.assert_array_equal(restore_label(label, case.geometry), reference)
            # labels mark what is bright, so image and label lie on one grid
            assert image[0, 0][label[0] == 2].mean() > image[0, 0][label[0] == 1].mean() > 0.4


@BOTH
def test_patches_come_from_where_their_voxels_lie(volumes: DatasetVersion, cache: bool) -> None:
    """Every patch is found in the volume of one case, with its label, and no two draws are the same."""
    annotated = [case.case_id for case in volumes.cases if case.annotated]
    pool = SlicePool(volumes, annotated, labels=True, batch=4, cache=cache)
    known = {}
    for case_id in annotated:
        image, label = volumes.read_case(case_id)
        windows = np.lib.stride_tricks.sliding_window_view(image[0, 0], PATCH)
        for start in np.ndindex(windows.shape[:3]):
            where = tuple(slice(s, s + 16) for s in start)
            known[windows[start].tobytes()] = label[0][where] if label is not None else None
    assert pool.size == 4 * sum(p.patches(PATCH) for p in brick_places((16, 40, 48), PATCH))
    drawn = []
    for _ in range(2 * pool.size // 4):
        images, labels = pool.next()
        assert images.shape == (4, 1, *PATCH) and labels is not None
        for image, label in zip(images.numpy(), labels.numpy(), strict=True):
            np.testing.assert_array_equal(label, known[image[0].astype(np.float32).tobytes()])
            drawn.append(image.tobytes())
    assert len(set(drawn)) > 0.9 * len(drawn)


@BOTH
def test_restored_cursor_continues_exactly(volumes: DatasetVersion, cache: bool) -> None:
    def pool(cursor: int = 0) -> SlicePool:
        made = SlicePool(volumes, PATIENTS, labels=False, batch=5, seed=3, cache=cache)
        made.cursor = cursor
        return made

    whole = draw(pool(), 24)
    for batches in (1, 7, 20):
        assert draw(pool(5 * batches), 24 - batches) == whole[5 * batches :]
    other = SlicePool(volumes, PATIENTS, labels=False, batch=5, seed=4, cache=cache)
    assert len(set(whole) & set(draw(other, 24))) < 40  # by chance: a brick has 117 places


def test_the_cached_stream_does_not_depend_on_the_number_of_ranks(volumes: DatasetVersion) -> None:
    def pool(rank: int, world: int) -> SlicePool:
        return SlicePool(volumes, PATIENTS, labels=False, batch=4 // world, rank=rank, world=world)

    alone, shared = pool(0, 1), [pool(rank, 2) for rank in range(2)]
    for _ in range(9):
        assert set(draw(alone, 1)) == set(draw(shared[0], 1)) | set(draw(shared[1], 1))


def test_row_groups_know_the_memory_of_their_bricks(volumes: DatasetVersion) -> None:
    groups = row_groups_of(volumes, PATIENTS, annotated_only=False)
    assert {group.rows for group in groups} == {3} and len(groups) == 24
    with BlockReader(volumes, labels=False, seed=0) as reader:
        block = reader.read(groups[0])
    assert isinstance(block, Patches) and groups[0].bytes == block.brick.image.nbytes


def test_left_atrium_files_become_patches_by_their_preset(tmp_path: Path) -> None:
    raw = write_la_hdf5(tmp_path / "LA")
    config = load(preset="la", overrides=["data.image_size=[16,16,16]"]).data
    version = prepare_dataset(str(raw), Store(str(tmp_path / "store")), config, use_ray=False)
    assert version.is_volumetric and version.classes == ("background", "left atrium")
    for case in version.cases:
        image, label = version.read_case(case.case_id)
        inside = np.ones(image.shape[2:], bool)
        for axis, (size, side) in enumerate(zip(case.geometry.size, case.geometry.resampled, strict=True)):
            margin = (size - side) // 2
            inside &= (np.arange(size) >= margin).reshape([-1 if a == axis else 1 for a in range(3)])
            inside &= (np.arange(size) < margin + side).reshape([-1 if a == axis else 1 for a in range(3)])
        assert image[0, 0][inside].mean() == pytest.approx(0, abs=2e-3)
        assert image[0, 0][inside].std() == pytest.approx(1, abs=2e-3)
        assert label is not None and label[0][inside].any() and not label[0][~inside].any()


@pytest.mark.parametrize(
    "setting", ["data.spacing_mm=[1.0,1.0,1.0]", "data.crop_margin_mm=5", "data.crop_extent_mm=[0,50,50]"]
)
def test_millimetres_need_a_voxel_size(tmp_path: Path, setting: str) -> None:
    crop = {"data.crop_margin_mm": "body", "data.crop_extent_mm": "center"}.get(setting.partition("=")[0])
    overrides = ["data.image_size=[16,16,16]", setting, f"data.crop={crop or 'none'}"]
    raw, store = write_la_hdf5(tmp_path / "LA"), Store(str(tmp_path / "store"))
    config = load(preset="la", overrides=overrides).data
    with pytest.raises(DataError, match=rf"{setting.partition('=')[0]} = .*do not say how large a voxel is"):
        prepare_dataset(str(raw), store, config, use_ray=False)
    with pytest.raises(DataError, match="nothing can be measured in mm"):
        preview(store, read_raw(Store(str(raw))), config)


@pytest.mark.realdata
def test_real_volumes_return_to_their_voxels(real_data: Path, tmp_path: Path) -> None:
    """Hippocampus at its own spacing, through bricks: every voxel; at 0.8 mm: none is lost either."""
    raw = tmp_path / "raw"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
        for path in sorted((real_data / "Task04_Hippocampus" / part).glob("hippocampus_*.nii.gz"))[:6]:
            shutil.copy(path, raw / part)
    shutil.copy(real_data / "Task04_Hippocampus" / "dataset.json", raw)
    for spacing in ((), (0.8, 0.8, 0.8)):
        config = DataConfig(name="real", image_size=(16, 32, 16), spacing_mm=spacing)
        version = prepare_dataset(str(raw), Store(str(tmp_path / "store")), config, use_ray=False)
        assert len(version.cases) == 6
        for case in version.cases:
            _, label = version.read_case(case.case_id)
            assert label is not None and case.rows > 1
            np.testing.assert_array_equal(
                restore_label(label, case.geometry), version.reference(case.case_id)
            )


def test_a_scan_smaller_than_a_patch_is_padded_with_its_darkest_value(tmp_path: Path) -> None:
    raw = write_msd_folder(tmp_path / "raw", shape=(32, 32, 1))
    for path in raw.glob("images*/*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1000, image.affine), path)
    config = dataclasses.replace(CONFIG, image_size=(16, 32, 48))
    version = prepare_dataset(str(raw), Store(str(tmp_path / "store")), config, use_ray=False)
    image, label = version.read_case("case_000")
    assert image.shape == (1, 1, 16, 32, 48) and label is not None
    outside = np.ones(image.shape, bool)
    outside[:, :, 7, :, 8:40] = False
    assert (image[outside] == image.min()).all() and not label[outside[:, 0]].any()
    np.testing.assert_array_equal(
        restore_label(label, version.cases[0].geometry), version.reference("case_000")
    )

"""A version that goes on from an earlier one writes what is new, and moves no patient."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from arco_core.errors import DataError
from infra.datasets import DatasetVersion, convert, prepare_dataset
from infra.datasets.verify import verify
from infra.storage import Store, local
from tests.conftest import write_msd_folder

from .conftest import TINY, Spoil

LARGER = dataclasses.replace(TINY, validation_fraction=0.25, test_fraction=0.25)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans to draw raw folders from: 24 annotated patients and 8 without annotation."""
    return write_msd_folder(tmp_path_factory.mktemp("pool"), patients=32, labeled=24)


@pytest.fixture(autouse=True)
def settled_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a test count as old enough for their times to tell a change."""
    monkeypatch.setattr(local, "FRESH_SECONDS", -1.0)


def add(pool: Path, raw: Path, numbers: range | list[int]) -> Path:
    """Put scans of `pool` into the folder `raw`."""
    for part in ("imagesTr", "imagesUn", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            source = pool / part / f"case_{number:03d}.nii.gz"
            if source.exists():
                shutil.copy(source, raw / part)
    shutil.copy(pool / "dataset.json", raw)
    return raw


def prepare(raw: Path, tmp_path: Path, config: object = LARGER, **options: object) -> DatasetVersion:
    store = Store(str(tmp_path / "store"))
    return prepare_dataset(str(raw), store, config, use_ray=False, **options)  # type: ignore[arg-type]


def shards_on_disk(tmp_path: Path) -> dict[str, int]:
    """Bytes by path of every object but manifests and tables of cases."""
    root = tmp_path / "store"
    files = {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*.parquet")}
    return {path: size for path, size in files.items() if "/cases-" not in path}


def cases_in(version: DatasetVersion, paths: set[str]) -> set[str]:
    """Cases that lie in the shards at `paths`, relative to the store."""
    return {c.case_id for c in version.cases if f"datasets/{version.name}/{c.shard}" in paths}


@pytest.fixture
def count_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How often each raw file is read."""
    reads: dict[str, int] = {}
    original = local.LocalBackend.read_bytes

    def counted(self: local.LocalBackend, key: str) -> bytes:
        if key.endswith(".nii.gz"):
            reads[key] = reads.get(key, 0) + 1
        return original(self, key)

    monkeypatch.setattr(local.LocalBackend, "read_bytes", counted)
    yield reads


def test_ten_scans_more_write_ten_scans(pool: Path, tmp_path: Path, count_reads: dict[str, int]) -> None:
    raw = add(pool, tmp_path / "raw", range(20))
    first = prepare(raw, tmp_path)
    before = shards_on_disk(tmp_path)
    count_reads.clear()
    second = prepare(add(pool, raw, range(20, 30)), tmp_path)
    after = shards_on_disk(tmp_path)
    new = {f"case_{number:03d}" for number in range(20, 30)}

    assert {path: after[path] for path in before} == before
    assert cases_in(second, after.keys() - before.keys()) == new
    written = sum(size for path, size in after.items() if path not in before)
    alone = prepare_dataset(
        str(add(pool, tmp_path / "new", range(20, 30))), Store(str(tmp_path / "alone")), LARGER, use_ray=False
    )
    assert written == sum(shard.bytes for shard in alone.manifest.shards)

    # Files that have not changed are not even read.
    assert set(count_reads) == {p for case in second.cases if case.case_id in new for p in files_of(case)}
    assert second.manifest.parent == first.version
    for case in second.cases:
        other = alone if case.case_id in new else first
        np.testing.assert_array_equal(second.read_case(case.case_id)[0], other.read_case(case.case_id)[0])
    assert verify(second) == []


def files_of(case: object) -> tuple[str, ...]:
    return (*case.source_images, *case.source_labels)  # type: ignore[attr-defined]


def test_patients_stay_in_their_splits_and_new_ones_fill_them_up(pool: Path, tmp_path: Path) -> None:
    raw = add(pool, tmp_path / "raw", range(12))
    versions = [prepare(raw, tmp_path)]
    for end in (16, 20, 32):
        versions.append(prepare(add(pool, raw, range(end)), tmp_path))
    assert [v.manifest.parent for v in versions] == [None, *(v.version for v in versions[:-1])]
    for before, after in itertools.pairwise(versions):
        for split in ("train", "validation", "test"):
            assert set(before.patients(split)) <= set(after.patients(split))
    for version, annotated in zip(versions, (12, 16, 20, 24), strict=True):
        counts = [len(version.patients(split)) for split in ("validation", "test")]
        assert counts == [annotated // 4, annotated // 4]
        held_out = {c.patient_id for c in version.cases if c.split != "train"}
        assert held_out <= {c.patient_id for c in version.cases if c.annotated}


def test_labelled_sets_stay_nested_across_versions(pool: Path, tmp_path: Path) -> None:
    raw = add(pool, tmp_path / "raw", range(12))
    first = prepare(raw, tmp_path)
    second = prepare(add(pool, raw, range(24)), tmp_path)
    for seed in range(3):
        assert second.labeled_patients(6, seed) == first.labeled_patients(6, seed)
        assert second.labeled_patients(9, seed)[:6] == first.labeled_patients(6, seed)
    assert first.labeled_patients(6, 0) != first.labeled_patients(6, 1)


def test_the_same_scans_again_are_the_same_version(
    pool: Path, tmp_path: Path, count_reads: dict[str, int]
) -> None:
    raw = add(pool, tmp_path / "raw", range(8))
    first = prepare(raw, tmp_path)
    prepare(add(pool, raw, range(10)), tmp_path)
    for number in (8, 9):
        for part in ("imagesTr", "labelsTr"):
            (raw / part / f"case_{number:03d}.nii.gz").unlink()
    count_reads.clear()
    objects = shards_on_disk(tmp_path)
    assert prepare(raw, tmp_path).url == first.url
    assert count_reads == {} and shards_on_disk(tmp_path) == objects


def test_a_file_written_a_moment_ago_is_read_again(
    pool: Path, tmp_path: Path, count_reads: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "FRESH_SECONDS", 60.0)
    raw = add(pool, tmp_path / "raw", range(8))
    first = prepare(raw, tmp_path)
    count_reads.clear()
    assert prepare(raw, tmp_path).url == first.url
    assert len(count_reads) == 16


def test_a_file_that_keeps_its_size_and_time_is_seen_to_change(pool: Path, tmp_path: Path) -> None:
    raw = add(pool, tmp_path / "raw", range(8))
    path = raw / "imagesTr" / "case_003.nii"
    packed = path.with_name("case_003.nii.gz")
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    first = prepare(raw, tmp_path)
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = prepare(raw, tmp_path)
    assert second.case("case_003").source_sha256 != first.case("case_003").source_sha256


def test_a_new_annotation_and_a_corrected_one_are_written_anew(
    pool: Path, tmp_path: Path, change_voxels: Spoil
) -> None:
    raw = add(pool, tmp_path / "raw", [*range(10), 24, 25])
    first = prepare(raw, tmp_path)
    before = shards_on_disk(tmp_path)
    shutil.move(raw / "imagesUn" / "case_024.nii.gz", raw / "imagesTr")
    shutil.copy(raw / "labelsTr" / "case_001.nii.gz", raw / "labelsTr" / "case_024.nii.gz")
    change_voxels(raw / "labelsTr" / "case_003.nii.gz", lambda v: np.where(v == 2, 1, v))
    second = prepare(raw, tmp_path)
    written = shards_on_disk(tmp_path).keys() - before.keys()
    assert cases_in(second, written) == {"case_003", "case_024"}
    assert not first.case("case_024").annotated and second.case("case_024").annotated
    assert second.case("case_024").split == "train"  # it was trained on, as an unlabelled scan
    labels = second.read_case("case_003")[1]
    assert labels is not None and labels.max() == 1


def test_a_scan_that_is_gone_is_not_in_the_next_version(pool: Path, tmp_path: Path) -> None:
    raw = add(pool, tmp_path / "raw", range(10))
    first = prepare(raw, tmp_path)
    gone = first.patients("train")[0]
    for part in ("imagesTr", "labelsTr"):
        (raw / part / f"{gone}.nii.gz").unlink()
    second = prepare(add(pool, raw, range(10, 12)), tmp_path)
    # (the copy brings no scan of 0 … 9 back)
    assert gone not in {case.case_id for case in second.cases}
    assert len(second.cases) == 11
    assert verify(second) == []


def test_a_renamed_test_scan_stays_a_test_scan(pool: Path, tmp_path: Path) -> None:
    raw = add(pool, tmp_path / "raw", range(12))
    first = prepare(raw, tmp_path)
    old = first.patients("test")[0]
    for part in ("imagesTr", "labelsTr"):
        (raw / part / f"{old}.nii.gz").rename(raw / part / "renamed.nii.gz")
    # … and written anew, so that only its voxels tell
    path = raw / "imagesTr" / "renamed.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), path)
    second = prepare(add(pool, raw, range(12, 16)), tmp_path)
    assert second.case("renamed").split == "test" and second.manifest.parent == first.version


def test_other_scans_under_the_same_name_start_anew(pool: Path, tmp_path: Path) -> None:
    prepare(add(pool, tmp_path / "raw", range(8)), tmp_path)
    other = prepare(add(pool, tmp_path / "other", range(10, 20)), tmp_path)
    fresh = prepare(tmp_path / "other", tmp_path / "elsewhere")
    assert other.manifest.parent is None and other.version == fresh.version


def test_other_settings_start_anew(pool: Path, tmp_path: Path) -> None:
    raw = add(pool, tmp_path / "raw", range(8))
    first = prepare(raw, tmp_path)
    second = prepare(raw, tmp_path, dataclasses.replace(LARGER, image_size=(48, 48)))
    assert second.manifest.parent is None
    third = prepare(add(pool, raw, range(10)), tmp_path)
    assert third.manifest.parent == first.version


def test_a_second_folder_is_appended(pool: Path, tmp_path: Path, count_reads: dict[str, int]) -> None:
    first = prepare(add(pool, tmp_path / "raw", range(12)), tmp_path)
    night = add(pool, tmp_path / "night", [2, *range(12, 16)])  # one of them is there already
    count_reads.clear()
    before = shards_on_disk(tmp_path)
    second = prepare(night, tmp_path, append_to=first.url)
    assert [case.case_id for case in second.cases] == [f"case_{n:03d}" for n in range(16)]
    written = cases_in(second, shards_on_disk(tmp_path).keys() - before.keys())
    assert written == {f"case_{n:03d}" for n in range(12, 16)}
    assert second.case("case_000").source == str(tmp_path / "raw")
    assert second.case("case_012").source == second.manifest.source == str(night)
    assert all("case_000" not in path for path in count_reads)
    third = prepare(add(pool, tmp_path / "next", range(24, 26)), tmp_path, append_to="tiny")
    assert third.manifest.parent == second.version and len(third.cases) == 18
    assert verify(third) == []


def test_appending_with_other_settings_is_refused(pool: Path, tmp_path: Path) -> None:
    first = prepare(add(pool, tmp_path / "raw", range(8)), tmp_path)
    config = dataclasses.replace(LARGER, image_size=(48, 48), split_seed=3)
    with pytest.raises(DataError, match=r"image_size was \(32, 32\), is \(48, 48\); data\.split_seed was 0"):
        prepare(add(pool, tmp_path / "more", [9]), tmp_path, config, append_to=first.url)


def test_appending_another_scan_under_a_name_that_is_taken_is_refused(pool: Path, tmp_path: Path) -> None:
    first = prepare(add(pool, tmp_path / "raw", range(8)), tmp_path)
    other = add(pool, tmp_path / "other", [9])
    for part in ("imagesTr", "labelsTr"):
        (other / part / "case_009.nii.gz").rename(other / part / "case_001.nii.gz")
    with pytest.raises(DataError, match="other scans under the names case_001: rename the new ones"):
        prepare(other, tmp_path, append_to=first.url)


Rewrite = Callable[[Path, Path], None]


def _recompressed(source: Path, target: Path) -> None:
    target.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()), compresslevel=1, mtime=7))


def _as_another_type(source: Path, target: Path) -> None:
    image = nib.load(source)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine), target)


def _turned_around(source: Path, target: Path) -> None:
    image = nib.as_closest_canonical(nib.load(source))
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "S", "L")))
    nib.save(turned, target)


@pytest.mark.parametrize("rewrite", [_recompressed, _as_another_type, _turned_around])
@pytest.mark.parametrize("when", ["at once", "appended"])
def test_the_same_voxels_under_another_patient_are_refused(
    pool: Path, tmp_path: Path, rewrite: Rewrite, when: str
) -> None:
    raw = add(pool, tmp_path / "raw", range(8))
    more = raw
    if when == "appended":
        prepare(raw, tmp_path)
        more = add(pool, tmp_path / "more", [9])
    rewrite(raw / "imagesTr" / "case_001.nii.gz", more / "imagesTr" / "zz_copy.nii.gz")
    shutil.copy(raw / "labelsTr" / "case_001.nii.gz", more / "labelsTr" / "zz_copy.nii.gz")
    if rewrite is _turned_around:
        label = nib.as_closest_canonical(nib.load(raw / "labelsTr" / "case_001.nii.gz"))
        turned = label.as_reoriented(nib.orientations.axcodes2ornt(("P", "S", "L")))
        nib.save(turned, more / "labelsTr" / "zz_copy.nii.gz")
    before = sorted((tmp_path / "store").rglob("manifest.json"))
    options = {"append_to": "tiny"} if when == "appended" else {}
    with pytest.raises(DataError, match="hold the same image: case_001, zz_copy"):
        prepare(more, tmp_path, **options)
    assert sorted((tmp_path / "store").rglob("manifest.json")) == before


def test_a_changed_patient_rewrites_the_case_and_keeps_its_split(
    pool: Path, tmp_path: Path, describe: Callable[..., None]
) -> None:
    raw = add(pool, tmp_path / "raw", range(12))
    first = prepare(raw, tmp_path)
    one, other = first.patients("test")[0], first.patients("train")[0]
    describe(raw, patients={one: "p1", other: "p1"})
    second = prepare(raw, tmp_path)
    # Two patients turn out to be one, whom training has seen.
    assert second.case(one).patient_id == "p1" and second.case(one).split == "train"


def test_bad_cases_are_left_out_up_to_the_number_allowed(
    pool: Path, tmp_path: Path, change_voxels: Spoil
) -> None:
    raw = add(pool, tmp_path / "raw", range(12))
    change_voxels(raw / "labelsTr" / "case_004.nii.gz", lambda v: v + 5)
    change_voxels(raw / "imagesTr" / "case_007.nii.gz", lambda v: v * 0)
    one = dataclasses.replace(LARGER, max_failures=1)
    with pytest.raises(DataError, match=r"2 of 12 cases cannot be used \(data\.max_failures = 1\):"):
        prepare(raw, tmp_path, one)
    notes: list[str] = []
    two = dataclasses.replace(LARGER, max_failures=2)
    version = prepare(raw, tmp_path, two, on_note=notes.append)
    assert [s.case_id for s in version.manifest.skipped] == ["case_004", "case_007"]
    assert "label values" in version.manifest.skipped[0].reason
    assert any("left out case_007" in note for note in notes)
    assert len(version.cases) == 10
    assert sum(len(part) for part in version.manifest.splits.values()) == 10
    assert verify(version) == []
    # Every run tries them again; nothing has changed, so the version is the same.
    assert prepare(raw, tmp_path, two).url == version.url
    # A case that is mended is all that the next version writes.
    before = shards_on_disk(tmp_path)
    shutil.copy(pool / "labelsTr" / "case_004.nii.gz", raw / "labelsTr")
    mended = prepare(raw, tmp_path, one)
    assert [s.case_id for s in mended.manifest.skipped] == ["case_007"]
    assert cases_in(mended, shards_on_disk(tmp_path).keys() - before.keys()) == {"case_004"}


def test_convert_is_called_once_a_case(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = add(pool, tmp_path / "raw", range(8))
    calls: list[str] = []
    original = convert.prepare_image

    def counted(*arguments: object, **options: object) -> object:
        calls.append("x")
        return original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(convert, "prepare_image", counted)
    prepare(raw, tmp_path)
    assert len(calls) == 8

"""A version comes into being whole or not at all: killed writers, racing writers, and those who remove."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from arco_core.errors import ArcoError, DataError, StoreError
from infra.datasets import DatasetVersion, prepare, prepare_dataset, publish
from infra.datasets.catalog import list_versions
from infra.datasets.remove import remove_version
from infra.datasets.verify import verify
from infra.storage import Store
from infra.storage.local import FRESH_SECONDS
from tests.conftest import write_msd_folder

from .conftest import TINY

STORES = ("local", pytest.param("aws", marks=pytest.mark.s3), pytest.param("real_aws", marks=pytest.mark.s3))


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder, moto, and a real S3 server."""
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    request.getfixturevalue(request.param)
    return Store(f"s3://arco/{tmp_path.name}/store")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six annotated patients and four without annotation."""
    return write_msd_folder(tmp_path_factory.mktemp("pool"), patients=10, labeled=6)


def part_of(pool: Path, folder: Path, numbers: list[int]) -> str:
    """A raw folder with some of the scans."""
    for part in ("imagesTr", "imagesUn", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for number in numbers:
            path = pool / part / f"case_{number:03d}.nii.gz"
            if path.exists():
                shutil.copy(path, folder / part)
    shutil.copy(pool / "dataset.json", folder)
    return str(folder)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def one_of_each(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder, and the best S3 server that there is."""
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    real = os.environ.get("ARCO_S3_SERVER_SCRIPT") and shutil.which("radosgw")
    request.getfixturevalue("real_aws" if real else "aws")
    return Store(f"s3://arco/{tmp_path.name}/store")


@pytest.mark.slow
def test_killed_at_any_point_the_old_version_is_whole_and_a_rerun_finishes(
    pool: Path, tmp_path: Path, one_of_each: Store
) -> None:
    store = one_of_each
    raw = part_of(pool, tmp_path / "raw", [0, 1])
    old = prepare_dataset(raw, store, TINY, use_ray=False)
    raw = part_of(pool, tmp_path / "more", [0, 1, 3, 7])
    time.sleep(FRESH_SECONDS + 0.1)  # of younger files no tag is noted, and all points must note the same
    made = subprocess.run(
        [sys.executable, "-m", "tests.infra.datasets.killed_publish", raw, store.url],
        cwd=Path(__file__).parents[3], env=dict(os.environ), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-3000:]
    points = [json.loads(line) for line in made.stdout.splitlines()]
    # a probe, three shards, the cases, the manifest: before, within and after each
    assert len(points) >= (17 if store.local_path("x") else 13)
    for point in points:
        assert point["versions"][0] == f"tiny/{old.version}" and len(point["versions"]) == 2
        assert point == points[-1]  # … and nothing else is left


def in_threads(functions: list[Callable[[], DatasetVersion]]) -> list[DatasetVersion | ArcoError]:
    results: list[DatasetVersion | ArcoError] = []

    def run(function: Callable[[], DatasetVersion]) -> None:
        try:
            results.append(function())
        except ArcoError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers come to their last step at one time."""
    barrier = threading.Barrier(2)
    original = publish.publish

    def waiting(*arguments: object, **options: object) -> None:
        barrier.wait(timeout=60)
        original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "publish", waiting)


def test_two_writers_of_the_same_version_both_get_it(
    pool: Path, tmp_path: Path, store: Store, together: None
) -> None:
    raw = part_of(pool, tmp_path / "raw", [0, 1, 2, 6])
    one, other = in_threads([lambda: prepare_dataset(raw, store, TINY, use_ray=False)] * 2)
    assert isinstance(one, DatasetVersion) and isinstance(other, DatasetVersion), (one, other)
    assert one.url == other.url and one.manifest == other.manifest
    assert verify(one) == []
    assert len(list_versions(store).versions) == 1


def test_of_two_versions_that_go_on_from_one_the_first_stays(
    pool: Path, tmp_path: Path, store: Store, together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_dataset_alone(part_of(pool, tmp_path / "raw", [0, 1, 2, 6]), store)
    folders = [part_of(pool, tmp_path / name, [n]) for name, n in (("a", 3), ("b", 4))]

    def append(folder: str) -> DatasetVersion:
        return prepare_dataset(folder, store, TINY, append_to=first.url, use_ray=False)

    results = in_threads([partial(append, folder) for folder in folders])
    won = [result for result in results if isinstance(result, DatasetVersion)]
    lost = [result for result in results if isinstance(result, DataError)]
    assert len(won) == len(lost) == 1, results
    assert f"version {won[0].version} went on from {first.version} while" in str(lost[0])
    assert {v.manifest.version for v in list_versions(store).versions} == {first.version, won[0].version}
    # Run again, it goes on from the other, and nothing is lost.
    monkeypatch.setattr(prepare, "publish", publish.publish)
    missing = {"case_003", "case_004"} - {case.case_id for case in won[0].cases}
    folder = folders[0] if missing == {"case_003"} else folders[1]
    both = prepare_dataset(folder, store, TINY, append_to="tiny", use_ray=False)
    assert both.manifest.parent == won[0].version
    assert {"case_003", "case_004"} <= {case.case_id for case in both.cases}
    assert verify(both) == []


def prepare_dataset_alone(raw: str, store: Store) -> DatasetVersion:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "publish", publish.publish)
        return prepare_dataset(raw, store, TINY, use_ray=False)


def test_writers_that_see_each_other_step_back_and_one_returns(
    pool: Path, tmp_path: Path, together: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look before either commits, and commit before either looks again."""
    monkeypatch.setattr(publish, "_PAUSE_S", (0.0, 0.5))
    store = Store(str(tmp_path / "store"))
    first = prepare_dataset_alone(part_of(pool, tmp_path / "raw", [0, 1, 2, 6]), store)
    looked, committed = threading.Barrier(2), threading.Barrier(2)
    calls = threading.local()
    original = publish._rivals

    def looking(*arguments: object) -> object:
        calls.count = getattr(calls, "count", 0) + 1
        if calls.count == 2:
            committed.wait(timeout=60)
        rivals = original(*arguments)  # type: ignore[arg-type]
        if calls.count == 1:
            looked.wait(timeout=60)
        return rivals

    monkeypatch.setattr(publish, "_rivals", looking)
    folders = [part_of(pool, tmp_path / name, [n]) for name, n in (("a", 3), ("b", 4))]

    def append(folder: str) -> DatasetVersion:
        return prepare_dataset(folder, store, TINY, append_to=first.url, use_ray=False)

    results = in_threads([partial(append, folder) for folder in folders])
    won = [result for result in results if isinstance(result, DatasetVersion)]
    assert len(won) == 1, results
    assert {v.manifest.version for v in list_versions(store).versions} == {first.version, won[0].version}


def test_a_parent_that_is_removed_meanwhile(
    pool: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_dataset(part_of(pool, tmp_path / "raw", [0, 1, 2, 6]), store, TINY, use_ray=False)
    raw = part_of(pool, tmp_path / "more", [0, 1, 2, 6, 3])

    def removed_before(*arguments: object, **options: object) -> None:
        remove_version(store, first.url)
        publish.publish(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "publish", removed_before)
    with pytest.raises(StoreError, match=r"shards are not as they were written: .* is missing; run again"):
        prepare_dataset(raw, store, TINY, use_ray=False)
    monkeypatch.setattr(prepare, "publish", publish.publish)
    assert list_versions(store).versions == ()
    again = prepare_dataset(raw, store, TINY, use_ray=False)
    assert again.manifest.parent is None and verify(again) == []


def test_a_parent_that_is_removed_between_check_and_commit(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "store"))
    first = prepare_dataset(part_of(pool, tmp_path / "raw", [0, 1, 2, 6]), store, TINY, use_ray=False)
    raw = part_of(pool, tmp_path / "more", [0, 1, 2, 6, 3])
    original = publish._rivals
    calls: list[int] = []

    def removing(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 1:  # the last look before the commit is over
            store.delete(f"datasets/tiny/{first.version}/manifest.json")
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(publish, "_rivals", removing)
    with pytest.raises(
        StoreError, match=f"version {first.version}, from which .* goes on, was removed: run again"
    ):
        prepare_dataset(raw, store, TINY, use_ray=False)
    assert list_versions(store).versions == ()


def test_a_removal_sees_a_version_that_appears_meanwhile(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "store"))
    first = prepare_dataset(part_of(pool, tmp_path / "raw", [0, 1, 2, 6]), store, TINY, use_ray=False)
    raw = part_of(pool, tmp_path / "more", [0, 1, 2, 6, 3])
    second = prepare_dataset(raw, store, TINY, use_ray=False)
    path = f"datasets/tiny/{second.version}/manifest.json"
    content = store.read_bytes(path)
    store.delete(path)
    original = Store.delete

    def deleting(self: Store, key: str) -> None:
        original(self, key)
        if key.endswith("manifest.json"):
            self.write_bytes(path, content)

    monkeypatch.setattr(Store, "delete", deleting)
    with pytest.raises(
        DataError, match=rf"tiny/{first.version} cannot be removed: tiny/{second.version} uses"
    ):
        remove_version(store, first.url)
    monkeypatch.setattr(Store, "delete", original)
    for version in (first, second):
        assert verify(DatasetVersion.open(version.url)) == []

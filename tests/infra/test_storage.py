"""One store, the same behaviour on a folder and on S3."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arco_core.errors import StoreError
from infra.storage import AlreadyExists, NotFound, Store

SERVERS = ("local", pytest.param("aws", marks=pytest.mark.s3), pytest.param("real_aws", marks=pytest.mark.s3))


@pytest.fixture(params=SERVERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder, moto, and a real S3 server."""
    if request.param == "local":
        return Store(str(tmp_path / "store"))
    request.getfixturevalue(request.param)
    return Store(f"s3://arco/{tmp_path.name}")


def test_write_read_replace_delete(store: Store) -> None:
    assert not store.exists("a/b.bin")
    store.write_bytes("a/b.bin", b"one")
    store.write_bytes("a/b.bin", b"two")
    assert store.exists("a/b.bin") and not store.exists("a")
    assert store.read_bytes("a/b.bin") == b"two"
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    with pytest.raises(NotFound, match=r"a/b\.bin does not exist"):
        store.read_bytes("a/b.bin")
    with pytest.raises(NotFound):
        store.open_input("a/b.bin")


def test_list_is_by_folder_and_sorted(store: Store) -> None:
    for path in ("runs/b/1", "runs/a/2", "runs/a/1", "runs-old/x", "top"):
        store.write_bytes(path, b"")
    assert store.list("runs") == ["runs/a/1", "runs/a/2", "runs/b/1"]
    assert store.list("runs/a/") == ["runs/a/1", "runs/a/2"]
    assert store.list() == ["runs-old/x", "runs/a/1", "runs/a/2", "runs/b/1", "top"]
    assert store.list("nothing") == []


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    store.put_if_absent("claim", b"first")
    with pytest.raises(AlreadyExists, match="claim"):
        store.put_if_absent("claim", b"second")
    assert store.read_bytes("claim") == b"first"


def test_one_of_many_concurrent_claims_wins(store: Store) -> None:
    won: list[int] = []

    def claim(number: int) -> None:
        try:
            store.put_if_absent("claim", str(number).encode())
            won.append(number)
        except AlreadyExists:
            pass

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read_bytes("claim") == str(won[0]).encode()


def test_open_input_seeks_and_serves_parquet(store: Store) -> None:
    store.write_bytes("digits", b"0123456789")
    with store.open_input("digits") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789" and file.read(1) == b""
        file.seek(2)
        assert file.read(3) == b"234" and file.tell() == 5
    sink = pa.BufferOutputStream()
    table = pa.table({"x": np.arange(1000)})
    pq.write_table(table, sink, row_group_size=100)
    store.write_bytes("t.parquet", sink.getvalue().to_pybytes())
    with store.open_input("t.parquet") as file, pq.ParquetFile(file, pre_buffer=True) as parquet:
        assert parquet.read_row_group(7).equals(table.slice(700, 100))


def test_folders_go_up(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "naïve name.txt").write_text("ä")
    (source / "top").write_bytes(b"x" * 100)
    store.upload_folder(source, "model/v1")
    assert store.list("model") == ["model/v1/deep/naïve name.txt", "model/v1/top"]
    assert store.read_bytes("model/v1/deep/naïve name.txt").decode() == "ä"
    assert len(store.read_bytes("model/v1/top")) == 100


def test_join_gives_a_url_that_opens_the_same_objects(store: Store) -> None:
    store.write_bytes("runs/a/x", b"1")
    assert Store(store.join("runs", "a")).read_bytes("x") == b"1"
    assert pickle.loads(pickle.dumps(store)).read_bytes("runs/a/x") == b"1"


def test_check_writable_leaves_nothing(store: Store) -> None:
    store.check_writable()
    assert store.list() == []


@pytest.mark.parametrize("path", ["", "/", "/absolute", "../up", "a/../b", "a//b", "./a"])
def test_paths_that_leave_the_store_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError, match="must be relative"):
        Store(str(tmp_path)).write_bytes(path, b"")


@pytest.mark.parametrize("url", ["http://host/x", "s3://", "gs://bucket/x", ""])
def test_unknown_urls_are_refused(url: str) -> None:
    with pytest.raises(StoreError, match="store URL"):
        Store(url)


def test_file_url_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "with space").mkdir()
    Store(f"file://{tmp_path}/with%20space").write_bytes("x", b"1")
    assert Store(str(tmp_path / "with space")).local_path("x") == tmp_path / "with space" / "x"
    assert (tmp_path / "with space" / "x").read_bytes() == b"1"


def test_unwritable_folder_is_named_with_cause_and_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"store .*/file/store is not writable: .*Not a directory; choose"):
        Store(str(tmp_path / "file" / "store")).check_writable()


def test_interrupted_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("x", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StoreError, match="No space left"):
        store.write_bytes("x", b"new")
    assert store.read_bytes("x") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could leave a manifest, written later, without the shards that it lists."""
    store = Store(str(tmp_path / "store"))
    steps: list[tuple[str, int]] = []

    def watch(name: str) -> None:
        original = getattr(os, name)

        def named(old: Path, new: Path) -> None:
            steps.append((new.name, old.stat().st_ino))
            original(old, new)

        monkeypatch.setattr(os, name, named)

    watch("replace")
    watch("link")
    monkeypatch.setattr(os, "fsync", lambda number: steps.append(("on disk", os.fstat(number).st_ino)))
    (tmp_path / "local").write_bytes(b"1" * 1000)
    store.upload_file(tmp_path / "local", "shard")
    store.write_bytes("cases", b"2")
    store.put_if_absent("manifest", b"3")
    assert [name for name, _ in steps] == ["on disk", "shard", "on disk", "cases", "on disk", "manifest"]
    assert [number for _, number in steps[::2]] == [number for _, number in steps[1::2]]


@pytest.mark.s3
def test_unwritable_bucket_is_named_with_cause_and_way_out(aws: None) -> None:
    with pytest.raises(StoreError, match=r"s3://missing/x is not writable: .*NoSuchBucket.*AWS_ENDPOINT_URL"):
        Store("s3://missing/x").check_writable()


@pytest.mark.s3
def test_missing_credentials_are_a_store_error(
    aws: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="Unable to locate credentials"):
        Store("s3://arco/x").read_bytes("y")


def test_the_top_of_a_folder_is_uploaded_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    for name in ("dataset.json", "a/x", "a/b/y"):
        (source / name).write_bytes(b"x")
    order: list[str] = []
    store = Store(str(tmp_path / "store"))
    monkeypatch.setattr(store, "upload_file", lambda local, path: order.append(path))
    store.upload_folder(source, "raw")
    assert order == ["raw/a/b/y", "raw/a/x", "raw/dataset.json"]


def test_a_probe_that_was_left_behind_is_removed(store: Store) -> None:
    store.write_bytes(".arco-probe", b"")
    store.check_writable()
    assert store.list() == []


def test_a_probe_that_others_remove_each_time_gives_way_to_one_of_its_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Store.put_if_absent

    def crowded(self: Store, path: str, data: bytes) -> None:
        self.delete(".arco-probe")
        original(self, path, data)

    monkeypatch.setattr(Store, "put_if_absent", crowded)
    store.check_writable()
    assert store.list() == []


def test_processes_that_probe_at_one_time_are_all_content(store: Store) -> None:
    problems: list[StoreError] = []

    def check() -> None:
        try:
            for _ in range(5):
                Store(store.url).check_writable()
        except StoreError as error:
            problems.append(error)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_subfolder_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("open/x", b"")
    (tmp_path / "closed").mkdir()
    original = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StoreError, match=r"cannot list .*/closed: Permission denied; choose"):
        store.list()
    assert store.list("open") == ["open/x"]


def test_a_file_system_without_hard_links_is_named_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreError, match=r"not writable: .*makes no hard links .*another file system, or"):
        Store(str(tmp_path)).check_writable()
    assert Store(str(tmp_path)).list() == []

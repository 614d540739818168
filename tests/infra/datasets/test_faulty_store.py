"""Preparing, appending and training over a network and a server that fail as they are told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from botocore.config import Config

from arco_core.errors import DataError, StoreError
from infra.datasets import DatasetVersion, SlicePool, prepare_dataset
from infra.datasets.verify import verify
from infra.storage import Store, s3
from tests.faulty_proxy import FaultyProxy
from tests.infra.test_storage_faults import BOTH, proxies, proxy

from .conftest import TINY

__all__ = ["proxies", "proxy"]
pytestmark = pytest.mark.s3
SETTINGS = Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=2, read_timeout=2)
"""Clients wait two seconds where they would a minute: a server on a busy machine may need one."""
SLOW = 3.0


@pytest.fixture
def remote(proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder of the server behind the proxy."""
    monkeypatch.setattr(s3, "SETTINGS", SETTINGS)
    return Store(f"s3://arco/{tmp_path.name}")


def spoil(proxy: FaultyProxy) -> None:
    """What passes: each kind of failure, once or twice, of reads, listings and writes."""
    for action, path in (
        ("500", "case_000"), ("503", "case_001"), ("reset", "case_002"), ("broken body", "case_003"),
        ("slow", "case_004"), ("slow body", "case_005"), ("500", "list-type=2"), ("reset", "manifest.json"),
        ("broken body", "cases-"),
    ):  # fmt: skip
        proxy.add(action, path=path, times=1, seconds=SLOW)  # type: ignore[arg-type]
    for action, path in (
        ("500", "/labeled/"), ("lost answer", "/unlabeled/"), ("reset", "/references/"), ("503", "cases-"),
        ("lost answer", "manifest.json"),
    ):  # fmt: skip
        proxy.add(action, method="PUT", path=path, times=1)  # type: ignore[arg-type]


def unhit(proxy: FaultyProxy) -> list[str]:
    return [f"{fault.action} {fault.method} {fault.path}" for fault in proxy.faults if not fault.hits]


@BOTH
def test_preparing_and_appending_survive_what_passes(
    proxy: FaultyProxy, remote: Store, tiny: DatasetVersion, tiny_raw: Path, tmp_path: Path
) -> None:
    part = Path(shutil.copytree(tiny_raw, tmp_path / "part"))
    for path in part.rglob("case_000.nii.gz"):
        path.unlink()
    remote.upload_folder(part, "part")
    remote.upload_folder(tiny_raw, "all")
    store = Store(remote.join("store"))
    spoil(proxy)
    first = prepare_dataset(remote.join("part"), store, TINY, use_ray=False)
    assert unhit(proxy) == ["500 GET case_000"]
    assert verify(first) == []
    proxy.faults.clear()
    spoil(proxy)
    both = prepare_dataset(remote.join("all"), store, TINY, use_ray=False, append_to=first.url)
    # the scans of `part` are read once more, to be hashed; of the new ones, one is annotated and none is not
    assert unhit(proxy) == ["lost answer PUT /unlabeled/"]
    assert both.manifest.parent == first.version and verify(both) == []
    assert [case.content_sha256 for case in both.cases] == [case.content_sha256 for case in tiny.cases]


@BOTH
def test_a_pool_survives_what_passes_and_names_a_shard_that_is_cut_short(
    proxy: FaultyProxy, remote: Store, tiny: DatasetVersion, tiny_raw: Path
) -> None:
    remote.upload_folder(tiny_raw, "raw")
    version = prepare_dataset(remote.join("raw"), Store(remote.join("store")), TINY, use_ray=False)
    assert version.version == tiny.version
    for action in ("500", "503", "reset", "broken body", "slow", "slow body"):
        proxy.add(action, path=r"/labeled/.*parquet", times=1, seconds=SLOW)  # type: ignore[arg-type]
    patients = tiny.patients("train")
    with (
        SlicePool(version, patients, labels=True, batch=3, cache=False) as pool,
        SlicePool(tiny, patients, labels=True, batch=3, cache=False) as expected,
    ):
        for _ in range(12):  # three epochs
            (images, labels), (other_images, other_labels) = pool.next(), expected.next()
            assert labels is not None and other_labels is not None
            assert images.equal(other_images) and labels.equal(other_labels)
    assert unhit(proxy) == []
    proxy.faults.clear()
    proxy.add("short object", path=r"/labeled/.*parquet")
    with (
        pytest.raises((DataError, StoreError), match=r"/labeled/.*parquet"),
        SlicePool(version, patients, labels=True, batch=3, cache=False) as pool,
    ):
        pool.next()


def test_a_scan_that_is_cut_short_is_named(
    proxy: FaultyProxy, remote: Store, tiny_raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.storage.retry.PAUSES_S", ())
    remote.upload_folder(tiny_raw, "raw")
    proxy.add("short object", path="imagesTr/case_002")
    store = Store(remote.join("store"))
    with pytest.raises(StoreError, match=r"cannot read .*imagesTr/case_002\.nii\.gz: .*checksum"):
        prepare_dataset(remote.join("raw"), store, TINY, use_ray=False)
    assert not any(path.endswith("manifest.json") for path in store.list())

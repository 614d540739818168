"""Pools are endless, complete, shuffled, shared among ranks, and resume exactly."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from arco_core.config import DataConfig
from arco_core.errors import DataError, StoreError
from infra.datasets import DatasetVersion, SlicePool, prepare_dataset, windows
from infra.datasets.blocks import BlockReader
from infra.datasets.row_groups import row_groups_of
from infra.storage import Store
from infra.storage.s3 import S3Backend
from tests.conftest import write_msd_folder

PATIENTS = [f"case_{n:03d}" for n in range(6)]
ROWS = 24  # 6 cases of 4 slices
BOTH = pytest.mark.parametrize("cache", [True, False], ids=["memory", "windows"])


def keys(batch: torch.Tensor) -> list[bytes]:
    """What tells slices apart."""
    return [image.float().numpy().tobytes() for image in batch]


def draw(pool: SlicePool, batches: int) -> list[bytes]:
    return [key for _ in range(batches) for key in keys(pool.next()[0])]


def all_slices(version: DatasetVersion, patients: list[str]) -> list[bytes]:
    return [s.tobytes() for p in patients for s in version.read_case(p)[0]]


@BOTH
def test_every_epoch_holds_every_slice_once_in_a_new_order(tiny: DatasetVersion, cache: bool) -> None:
    pool = SlicePool(tiny, PATIENTS, labels=False, batch=4, cache=cache)
    assert pool.size == ROWS
    epochs = [draw(pool, ROWS // 4) for _ in range(3)]
    for epoch in epochs:
        assert Counter(epoch) == Counter(all_slices(tiny, PATIENTS))
    assert epochs[0] != epochs[1] != epochs[2]


@BOTH
@pytest.mark.parametrize("world", [1, 2])
def test_restored_cursor_continues_exactly(tiny: DatasetVersion, cache: bool, world: int) -> None:
    def pool(cursor: int = 0) -> SlicePool:
        made = SlicePool(
            tiny, PATIENTS, labels=False, batch=5, rank=world - 1, world=world, seed=3, cache=cache
        )
        made.cursor = cursor
        return made

    whole = draw(pool(), 20)
    for batches in range(1, 20):
        assert draw(pool(5 * batches), 20 - batches) == whole[5 * batches :]
    rewound = pool(5 * 15)
    rewound.next()
    rewound.cursor = 10
    assert keys(rewound.next()[0]) == whole[10:15]


def test_stopped_anywhere_it_continues_to_the_byte(
    tiny: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while reads are in flight, and into a pool that is reading for another place."""
    monkeypatch.setattr(windows, "WINDOW_BYTES", 3 * 4 * 32 * 32 * 3)  # three row groups

    def pool() -> SlicePool:
        return SlicePool(tiny, PATIENTS, labels=False, batch=3, seed=1, cache=False)

    with pool() as whole, pool() as other:
        stream = draw(whole, 40)
        rng = np.random.default_rng(0)
        for stop, length in zip(rng.integers(0, 35, 15), rng.integers(1, 5, 15), strict=True):
            other.cursor = int(3 * stop)  # the reads for the place before are dropped
            assert draw(other, int(length)) == stream[3 * stop : 3 * (stop + length)]
            with pool() as fresh:
                fresh.cursor = int(3 * stop)
                assert keys(fresh.next()[0]) == stream[3 * stop : 3 * stop + 3]


@BOTH
def test_stream_depends_on_the_seed(tiny: DatasetVersion, cache: bool) -> None:
    def stream(seed: int) -> list[bytes]:
        return draw(SlicePool(tiny, PATIENTS, labels=False, batch=4, seed=seed, cache=cache), 6)

    assert stream(0) == stream(0) != stream(1)


@BOTH
def test_ranks_share_an_epoch(tiny: DatasetVersion, cache: bool) -> None:
    ranks = [
        SlicePool(tiny, PATIENTS, labels=False, batch=4, rank=rank, world=3, cache=cache) for rank in range(3)
    ]
    drawn = [key for pool in ranks for key in draw(pool, 2)]
    assert Counter(drawn) == Counter(all_slices(tiny, PATIENTS))


def test_cached_ranks_draw_together_what_one_draws_alone(tiny: DatasetVersion) -> None:
    alone = SlicePool(tiny, PATIENTS, labels=False, batch=6)
    ranks = [SlicePool(tiny, PATIENTS, labels=False, batch=3, rank=rank, world=2) for rank in range(2)]
    for _ in range(10):
        together = [key for pool in ranks for key in keys(pool.next()[0])]
        assert Counter(together) == Counter(keys(alone.next()[0]))


def test_cached_pool_smaller_than_batch_and_world(tiny: DatasetVersion) -> None:
    pool = SlicePool(tiny, ["case_000"], labels=True, batch=16, rank=5, world=7)
    assert set(draw(pool, 3)) == set(all_slices(tiny, ["case_000"]))


@BOTH
def test_labels_belong_to_their_images(tiny: DatasetVersion, cache: bool) -> None:
    expected = {}
    for case in tiny.cases:
        slices, labels = tiny.read_case(case.case_id)
        if labels is not None:
            expected |= {s.tobytes(): lab for s, lab in zip(slices, labels, strict=True)}
    pool = SlicePool(tiny, PATIENTS, labels=True, batch=4, cache=cache)
    assert pool.size == len(expected) == 16
    for _ in range(8):
        images, annotations = pool.next()
        assert images.dtype == torch.float16 and images.shape == (4, 1, 32, 32)
        assert annotations is not None and annotations.dtype == torch.uint8
        for key, label in zip(keys(images), annotations, strict=True):
            np.testing.assert_array_equal(label.numpy(), expected[key])


@BOTH
def test_unlabelled_pool_never_reads_labels(
    tiny: DatasetVersion, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    original = pq.ParquetFile.read_row_group
    others = set(threading.enumerate()) - {threading.current_thread()}  # may still read ahead for other tests

    def spy(self: pq.ParquetFile, group: int, *, columns: list[str], use_threads: bool) -> object:
        if threading.current_thread() not in others:
            read.update(columns)
        return original(self, group, columns=columns, use_threads=use_threads)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    with SlicePool(tiny, PATIENTS, labels=False, batch=4, cache=cache) as pool:
        images, labels = pool.next()
    assert labels is None and len(images) == 4
    assert read == {"image"}


@BOTH
def test_batches_may_be_written_to(tiny: DatasetVersion, cache: bool) -> None:
    pool = SlicePool(tiny, ["case_000"], labels=True, batch=4, cache=cache)
    first = keys(pool.next()[0])
    pool.cursor = 0
    images, labels = pool.next()
    images.zero_()
    assert labels is not None
    labels.zero_()
    pool.cursor = 0
    assert keys(pool.next()[0]) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"rank": 2, "world": 2}, "rank = 2 of 2"),
        ({"patients": ["nobody"]}, "no patient nobody"),
        ({"patients": ["case_005"], "labels": True}, "have no annotated slices"),
        ({"patients": []}, "have no slices"),
        ({"patients": ["case_000"], "cache": False, "world": 5}, "4 samples cannot be shared among 5"),
    ],
)
def test_impossible_pool_is_refused(tiny: DatasetVersion, options: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"patients": PATIENTS, "labels": False, "batch": 1} | options
    with pytest.raises(DataError, match=message):
        SlicePool(tiny, **settings)  # type: ignore[arg-type]


def test_negative_cursor_is_refused(tiny: DatasetVersion) -> None:
    with pytest.raises(DataError, match="cursor = -1"):
        SlicePool(tiny, PATIENTS, labels=False, batch=1).cursor = -1


def test_a_case_in_several_row_groups_is_read_in_order(
    tmp_path: Path, change_voxels: Callable[[Path, Callable[[np.ndarray], np.ndarray]], None]
) -> None:
    raw = write_msd_folder(tmp_path / "raw", patients=2, labeled=2, shape=(32, 32, 120))
    change_voxels(raw / "imagesTr" / "case_000.nii.gz", lambda voxels: voxels + 10.0 * np.arange(120))
    config = DataConfig(name="long", image_size=(32, 32), validation_fraction=0.5, test_fraction=0.0)
    version = prepare_dataset(str(raw), Store(str(tmp_path / "store")), config, use_ray=False)
    slices, labels = version.read_case("case_000")
    assert labels is not None and len(slices) == len(labels) == 120
    assert len(version.case("case_000").row_groups) == 3
    brightness = np.sort(slices.mean((1, 2, 3)))
    read = slices.mean((1, 2, 3))
    assert (read == brightness).all() or (read == brightness[::-1]).all()  # the stack may be turned over


@BOTH
def test_shard_that_is_gone_is_named(tiny: DatasetVersion, cache: bool) -> None:
    entry = dataclasses.replace(tiny.cases[0], shard="labeled/gone.parquet")
    broken = DatasetVersion(tiny.store, tiny.manifest, [entry])
    with pytest.raises(StoreError, match=r"labeled/gone\.parquet does not exist"):
        SlicePool(broken, ["case_000"], labels=True, batch=1, cache=cache).next()


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_shard_is_named(tiny: DatasetVersion, tmp_path: Path, damage: str) -> None:
    """Found by a thread that reads ahead, raised where the samples are drawn, each time anew."""
    folder = shutil.copytree(Path(tiny.url).parent, tmp_path / "copy")
    shard = folder / tiny.cases[0].shard
    data = shard.read_bytes()
    size = len(data)
    shard.write_bytes(
        data[: size // 2] if damage == "cut" else b"PAR1" + bytes(size // 2) + data[4 + size // 2 :]
    )
    version = DatasetVersion.open(str(folder / tiny.version))
    with SlicePool(version, PATIENTS, labels=False, batch=4, cache=False) as pool:
        for _ in range(2):
            with pytest.raises(DataError, match=f"{shard.name} cannot be read .*shard is damaged"):
                draw(pool, 6)


def test_a_shard_that_is_not_the_versions_is_refused(tiny: DatasetVersion) -> None:
    entry = dataclasses.replace(tiny.cases[0], rows=7)  # its row group has 4
    wrong = DatasetVersion(tiny.store, tiny.manifest, [entry])
    with pytest.raises(DataError, match="has 4 rows, the version says at least 7"):
        SlicePool(wrong, ["case_000"], labels=True, batch=1)


def reading_threads() -> int:
    return sum(thread.name.startswith("arco-read") for thread in threading.enumerate())


def test_threads_end_with_the_pool(tiny: DatasetVersion) -> None:
    gc.collect()  # pools of other tests
    before = reading_threads()
    with SlicePool(tiny, PATIENTS, labels=False, batch=4, cache=False) as pool:
        pool.next()
        assert reading_threads() > before
    assert reading_threads() == before
    forgotten = SlicePool(tiny, PATIENTS, labels=False, batch=4, cache=False)
    forgotten.next()
    del forgotten
    gc.collect()
    deadline = time.monotonic() + 10
    while reading_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reading_threads() == before


@pytest.mark.s3
def test_a_row_group_in_s3_is_one_request(aws: None, tiny: DatasetVersion, tmp_path: Path) -> None:
    store = Store(f"s3://arco/{tmp_path.name}")
    store.upload_folder(Path(tiny.url).parent, "tiny")
    version = DatasetVersion.open(store.join("tiny", tiny.version))
    requests: list[str] = []
    original = S3Backend.read_range

    def counting(self: S3Backend, key: str, start: int, stop: int, *, tag: str | None = None) -> bytes:
        requests.append(key)
        return original(self, key, start, stop, tag=tag)

    with pytest.MonkeyPatch.context() as patch, BlockReader(version, labels=True, seed=0) as reader:
        patch.setattr(S3Backend, "read_range", counting)
        groups = row_groups_of(version, ["case_000", "case_001"], annotated_only=True)
        for group in groups:
            reader.read(group)  # and its shard's footer
        requests.clear()
        for group in groups:
            reader.read(group)
        assert len(requests) == len(groups)
        store.delete(f"tiny/{groups[0].shard}")
        with pytest.raises(StoreError, match=r"s3://arco/.*\.parquet"):
            reader.read(groups[0])


def test_memory_does_not_grow_with_the_pool(tmp_path: Path) -> None:
    """More than an epoch of 450 MiB, in a process that the kernel gives less than half of that."""
    raw = write_msd_folder(tmp_path / "raw", patients=2, labeled=2, shape=(256, 256, 20))
    config = DataConfig(name="large", image_size=(256, 256), validation_fraction=0.5, test_fraction=0.0)
    version = prepare_dataset(str(raw), Store(str(tmp_path / "store")), config, use_ray=False)
    made = subprocess.run(
        [sys.executable, "-m", "tests.infra.datasets.large_pool", version.url],
        env={**os.environ, "MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system"},
        cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    result = json.loads(made.stdout.splitlines()[-1])
    assert result["drawn"] >= 2400 and result["decoded_mib"] > 2 * result["limit_mib"]
    assert result["peak_mib"] < result["limit_mib"]
    assert not result["fits"]  # so the limit was one

"""Pools are endless, complete, shuffled, shared among ranks, and resume exactly."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from arco_core.config import DataConfig
from arco_core.errors import DataError
from infra.datasets import DatasetVersion, SlicePool, TrainingFeed, prepare_dataset
from infra.datasets.row_groups import RowGroup, row_groups_of
from infra.datasets.windows import WindowStream
from infra.storage import Store
from tests.conftest import write_msd_folder

PATIENTS = [f"case_{n:03d}" for n in range(6)]
ROWS = 24  # 6 cases of 4 slices
BOTH = pytest.mark.parametrize("cache", [True, False], ids=["memory", "windows"])


def keys(batch: torch.Tensor) -> list[bytes]:
    """What tells slices apart."""
    return [image.numpy().tobytes() for image in batch]


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
        assert images.dtype == torch.float32 and images.shape == (4, 1, 32, 32)
        assert annotations is not None and annotations.dtype == torch.uint8
        for key, label in zip(keys(images), annotations, strict=True):
            np.testing.assert_array_equal(label.numpy(), expected[key])


@BOTH
def test_unlabelled_pool_never_reads_labels(
    tiny: DatasetVersion, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    original = pq.ParquetFile.read_row_groups
    others = set(threading.enumerate()) - {threading.current_thread()}  # may still read ahead for other tests

    def spy(self: pq.ParquetFile, groups: list[int], columns: list[str]) -> object:
        if threading.current_thread() not in others:
            read.update(columns)
        return original(self, groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spy)
    images, labels = SlicePool(tiny, PATIENTS, labels=False, batch=4, cache=cache).next()
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


def test_windows_shuffle_rows_beyond_their_row_groups_within_bounds(tiny: DatasetVersion) -> None:
    groups = row_groups_of(tiny, PATIENTS, annotated_only=False)
    assert [group.rows for group in groups] == [4] * 6
    stream = WindowStream(tiny, groups, labels=False, seed=(0, 0), window_rows=8)
    case_of = {s.tobytes(): p for p in PATIENTS for s in tiny.read_case(p)[0]}
    epoch = [case_of[row.astype(np.float32).tobytes()] for row in stream.take(0, ROWS).images]
    windows = [epoch[start : start + 8] for start in range(0, ROWS, 8)]
    assert all(len(set(window)) == 2 for window in windows)
    assert any(window != sorted(window) and window != sorted(window)[::-1] for window in windows)


def test_windows_of_unequal_row_groups_cover_each_epoch(
    tiny: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row groups of 1 to 5 rows; the reader is replaced by one that names rows by their group."""
    from infra.datasets import windows

    groups = [RowGroup(shard="s", index=i, rows=1 + i % 5) for i in range(17)]

    def read(_: object, chosen: list[RowGroup], *, labels: bool, seed: object) -> windows.Rows:
        return windows.Rows(np.concatenate([np.full(g.rows, g.index, np.float16) for g in chosen]), None)

    monkeypatch.setattr(windows, "read_rows", read)
    for size in (1, 7, 1000):
        stream = WindowStream(tiny, groups, labels=False, seed=(0, 0), window_rows=size)
        total = sum(group.rows for group in groups)
        rows = [int(r) for start in range(0, 3 * total, 3) for r in stream.take(start, 3).images][: 3 * total]
        for epoch in range(3):
            counts = Counter(rows[epoch * total : (epoch + 1) * total])
            assert counts == {group.index: group.rows for group in groups}


def test_feed_draws_and_resumes_both_pools(tiny: DatasetVersion) -> None:
    def feed() -> TrainingFeed:
        return TrainingFeed(
            SlicePool(tiny, PATIENTS, labels=True, batch=2),
            SlicePool(tiny, PATIENTS, labels=False, batch=3),
        )

    first = feed()
    first.next()
    state = first.state_dict()
    assert state == {"labeled": 2, "unlabeled": 3}
    expected = first.next()
    assert set(expected) == {"labeled_image", "labeled_label", "unlabeled_image"}
    second = feed()
    second.load_state_dict(state)
    for key, value in second.next().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)
    supervised = TrainingFeed(SlicePool(tiny, PATIENTS, labels=True, batch=2), None)
    assert set(supervised.next()) == {"labeled_image", "labeled_label"}
    with pytest.raises(DataError, match="the saved feed has the pools"):
        supervised.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"rank": 2, "world": 2}, "rank = 2 of 2"),
        ({"patients": ["nobody"]}, "no patient nobody"),
        ({"patients": ["case_005"], "labels": True}, "have no annotated slices"),
        ({"patients": []}, "have no slices"),
        ({"patients": ["case_000"], "cache": False, "world": 2}, "1 row groups cannot be shared among 2"),
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


def test_shard_that_is_gone_is_named(tiny: DatasetVersion, tmp_path: Path) -> None:
    entry = dataclasses.replace(tiny.cases[0], shard="labeled/gone.parquet")
    broken = DatasetVersion(tiny.store, tiny.manifest, [entry])
    with pytest.raises(Exception, match=r"labeled/gone\.parquet does not exist"):
        SlicePool(broken, ["case_000"], labels=True, batch=1)

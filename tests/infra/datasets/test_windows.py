"""A stream over row groups that do not fit into memory: complete, well shuffled, bounded, never stalling."""

from __future__ import annotations

import weakref
from collections import Counter
from concurrent.futures import Future

import numpy as np
import pytest
from scipy import stats

from infra.datasets import windows
from infra.datasets.row_groups import RowGroup, share
from infra.datasets.windows import WindowStream

SLICE = 100
"""Bytes of a decoded slice in these tests."""


class Loaded:
    """Stands for a decoded row group."""

    def __init__(self, group: RowGroup) -> None:
        self.group = group


class Reader:
    """Reads at once; remembers what was asked for, in which order, and what of it is alive."""

    def __init__(self) -> None:
        self.asked: list[RowGroup] = []
        self.alive: weakref.WeakSet[Loaded] = weakref.WeakSet()
        self.broken: Exception | None = None

    def submit(self, group: RowGroup) -> Future[Loaded]:
        self.asked.append(group)
        future: Future[Loaded] = Future()
        if self.broken:
            future.set_exception(self.broken)
        else:
            block = Loaded(group)
            self.alive.add(block)
            future.set_result(block)
        return future

    def close(self) -> None:
        pass


def archive(cases: int, slices: int, group_rows: int, shards: int) -> list[RowGroup]:
    """Row groups as they lie in a version: each takes every n-th slice of its case."""
    groups = []
    for case in range(cases):
        count = -(-slices // group_rows)
        for part in range(count):
            rows = len(range(part, slices, count))
            shard, index = case * shards // cases, len(groups)
            groups.append(
                RowGroup(shard=f"{shard:03d}", index=index, number=index, rows=rows, bytes=rows * SLICE)
            )
    return groups


def stream(groups: list[RowGroup], reader: Reader | None = None, seed: int = 0) -> WindowStream:
    return WindowStream(reader or Reader(), groups, seed=(seed, 0))  # type: ignore[arg-type]


def rows(drawn: list[windows.Place]) -> list[tuple[int, int]]:
    """The row groups' numbers and the rows in them."""
    return [(place.block.group.number, place.row) for place in drawn]  # type: ignore[attr-defined]


def epoch_of(groups: list[RowGroup], epoch: int = 0, seed: int = 0) -> list[tuple[int, int]]:
    total = sum(group.rows for group in groups)
    return rows(stream(groups, seed=seed).take(epoch * total, total))


@pytest.mark.parametrize("window", [1, 7 * SLICE, 10**9])
@pytest.mark.parametrize("world", [1, 3])
def test_every_epoch_holds_every_row_once(window: int, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW_BYTES", window)
    groups = [
        RowGroup(shard=f"s{i % 4}", index=i, number=i, rows=1 + i % 5, bytes=(1 + i % 5) * SLICE)
        for i in range(17)
    ]
    expected = Counter((group.number, row) for group in groups for row in range(group.rows))
    for epoch in range(3):
        drawn: Counter[tuple[int, int]] = Counter()
        for rank in range(world):
            drawn.update(epoch_of(share(groups, rank=rank, world=world, seed=5), epoch))
        assert drawn == expected


def test_any_cut_of_the_stream_is_the_same_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW_BYTES", 30 * SLICE)
    groups = archive(cases=5, slices=13, group_rows=5, shards=2)
    whole = rows(stream(groups).take(0, 300))
    rng = np.random.default_rng(0)
    same = stream(groups)
    for start, count in zip(rng.integers(0, 250, 40), rng.integers(1, 50, 40), strict=True):
        assert rows(same.take(int(start), int(count))) == whole[start : start + count]
    assert rows(stream(groups, seed=1).take(0, 300)) != whole


def test_two_windows_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW_BYTES", 50 * SLICE)
    groups = archive(cases=40, slices=20, group_rows=10, shards=2)
    reader = Reader()
    drawing = stream(groups, reader)
    for start in range(0, 2400, 8):
        drawing.take(start, 8)
        assert sum(block.group.bytes for block in reader.alive) <= 2 * (50 + 10) * SLICE
    assert len(reader.asked) <= 3 * len(groups) + 12  # each row group once an epoch


def test_what_comes_next_is_read_before_the_window_and_the_epoch_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stall at a boundary: the rows after it were asked for when the window before it began."""
    monkeypatch.setattr(windows, "WINDOW_BYTES", 50 * SLICE)
    groups = archive(cases=10, slices=20, group_rows=10, shards=2)
    reader = Reader()
    drawing = stream(groups, reader)
    for start in range(0, 1000, 5):
        before = len(reader.asked)
        needed = {place.block.group.number for place in drawing.take(start, 5)}  # type: ignore[attr-defined]
        if start:
            asked = {group.number for group in reader.asked[max(0, before - 2 * 6) : before]}
            assert needed <= asked, f"row {start} waits for a read that starts with it"


@pytest.mark.parametrize("shards", [4, 200])
def test_neighbouring_slices_spread_over_the_epoch(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distance in the stream of neighbouring slices of a case, against N/3 of an ideal shuffle."""
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1000 * SLICE)
    cases, slices = 200, 100
    groups = archive(cases, slices, 50, shards)
    distances = []
    for seed in range(3):
        place = {row: position for position, row in enumerate(epoch_of(groups, seed=seed))}
        # slice s of case c is row s // 2 of the case's row group s % 2
        of_slice = np.array(
            [[place[2 * case + s % 2, s // 2] for s in range(slices)] for case in range(cases)]
        )
        distances.append(np.abs(np.diff(of_slice, axis=1)).mean() / (cases * slices))
    # With over 64 shards, those that are open together come together: 64 of 200 make a third of an epoch.
    expected = 1 / 3 if shards <= 64 else 64 / 200 / 3
    assert abs(np.mean(distances) - expected) < 0.12 * expected


def test_batches_mix_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs in a batch from one case: within a small factor of an ideal shuffle, though memory holds 5%."""
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1000 * SLICE)
    cases, slices, batch = 200, 100, 8
    groups = archive(cases, slices, 50, 4)
    case = np.array([number // 2 for number, _ in epoch_of(groups)]).reshape(-1, batch)
    alike = (case[:, :, None] == case[:, None, :]).sum((1, 2)) - batch
    share_alike = alike.sum() / (case.size * (batch - 1))
    ideal = (slices - 1) / (cases * slices - 1)
    within_window = (50 - 1) / 1000
    assert ideal < share_alike < 1.2 * (ideal + within_window)


def test_a_row_comes_at_any_time_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-square of the positions of a few rows over many epochs, and of the rows at a few positions."""
    monkeypatch.setattr(windows, "WINDOW_BYTES", 60 * SLICE)
    groups = archive(cases=10, slices=20, group_rows=10, shards=3)
    drawing = stream(groups)
    orders = np.array([rows(drawing.take(200 * epoch, 200)) for epoch in range(400)])
    number = orders[:, :, 0] * 10 + orders[:, :, 1]
    position = number.argsort(1)
    for sample in (position, number):
        for row in (0, 57, 121, 199):
            counts = np.histogram(sample[:, row], bins=10, range=(0, 200))[0]
            assert stats.chisquare(counts).pvalue > 1e-4


def test_an_error_surfaces_and_another_attempt_reads_again() -> None:
    groups = archive(cases=3, slices=10, group_rows=10, shards=1)
    reader = Reader()
    expected = rows(stream(groups).take(0, 12))
    drawing = stream(groups, reader)
    reader.broken = OSError("gone")
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            drawing.take(0, 12)
    reader.broken = None
    assert rows(drawing.take(0, 12)) == expected


def test_ranks_read_shards_of_their_own_and_equally_much() -> None:
    groups = archive(cases=64, slices=30, group_rows=10, shards=16)
    parts = [share(groups, rank=rank, world=4, seed=1) for rank in range(4)]
    assert [sum(group.rows for group in part) for part in parts] == [480] * 4
    assert [len({group.shard for group in part}) for part in parts] == [4] * 4
    uneven = [share(groups, rank=rank, world=7, seed=1) for rank in range(7)]
    counts = [sum(group.rows for group in part) for part in uneven]
    assert sum(counts) == 1920 and max(counts) - min(counts) <= 1
    assert share(groups, rank=0, world=4, seed=2) != parts[0]

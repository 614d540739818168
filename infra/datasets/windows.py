"""A stream over row groups that do not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from infra.datasets.blocks import OPEN_SHARDS, Block, BlockReader
from infra.datasets.row_groups import RowGroup

WINDOW_BYTES = 256 * 2**20
"""Decoded row groups that are shuffled together: over a thousand slices of 256 x 256. Two windows are in
memory at a time."""


class Place(NamedTuple):
    """Where a row of a stream is found."""

    block: Block
    row: int
    epoch: int


class WindowStream:
    """Each epoch visits the row groups in a new order, cut into windows whose rows are shuffled.

    While a window is used, the next one is read in the background, across the ends of epochs too. All orders
    follow from `seed`, so a row's place in the stream does, and reading may start anywhere.
    """

    def __init__(self, reader: BlockReader, groups: Sequence[RowGroup], *, seed: tuple[int, ...]) -> None:
        self._reader, self._groups, self._seed = reader, groups, seed
        self._layout = Layout.of(groups)
        self._epoch_rows = int(self._layout.rows.sum())
        self._plans: dict[int, EpochPlan] = {}
        self._open: dict[tuple[int, int], _Window] = {}

    def take(self, start: int, count: int) -> list[Place]:
        """Rows `start` to `start + count` of the stream. Raises what `BlockReader.read` raises."""
        places: list[Place] = []
        while len(places) < count:
            epoch, row = divmod(start + len(places), self._epoch_rows)
            number, offset = self._plan(epoch).locate(row)
            window = self._enter(epoch, number)
            stop = min(offset + count - len(places), len(window.row))
            try:
                places += [window.place(position, epoch) for position in range(offset, stop)]
            except Exception:
                self._close_windows(except_for=())  # so that another attempt reads again
                raise
        return places

    def close(self) -> None:
        """Stop reading ahead."""
        self._close_windows(except_for=())
        self._reader.close()

    def _plan(self, epoch: int) -> EpochPlan:
        if epoch not in self._plans:
            self._plans = {e: plan for e, plan in self._plans.items() if abs(e - epoch) == 1}
            self._plans[epoch] = EpochPlan.draw(self._layout, np.random.default_rng((*self._seed, epoch)))
        return self._plans[epoch]

    def _enter(self, epoch: int, number: int) -> _Window:
        """A window; drops those before it, and starts reading the one after it."""
        last = number + 1 == len(self._plan(epoch).windows)
        wanted = ((epoch, number), (epoch + 1, 0) if last else (epoch, number + 1))
        self._close_windows(except_for=wanted)
        for key in wanted:
            if key not in self._open:
                self._open[key] = self._read(*key)
        return self._open[wanted[0]]

    def _read(self, epoch: int, number: int) -> _Window:
        groups = [self._groups[i] for i in self._plan(epoch).windows[number]]
        groups.sort(key=lambda group: (group.shard, group.index))  # a disk reads forward
        of_group = [np.arange(group.first, group.first + group.rows) for group in groups]
        group_of_row = np.repeat(np.arange(len(groups)), [group.rows for group in groups])
        order = np.random.default_rng((*self._seed, epoch, number)).permutation(len(group_of_row))
        blocks = [self._reader.submit(group) for group in groups]
        return _Window(blocks, group_of_row[order], np.concatenate(of_group)[order])

    def _close_windows(self, *, except_for: Sequence[tuple[int, int]]) -> None:
        for key in self._open.keys() - set(except_for):
            for block in self._open.pop(key).blocks:
                block.cancel()


@dataclass(frozen=True)
class _Window:
    """Row groups being read, and for each place in the window the group and the row in it."""

    blocks: list[Future[Block]]
    group: npt.NDArray[np.intp]
    row: npt.NDArray[np.intp]

    def place(self, position: int, epoch: int) -> Place:
        return Place(self.blocks[self.group[position]].result(), int(self.row[position]), epoch)


@dataclass(frozen=True)
class Layout:
    """Row groups as arrays: the number of each one's shard, its rows, and its bytes in memory."""

    shard: npt.NDArray[np.intp]
    rows: npt.NDArray[np.intp]
    bytes: npt.NDArray[np.intp]

    @classmethod
    def of(cls, groups: Sequence[RowGroup]) -> Layout:
        """The layout of `groups`."""
        shard = np.unique([group.shard for group in groups], return_inverse=True)[1]
        rows, size = np.array([(group.rows, group.bytes) for group in groups], np.intp).T
        return cls(shard, rows, size)


@dataclass(frozen=True)
class EpochPlan:
    """The row groups of each window of an epoch, and the row that each window starts at."""

    windows: list[npt.NDArray[np.intp]]
    starts: npt.NDArray[np.intp]

    @classmethod
    def draw(cls, layout: Layout, rng: np.random.Generator) -> EpochPlan:
        """Shuffle row groups, and cut wherever another `WINDOW_BYTES` have passed.

        Of more than `OPEN_SHARDS` shards, that many at a time are shuffled together, in an order that is
        itself drawn: the rest need not be open. A million row groups take a third of a second.
        """
        turn = rng.permutation(layout.shard.max() + 1) // OPEN_SHARDS
        order = np.lexsort((rng.permutation(len(layout.shard)), turn[layout.shard]))
        size, rows = layout.bytes[order], layout.rows[order]
        cuts = np.flatnonzero(np.diff((np.cumsum(size) - size) // WINDOW_BYTES)) + 1
        starts = (np.cumsum(rows) - rows)[np.concatenate([[0], cuts])]
        return cls(np.split(order, cuts), starts)

    def locate(self, row: int) -> tuple[int, int]:
        """The window that holds the epoch's row number `row`, and the place there."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return number, row - int(self.starts[number])

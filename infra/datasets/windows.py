"""A stream over row groups that do not fit into memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.datasets.row_groups import RowGroup, Rows, read_rows
from infra.datasets.version import DatasetVersion

WINDOW_ROWS = 512
"""Rows that are shuffled together, at most: 64 MiB of float16 at 256 x 256."""
WINDOW_BYTES = 256 * 2**20
"""Of decoded rows in a window, unless one row group has more."""


class WindowStream:
    """Each epoch visits the row groups in a new order, cut into windows whose rows are shuffled.

    The window after the current one is read in the background.
    """

    def __init__(
        self,
        version: DatasetVersion,
        groups: Sequence[RowGroup],
        *,
        labels: bool,
        seed: tuple[int, ...],
        window_rows: int = WINDOW_ROWS,
    ) -> None:
        self._version, self._groups, self._labels = version, groups, labels
        row_bytes = 3 * version.channels * math.prod(version.data_config.image_size)
        self._seed, self._window_rows = seed, max(1, min(window_rows, WINDOW_BYTES // row_bytes))
        self._group_rows = np.array([group.rows for group in groups])
        self._epoch_rows = int(self._group_rows.sum())
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="arco-window")
        self._loading: dict[tuple[int, int], Future[Rows]] = {}
        self._plans: dict[int, _EpochPlan] = {}

    def take(self, start: int, count: int) -> Rows:
        """Rows `start` to `start + count` of the stream; see `SampleStream`."""
        parts: list[Rows] = []
        while count > 0:
            epoch, row = divmod(start, self._epoch_rows)
            number, offset = self._plan(epoch).locate(row)
            window = self._window(epoch, number)
            taken = np.arange(offset, min(offset + count, len(window.images)))
            parts.append(window.take(taken, np.full(len(taken), epoch)))
            start, count = start + len(taken), count - len(taken)
        images = np.concatenate([part.images for part in parts])
        labels = [part.labels for part in parts if part.labels is not None]
        return Rows(images, np.concatenate(labels) if labels else None)

    def _plan(self, epoch: int) -> _EpochPlan:
        if epoch not in self._plans:
            order = np.random.default_rng((*self._seed, epoch)).permutation(len(self._groups))
            kept = {epoch - 1, epoch + 1} & self._plans.keys()
            self._plans = {e: self._plans[e] for e in kept}
            self._plans[epoch] = _EpochPlan.cut(order, self._group_rows, self._window_rows)
        return self._plans[epoch]

    def _window(self, epoch: int, number: int) -> Rows:
        """The rows of a window, shuffled; starts reading the next one."""
        last = number + 1 == len(self._plan(epoch).windows)
        wanted = [(epoch, number), (epoch + 1, 0) if last else (epoch, number + 1)]
        for key in self._loading.keys() - set(wanted):
            self._loading.pop(key).cancel()
        for key in wanted:
            if key not in self._loading:
                window = self._plan(key[0]).windows[key[1]]
                self._loading[key] = self._reader.submit(self._read, window, (*self._seed, *key))
        return self._loading[epoch, number].result()

    def _read(self, window: npt.NDArray[np.intp], seed: tuple[int, ...]) -> Rows:
        groups = [self._groups[i] for i in np.sort(window)]
        rows = read_rows(self._version, groups, labels=self._labels, seed=seed)
        order = np.random.default_rng(seed).permutation(len(rows))
        return rows.take(order, np.zeros_like(order))  # the epoch is in the seed


@dataclass(frozen=True)
class _EpochPlan:
    """The row groups of each window of an epoch, and the row that each window starts at."""

    windows: list[npt.NDArray[np.intp]]
    starts: npt.NDArray[np.intp]

    @classmethod
    def cut(
        cls, order: npt.NDArray[np.intp], group_rows: npt.NDArray[np.intp], window_rows: int
    ) -> _EpochPlan:
        """Cut `order` wherever another `window_rows` rows have passed."""
        starts = np.cumsum(group_rows[order]) - group_rows[order]
        cuts = np.flatnonzero(np.diff(starts // window_rows)) + 1
        return cls(np.split(order, cuts), starts[np.concatenate([[0], cuts])])

    def locate(self, row: int) -> tuple[int, int]:
        """The window that holds the epoch's row number `row`, and the place there."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return number, row - int(self.starts[number])

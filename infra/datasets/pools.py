"""Endless, shuffled, resumable streams of slices for training.

A pool's stream is a pure function of seed, rank, number of ranks and cursor: nothing else is
needed to continue it exactly where it stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from arco_core.errors import DataError
from infra.datasets.row_groups import BrickRows, RowGroup, Rows, read_rows, row_groups_of
from infra.datasets.version import DatasetVersion
from infra.datasets.windows import WindowStream

Batch = tuple[torch.Tensor, torch.Tensor | None]
_PATCHES = 1
"""Tells the random numbers of where patches lie from those of the order."""


class SampleStream(Protocol):
    """Rows by their position in a rank's endless stream."""

    def take(self, start: int, count: int) -> Rows:
        """Rows `start` to `start + count` of the stream."""
        ...


class SlicePool:
    """The slices of some patients, or patches of their volumes, shuffled anew every epoch, without end.

    `batch` is the number of slices that this rank gets with each `next`. With `cache` the pool
    lives in memory (as float16) and row k of rank r is row `k * world + r` of one common stream, so
    the union of the ranks' batches does not depend on how many ranks there are. Without it, each
    rank has row groups of its own, whose order changes every epoch, and rows are shuffled within
    windows of row groups; two windows are in memory at a time.
    With `labels` only annotated cases take part; without, all cases do and no label is read.
    """

    def __init__(
        self,
        version: DatasetVersion,
        patients: Sequence[str],
        *,
        labels: bool,
        batch: int,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        cache: bool = True,
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            raise DataError(f"batch = {batch}, rank = {rank} of {world}: batch >= 1 and 0 <= rank < world")
        groups = row_groups_of(version, patients, annotated_only=labels)
        if not groups:
            kind = "annotated slices" if labels else "slices"
            raise DataError(f"{version.url}: the patients {list(patients)[:5]} have no {kind}")
        self._batch = batch
        self._cursor = 0
        self._labels = labels
        self.size = sum(group.rows for group in groups)
        """Slices, or patches an epoch, in the pool, over all ranks."""
        self._stream: SampleStream
        if cache:
            rows = read_rows(version, groups, labels=labels, seed=(seed, _PATCHES))
            self._stream = _MemoryStream(rows, rank=rank, world=world, seed=seed)
        else:
            own = _share(groups, rank=rank, world=world, seed=seed)
            self._stream = WindowStream(version, own, labels=labels, seed=(seed, rank))

    @property
    def cursor(self) -> int:
        """Slices drawn so far by this rank; set it to continue from there."""
        return self._cursor

    @cursor.setter
    def cursor(self, value: int) -> None:
        if value < 0:
            raise DataError(f"cursor = {value}: must not be negative")
        self._cursor = value

    def next(self) -> Batch:
        """Images (B, C, *S) float32 and labels (B, *S) uint8, or none without `labels`."""
        rows = self._stream.take(self._cursor, self._batch)
        self._cursor += self._batch
        labels = None if rows.labels is None else torch.from_numpy(rows.labels)
        return torch.from_numpy(rows.images).float(), labels


class TrainingFeed:
    """Labelled and unlabelled batches side by side."""

    def __init__(self, labeled: SlicePool, unlabeled: SlicePool | None) -> None:
        self._pools = {"labeled": labeled} | ({} if unlabeled is None else {"unlabeled": unlabeled})

    def next(self) -> dict[str, torch.Tensor]:
        """`labeled_image`, `labeled_label` and, where there is an unlabelled pool, `unlabeled_image`."""
        batch: dict[str, torch.Tensor] = {}
        for name, pool in self._pools.items():
            images, labels = pool.next()
            batch[f"{name}_image"] = images
            if labels is not None:
                batch[f"{name}_label"] = labels
        return batch

    def state_dict(self) -> dict[str, int]:
        """The pools' cursors."""
        return {name: pool.cursor for name, pool in self._pools.items()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state` was taken. Raises `DataError` when it is another feed's."""
        if state.keys() != self._pools.keys():
            raise DataError(f"the saved feed has the pools {sorted(state)}, this one {sorted(self._pools)}")
        for name, pool in self._pools.items():
            pool.cursor = state[name]


class _MemoryStream:
    """All rows in memory: epoch after epoch of one common permutation, dealt out to the ranks."""

    def __init__(self, rows: Rows | BrickRows, *, rank: int, world: int, seed: int) -> None:
        self._rows, self._rank, self._world, self._seed = rows, rank, world, seed
        self._orders: dict[int, npt.NDArray[np.intp]] = {}

    def take(self, start: int, count: int) -> Rows:
        """See `SampleStream`."""
        size = len(self._rows)
        positions = np.arange(start, start + count) * self._world + self._rank
        epochs, places = positions // size, positions % size
        needed = range(int(epochs[0]), int(epochs[-1]) + 1)
        self._orders = {e: self._orders[e] if e in self._orders else self._order(e) for e in needed}
        index = np.array([self._orders[int(e)][p] for e, p in zip(epochs, places, strict=True)])
        return self._rows.take(index, epochs)

    def _order(self, epoch: int) -> npt.NDArray[np.intp]:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._rows))


def _share(groups: Sequence[RowGroup], *, rank: int, world: int, seed: int) -> list[RowGroup]:
    """This rank's row groups: fixed for the run, so that it reads its own part of the shards."""
    if len(groups) < world:
        raise DataError(
            f"{len(groups)} row groups cannot be shared among {world} workers: cache the pool, or use fewer"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    return [groups[i] for i in sorted(order[rank::world])]

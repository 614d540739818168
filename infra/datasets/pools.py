"""Endless, shuffled, resumable streams of samples for training.

A pool's stream is a pure function of seed, rank, number of ranks and cursor: nothing else is
needed to continue it exactly where it stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from arco_core.errors import DataError
from infra.datasets.blocks import BlockReader
from infra.datasets.row_groups import RowGroup, row_groups_of, share
from infra.datasets.version import DatasetVersion
from infra.datasets.windows import Place, WindowStream

Batch = tuple[torch.Tensor, torch.Tensor | None]


class SampleStream(Protocol):
    """Rows by their position in a rank's endless stream."""

    def take(self, start: int, count: int) -> list[Place]:
        """Rows `start` to `start + count` of the stream."""
        ...

    def close(self) -> None:
        """Stop what runs in the background."""
        ...


class SlicePool:
    """The slices of some patients, or patches of their volumes, shuffled anew every epoch, without end.

    `batch` is the number of samples that this rank gets with each `next`. With `cache` the pool
    lives in memory (as float16) and row k of rank r is row `k * world + r` of one common stream, so
    the union of the ranks' batches does not depend on how many ranks there are. Without it, each
    rank has shards (or parts of them) of its own; the order of their row groups changes every epoch, and
    rows are shuffled within windows of row groups, two of which are in memory at a time.
    With `labels` only annotated cases take part; without, all cases do and no label is read.
    `pin` puts batches into page-locked memory, from where a GPU copies them while it computes.
    Close a pool, or use it in a `with` block, to end its threads.
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
        pin: bool = False,
    ) -> None:
        if batch < 1 or not 0 <= rank < world:
            raise DataError(f"batch = {batch}, rank = {rank} of {world}: batch >= 1 and 0 <= rank < world")
        groups = row_groups_of(version, patients, annotated_only=labels)
        if not groups:
            kind = "annotated slices" if labels else "slices"
            raise DataError(f"{version.url}: the patients {list(patients)[:5]} have no {kind}")
        self._batch, self._labels, self._pin = batch, labels, pin
        self._cursor = 0
        self._shape = (version.channels, *version.data_config.image_size)
        self.size = sum(group.rows for group in groups)
        """Slices, or patches an epoch, in the pool, over all ranks."""
        own = groups if cache else share(groups, rank=rank, world=world, seed=seed)
        reader = BlockReader(version, labels=labels, seed=seed)
        self._stream: SampleStream
        if cache:
            self._stream = _MemoryStream(reader, own, rank=rank, world=world, seed=seed)
        else:
            self._stream = WindowStream(reader, own, seed=(seed, rank))

    def __enter__(self) -> SlicePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def cursor(self) -> int:
        """Samples drawn so far by this rank; set it to continue from there."""
        return self._cursor

    @cursor.setter
    def cursor(self, value: int) -> None:
        if value < 0:
            raise DataError(f"cursor = {value}: must not be negative")
        self._cursor = value

    def next(self) -> Batch:
        """Images (B, C, *S) float16 and labels (B, *S) uint8, or none without `labels`.

        Raises what `BlockReader.read` raises; the cursor then stays where it was.
        """
        images = torch.empty((self._batch, *self._shape), dtype=torch.float16, pin_memory=self._pin)
        labels = None
        if self._labels:
            labels = torch.empty((self._batch, *self._shape[1:]), dtype=torch.uint8, pin_memory=self._pin)
        to_image, to_label = images.numpy(), None if labels is None else labels.numpy()
        for slot, place in enumerate(self._stream.take(self._cursor, self._batch)):
            target = None if to_label is None else to_label[slot]
            place.block.copy(place.row, place.epoch, to_image[slot], target)
        self._cursor += self._batch
        return images, labels

    def close(self) -> None:
        """Stop reading ahead. The pool cannot be used any more."""
        self._stream.close()


class _MemoryStream:
    """All rows in memory: epoch after epoch of one common permutation, dealt out to the ranks."""

    def __init__(
        self, reader: BlockReader, groups: Sequence[RowGroup], *, rank: int, world: int, seed: int
    ) -> None:
        self._rank, self._world, self._seed = rank, world, seed
        with reader:
            self._blocks = [block.result() for block in [reader.submit(group) for group in groups]]
        self._group = np.repeat(np.arange(len(groups)), [group.rows for group in groups])
        self._row = np.concatenate([np.arange(group.rows) for group in groups])
        self._orders: dict[int, npt.NDArray[np.intp]] = {}

    def take(self, start: int, count: int) -> list[Place]:
        """See `SampleStream`."""
        positions = np.arange(start, start + count) * self._world + self._rank
        epochs, places = np.divmod(positions, len(self._row))
        needed = range(int(epochs[0]), int(epochs[-1]) + 1)
        self._orders = {e: self._orders[e] if e in self._orders else self._order(e) for e in needed}
        rows = [(self._orders[int(e)][p], int(e)) for e, p in zip(epochs, places, strict=True)]
        return [Place(self._blocks[self._group[row]], int(self._row[row]), epoch) for row, epoch in rows]

    def close(self) -> None:
        """See `SampleStream`."""

    def _order(self, epoch: int) -> npt.NDArray[np.intp]:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._row))

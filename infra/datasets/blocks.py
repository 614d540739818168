"""Decoded row groups, and the threads that decode them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from arco_core.bricks import Brick
from arco_core.errors import DataError
from arco_core.samples import decode_bricks, decode_images, decode_labels
from infra.datasets.row_groups import RowGroup
from infra.datasets.shards import open_shard
from infra.datasets.version import DatasetVersion

READERS = 4
"""Threads of a pool that read and decode: while some wait for the store, others decode."""
OPEN_SHARDS = 64
"""Shards that are kept open at a time, with their footers, which take longer to parse than a row group."""

Image = npt.NDArray[np.float16]
Label = npt.NDArray[np.uint8]


class Block(Protocol):
    """The samples of one row group, decoded."""

    def copy(self, row: int, epoch: int, image: Image, label: Label | None) -> None:
        """Write row `row` as it is in `epoch` into `image` (C, *S) and, unless none, `label` (*S)."""
        ...


@dataclass(frozen=True)
class Slices:
    """Slices (N, C, H, W) and, where they were asked for, their labels (N, H, W): every epoch the same."""

    images: Image
    labels: Label | None

    def copy(self, row: int, epoch: int, image: Image, label: Label | None) -> None:
        """See `Block`."""
        np.copyto(image, self.images[row])
        if label is not None and self.labels is not None:
            np.copyto(label, self.labels[row])


@dataclass(frozen=True)
class Patches:
    """A brick, out of which every epoch cuts other patches; where follows from seed, epoch and row."""

    brick: Brick
    patch: tuple[int, ...]
    seed: tuple[int, ...]

    def copy(self, row: int, epoch: int, image: Image, label: Label | None) -> None:
        """See `Block`."""
        voxels, classes = self.brick.cut(self.patch, np.random.default_rng((*self.seed, epoch, row)))
        np.copyto(image, voxels)
        if label is not None and classes is not None:
            np.copyto(label, classes)


class BlockReader:
    """Reads row groups of `version` in threads of its own. The label column is read only for `labels`."""

    def __init__(self, version: DatasetVersion, *, labels: bool, seed: int) -> None:
        self._version, self._labels, self._seed = version, labels, seed
        self._columns = ["image", "label"] if labels else ["image"]
        if version.is_volumetric:
            self._columns += ["brick_start", "brick_shape"]
        self._files = _OpenShards(version)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="arco-read")

    def __enter__(self) -> BlockReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, group: RowGroup) -> Future[Block]:
        """Start reading `group`; its future raises what `read` raises."""
        return self._threads.submit(self.read, group)

    def read(self, group: RowGroup) -> Block:
        """Read `group`.

        Raises:
            StoreError: the shard is missing, or the store fails and goes on failing.
            DataError: the shard is damaged, or is not the one that the version means.
        """
        try:
            with self._files.borrow(group.shard) as shard:
                table = shard.read_row_group(group.index, columns=self._columns, use_threads=False)
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"row group {group.index} of {self._version.store.join(group.shard)} cannot be read "
                f"({reason}): the shard is damaged; `arco data verify` finds all that are"
            ) from error
        if self._version.is_volumetric:
            (brick,) = decode_bricks(table, labels=self._labels)
            return Patches(brick, self._version.data_config.image_size, (self._seed, group.number))
        if len(table) < group.first + group.rows:
            raise DataError(
                f"row group {group.index} of {self._version.store.join(group.shard)} has {len(table)} rows, "
                f"the version says at least {group.first + group.rows}: prepare the dataset again"
            )
        return Slices(decode_images(table), decode_labels(table) if self._labels else None)

    def close(self) -> None:
        """Stop the threads after what they are reading, and close the shards."""
        self._threads.shutdown(cancel_futures=True)
        self._files.close()


@dataclass(frozen=True)
class _Handle:
    """An open shard, for one thread at a time."""

    path: str
    file: pq.ParquetFile
    resources: ExitStack


class _OpenShards:
    """The shards used last, open, each as often as threads read it at once."""

    def __init__(self, version: DatasetVersion) -> None:
        self._version = version
        self._lock = threading.Lock()
        self._idle: list[_Handle] = []
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()

    @contextmanager
    def borrow(self, path: str) -> Iterator[pq.ParquetFile]:
        handle = self._take(path) or self._open(path)
        try:
            yield handle.file
        except BaseException:
            handle.resources.close()  # where it stands after a failure is unknown
            raise
        self._give_back(handle)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for handle in idle:
            handle.resources.close()

    def _take(self, path: str) -> _Handle | None:
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place].path == path:
                    return self._idle.pop(place)
        return None

    def _open(self, path: str) -> _Handle:
        with self._lock:
            footer = self._footers.get(path)
        resources = ExitStack()
        file = resources.enter_context(open_shard(self._version.store, path, footer))
        with self._lock:
            self._footers[path] = file.metadata
            self._footers.move_to_end(path)
            if len(self._footers) > OPEN_SHARDS:
                self._footers.popitem(last=False)
        return _Handle(path, file, resources)

    def _give_back(self, handle: _Handle) -> None:
        with self._lock:
            self._idle.append(handle)
            oldest = self._idle.pop(0) if len(self._idle) > OPEN_SHARDS else None
        if oldest is not None:
            oldest.resources.close()

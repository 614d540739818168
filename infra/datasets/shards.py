"""Parquet shards: rows of whole cases, in row groups that a pool can read alone."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from arco_core.errors import StoreError
from infra.datasets.manifest import Shard, ShardKind
from infra.storage import Store
from infra.storage.retry import retrying

ROW_GROUP_ROWS = 50
"""Slices of a row group, at most; a brick has one of its own."""
LZ4_LEVEL = 4
"""As small as zstd's level 1 on float16 scans, and decoded in about half the time (docs/loader.md)."""
SHARD_BYTES = 128 * 2**20
"""A shard is closed when it has grown past this."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a case's rows went: the number of the shard among its writer's, and row groups there."""

    shard: int
    row_groups: tuple[int, ...]


class ShardWriter:
    """Packs tables into shards below `folder`/`kind`; holds one shard on the local disk at a time.

    `number` begins the shards' names. A row group never holds rows of two `add` calls. Use it in a `with`
    block: leaving it uploads the last shard, unless an error is under way.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        kind: ShardKind,
        *,
        number: int = 0,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._store, self._shard_bytes = store, shard_bytes
        self._kind, self._prefix = kind, f"{folder}/{kind}/{number:05d}"
        self.shards: list[Shard] = []
        """The finished shards; complete after the `with` block."""
        self._workspace = tempfile.TemporaryDirectory(prefix="arco-shards-")
        self._path = Path(self._workspace.name) / "shard.parquet"
        self._file: BinaryIO | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._rows = self._groups = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._finish_shard()
        finally:
            for opened in (self._parquet, self._file):  # of a shard that is given up
                with suppress(OSError):
                    if opened is not None:
                        opened.close()
            self._workspace.cleanup()

    def add(self, table: pa.Table) -> Placement:
        """Append `table` in row groups of its own; returns where it lies.

        Slices are dealt out: of n row groups, number g holds the rows g, g + n, g + 2n, ... Neighbouring
        slices of a scan, which look alike, then come at unrelated times when row groups are shuffled.
        Raises `StoreError` where the local disk, or the store, takes no more.
        """
        dealt = _deal(table)
        with self._local_disk():
            self._write(table.schema, dealt)
        groups = tuple(range(self._groups, self._groups + len(dealt)))
        placement = Placement(shard=len(self.shards), row_groups=groups)
        self._groups += len(dealt)
        self._rows += table.num_rows
        if self._file is not None and self._file.tell() >= self._shard_bytes:
            self._finish_shard()
        return placement

    def _write(self, schema: pa.Schema, row_groups: list[pa.Table]) -> None:
        if self._parquet is None:
            self._file = self._path.open("wb")
            self._parquet = pq.ParquetWriter(
                self._file,
                schema,
                compression="lz4",
                compression_level=LZ4_LEVEL,
                use_dictionary=False,
                write_statistics=False,
                store_schema=True,
            )
        for rows in row_groups:
            self._parquet.write_table(rows)

    @contextmanager
    def _local_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot write a shard in the making to {self._path}: {error}; make space there, or set "
                f"TMPDIR to a folder that has {self._shard_bytes // 2**20} MiB a task, and a case's more"
            ) from error

    def _finish_shard(self) -> None:
        if self._parquet is None or self._file is None:
            return
        with self._local_disk():
            self._parquet.close()
            self._file.close()
            with self._path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        # The content is in the name, so two writers of one version never replace each other's shard.
        name = f"{self._prefix}-{digest[:12]}.parquet"
        retrying(partial(self._store.upload_file, self._path, name))
        size = self._path.stat().st_size
        self.shards.append(Shard(path=name, kind=self._kind, rows=self._rows, bytes=size, sha256=digest))
        self._parquet = self._file = None
        self._rows = self._groups = 0


def _deal(table: pa.Table) -> list[pa.Table]:
    """The row groups of `table`: each brick alone, or slices dealt out evenly."""
    if "brick_shape" in table.schema.names:
        return [table.slice(row, 1) for row in range(table.num_rows)]
    count = -(-table.num_rows // ROW_GROUP_ROWS)
    return [table.take(pa.array(range(first, table.num_rows, count))) for first in range(count)]


@contextmanager
def open_shard(store: Store, path: str, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """A shard open for reading row groups, with the `footer` that an earlier reader of it found.

    Files are read, not mapped: one that is cut short meanwhile gives an error instead of ending the process.
    """
    local = store.local_path(path)
    if local is not None and local.exists():
        with pq.ParquetFile(local, metadata=footer) as parquet:
            yield parquet
    else:
        with (
            store.open_input(path) as source,
            pq.ParquetFile(source, metadata=footer, pre_buffer=True) as parquet,
        ):
            yield parquet

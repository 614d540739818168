"""The tasks of a preparation: some cases each, which become shards where they are converted.

No voxel passes through the driver, and each worker holds one case at a time.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from arco_core.config import DataConfig
from arco_core.errors import DataError, StoreError
from arco_core.preprocess import Geometry
from infra.datasets.convert import Digests, PreparedCase, convert_case, hash_case
from infra.datasets.manifest import Shard
from infra.datasets.readers.base import RawCase
from infra.datasets.shards import ShardWriter
from infra.storage import NotFound, Store
from infra.storage.retry import retrying

T = TypeVar("T")
TASK_BYTES = 128 * 2**20
"""Raw bytes of a task, about a shard's worth: less makes small shards, more makes a lost worker cost more."""
LEAST_TASKS = 16
"""So that a small dataset keeps some cores busy; the same on every machine, or shards would differ."""
MOST_TASKS = 10_000
"""Ray Data keeps a record of each."""
WORKER_BYTES = 512 * 2**20
"""Memory of a worker before it reads a scan: libraries, and what a shard in the making needs."""
MEMORY_FACTOR = 12
"""Bytes of memory for a byte of a case's files, of 16-bit integers: conversion takes 5.5 bytes for each byte
of the voxels as float32 (measured), which are twice as long."""
PACKED_FACTOR = 2 * MEMORY_FACTOR
"""The same of compressed files, which are about half as long (CT, MR; those of label maps hardly count)."""
_PACKED = (".gz", ".h5", ".nrrd")


@dataclass(frozen=True, kw_only=True)
class CaseGroup:
    """The cases of one task: all annotated, or none."""

    number: int
    cases: tuple[RawCase, ...]
    memory: int = 0
    """Bytes that a worker needs to convert the largest of them; an estimate, 0 where nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A case that cannot be used, and why."""

    case_id: str
    message: str


@dataclass(frozen=True, kw_only=True)
class PackedCase:
    """A converted case, and where it lies."""

    digests: Digests
    content_sha256: str
    geometry: Geometry
    rows: int
    shard: str
    row_groups: tuple[int, ...]
    reference_shard: str | None
    reference_row_groups: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PackedGroup:
    """What came of a task of `Packer`."""

    number: int
    cases: tuple[PackedCase, ...]
    shards: tuple[Shard, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, kw_only=True)
class HashedGroup:
    """What came of a task of `hash_group`."""

    digests: tuple[Digests, ...]
    failures: tuple[Failure, ...]


def group_cases(cases: Sequence[RawCase], sizes: Mapping[str, int]) -> list[CaseGroup]:
    """Neighbouring `cases` of one kind, up to the bytes of a task; `sizes` has the bytes of each file.

    Several cases a task, not one: a shard holds a task's cases, and a store with a shard for each small scan
    would be read in as many small pieces; a started worker costs more than a small scan, too. Depends on
    nothing else, so that the same scans give the same shards on any machine.
    """
    weights = {c.case_id: sum(sizes.get(path, 0) for path in _paths(c)) for c in cases}
    total = sum(weights.values())
    limit = max(min(TASK_BYTES, total // LEAST_TASKS), total // MOST_TASKS)
    groups: list[list[RawCase]] = []
    for annotated in (True, False):
        filled = limit + 1
        for case in cases:
            if (case.annotation is not None) != annotated:
                continue
            if filled + weights[case.case_id] > limit:
                groups.append([])
                filled = 0
            groups[-1].append(case)
            filled += weights[case.case_id]
    return [
        CaseGroup(number=number, cases=tuple(group), memory=max(conversion_bytes(c, sizes) for c in group))
        for number, group in enumerate(groups)
    ]


def conversion_bytes(case: RawCase, sizes: Mapping[str, int]) -> int:
    """Estimate of the memory that a worker needs to convert `case`; `sizes` has the bytes of each file."""
    needed = WORKER_BYTES
    for path in _paths(case):
        needed += sizes.get(path, 0) * (PACKED_FACTOR if path.endswith(_PACKED) else MEMORY_FACTOR)
    return needed


def _paths(case: RawCase) -> set[str]:
    return {*case.image_paths, *case.label_paths}


def hash_group(source: Store, group: CaseGroup) -> HashedGroup:
    """Hash the files of the group's cases."""
    failures: list[Failure] = []
    digests = tuple(_attempted(partial(hash_case, source), group.cases, failures))
    return HashedGroup(digests=digests, failures=tuple(failures))


@dataclass(frozen=True, kw_only=True)
class Packer:
    """Turns groups of cases into shards."""

    source: Store
    home: Store
    """The dataset's folder."""
    folder: str
    """Where the shards go, below `home`."""
    config: DataConfig
    channels: int

    def pack(self, group: CaseGroup) -> PackedGroup:
        """Convert the cases of `group` one after the other into shards of their own.

        Packing a group again writes the same objects again. Raises `StoreError`.
        """
        convert = partial(convert_case, self.source, config=self.config, channels=self.channels)
        failures: list[Failure] = []
        placed: list[Callable[[], PackedCase]] = []
        with ExitStack() as stack:
            labeled, unlabeled, references = (
                stack.enter_context(ShardWriter(self.home, self.folder, kind, number=group.number))
                for kind in ("labeled", "unlabeled", "references")
            )
            for prepared in _attempted(convert, group.cases, failures):
                samples = unlabeled if prepared.reference is None else labeled
                placed.append(_place(prepared, samples, references))
                del prepared  # before the next one is read
        shards = (*labeled.shards, *unlabeled.shards, *references.shards)
        return PackedGroup(
            number=group.number,
            cases=tuple(finish() for finish in placed),
            shards=shards,
            failures=tuple(failures),
        )

    def attempt(self, group: CaseGroup) -> int:
        """Convert the cases of `group` and keep nothing; the number of those that can be used."""
        convert = partial(convert_case, self.source, config=self.config, channels=self.channels)
        return sum(1 for _ in _attempted(convert, group.cases, []))


def _attempted(
    function: Callable[[RawCase], T], cases: Sequence[RawCase], failures: list[Failure]
) -> Iterator[T]:
    """`function` of each case that can be used; the others are added to `failures`. Raises `StoreError`."""
    for case in cases:
        try:
            yield retrying(partial(function, case))  # without a name that would keep it in memory
        except (DataError, NotFound) as error:
            failures.append(Failure(case_id=case.case_id, message=str(error)))
        except StoreError:
            raise
        # A library's error, on a file that no check foresaw, costs that case and no other.
        except Exception as error:
            failures.append(Failure(case_id=case.case_id, message=_unforeseen(error)))


def _unforeseen(error: Exception) -> str:
    """What happened where, without the error's own words: those may quote a header, and so name a patient."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{'/'.join(Path(frame.filename).parts[-2:])}, line {frame.lineno}, in {frame.name}"
    if isinstance(error, MemoryError):
        return f"it does not fit into the memory of its worker ({place}): give workers more, or leave it out"
    kind = type(error).__name__
    return f"{kind} in {place}, which no check of the file foresaw: leave it out (data.exclude)"


def _place(prepared: PreparedCase, samples: ShardWriter, references: ShardWriter) -> Callable[[], PackedCase]:
    """Add a case to its shards. Where it lies is known when they have names, and so is called for then."""
    rows = prepared.samples.num_rows
    place = samples.add(prepared.samples)
    reference = None if prepared.reference is None else references.add(prepared.reference)
    digests, content, geometry = prepared.digests, prepared.content_sha256, prepared.geometry

    def finish() -> PackedCase:
        return PackedCase(
            digests=digests,
            content_sha256=content,
            geometry=geometry,
            rows=rows,
            shard=samples.shards[place.shard].path,
            row_groups=place.row_groups,
            reference_shard=None if reference is None else references.shards[reference.shard].path,
            reference_row_groups=() if reference is None else reference.row_groups,
        )

    return finish

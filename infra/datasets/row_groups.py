"""Row groups of a version: the unit of reading, and how ranks share them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arco_core.bricks import brick_places
from arco_core.errors import DataError
from arco_core.samples import IMAGE_DTYPE
from infra.datasets.version import CaseEntry, DatasetVersion


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Some slices, or a brick, of one case."""

    shard: str
    index: int
    number: int
    """Its place among the pool's row groups: where patches are cut follows from it, not from who reads it."""
    rows: int
    """Slices, or the patches that an epoch takes from the brick."""
    first: int = 0
    """The first of these `rows` among those of the whole row group."""
    bytes: int
    """Memory of the whole row group when decoded, with its labels where they are read."""


def row_groups_of(
    version: DatasetVersion, patients: Sequence[str], *, annotated_only: bool
) -> list[RowGroup]:
    """Row groups of the patients' cases, in the order of the cases.

    With `annotated_only`, only of annotated cases, whose labels will then be read.
    """
    groups: list[RowGroup] = []
    for case in version.cases_of(patients):
        if annotated_only and not case.annotated:
            continue
        for index, (rows, voxels) in zip(case.row_groups, _sizes(version, case), strict=True):
            size = voxels * (version.channels * IMAGE_DTYPE.itemsize + annotated_only)
            groups.append(RowGroup(shard=case.shard, index=index, number=len(groups), rows=rows, bytes=size))
    return groups


def _sizes(version: DatasetVersion, case: CaseEntry) -> list[tuple[int, int]]:
    """Rows of each of a case's row groups, and the voxels of all of them."""
    size = version.data_config.image_size
    if version.is_volumetric:
        places = brick_places(case.geometry.size, size)
        return [(place.patches(size), math.prod(place.shape)) for place in places]
    count = len(case.row_groups)
    rows = [len(range(first, case.rows, count)) for first in range(count)]
    return [(n, n * math.prod(size)) for n in rows]


def share(groups: Sequence[RowGroup], *, rank: int, world: int, seed: int) -> list[RowGroup]:
    """The part of `groups` that `rank` of `world` reads during the whole run.

    Ranks get stretches of equally many rows of a shuffled list of shards, so that each reads shards of its
    own; where a stretch ends inside a row group, two ranks share the group's rows.
    Raises `DataError` when there are fewer rows than ranks.
    """
    total = sum(group.rows for group in groups)
    if total < world:
        raise DataError(
            f"{total} samples cannot be shared among {world} workers: use fewer workers, or more patients"
        )
    shards = sorted({group.shard for group in groups})
    place = dict(zip(shards, np.random.default_rng(seed).permutation(len(shards)), strict=True))
    begin, end = total * rank // world, total * (rank + 1) // world
    own, position = [], 0
    for group in sorted(groups, key=lambda group: (place[group.shard], group.index)):
        first, last = max(begin - position, 0), min(end - position, group.rows)
        if first < last:
            own.append(dataclasses.replace(group, first=first, rows=last - first))
        position += group.rows
    return own

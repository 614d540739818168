"""Row groups of a version as the unit of reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from arco_core.bricks import Brick, brick_places
from arco_core.samples import decode_bricks, decode_images, decode_labels
from infra.datasets.shards import open_shard
from infra.datasets.version import CaseEntry, DatasetVersion


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Some slices, or a brick, of one case."""

    shard: str
    index: int
    rows: int
    """Slices, or the patches that an epoch takes from the brick."""


@dataclass(frozen=True)
class Rows:
    """Decoded samples: images (N, C, *S) float16 and, where asked for, labels (N, *S) uint8."""

    images: npt.NDArray[np.float16]
    labels: npt.NDArray[np.uint8] | None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: npt.NDArray[np.intp], epochs: npt.NDArray[np.intp]) -> Rows:
        """Copies of the rows at `index`, which are the same in all `epochs`."""
        return Rows(self.images[index], None if self.labels is None else self.labels[index])


class BrickRows:
    """Decoded bricks, whose rows are patches (C, D, H, W) that are cut anew every epoch.

    Where a patch lies follows from `seed`, the epoch and the row.
    """

    def __init__(self, bricks: Sequence[Brick], patch: tuple[int, ...], seed: tuple[int, ...]) -> None:
        self._bricks, self._patch, self._seed = bricks, patch, seed
        self._brick_of = np.repeat(np.arange(len(bricks)), [b.place.patches(patch) for b in bricks])

    def __len__(self) -> int:
        return len(self._brick_of)

    def take(self, index: npt.NDArray[np.intp], epochs: npt.NDArray[np.intp]) -> Rows:
        """Patches for the rows at `index`, each cut as in its epoch."""
        cuts = [
            self._bricks[self._brick_of[row]].cut(
                self._patch, np.random.default_rng((*self._seed, int(epoch), int(row)))
            )
            for row, epoch in zip(index, epochs, strict=True)
        ]
        labels = [label for _, label in cuts if label is not None]
        return Rows(np.stack([image for image, _ in cuts]), np.stack(labels) if labels else None)


def row_groups_of(
    version: DatasetVersion, patients: Sequence[str], *, annotated_only: bool
) -> list[RowGroup]:
    """Row groups of the patients' cases, in the order of the cases."""
    groups = []
    for case in version.cases_of(patients):
        if annotated_only and not case.annotated:
            continue
        for index, rows in zip(case.row_groups, _rows_of(version, case), strict=True):
            groups.append(RowGroup(shard=case.shard, index=index, rows=rows))
    return groups


def _rows_of(version: DatasetVersion, case: CaseEntry) -> list[int]:
    """Rows of each of a case's row groups."""
    if version.is_volumetric:
        patch = version.data_config.image_size
        return [place.patches(patch) for place in brick_places(case.geometry.size, patch)]
    count = len(case.row_groups)
    return [len(range(first, case.rows, count)) for first in range(count)]


def read_rows(
    version: DatasetVersion, groups: Sequence[RowGroup], *, labels: bool, seed: tuple[int, ...]
) -> Rows | BrickRows:
    """The rows of `groups`, in their order. The label column is read only for `labels`.

    `seed` decides where patches are cut; slices take no notice of it.
    """
    columns = ["image", "label"] if labels else ["image"]
    if version.is_volumetric:
        columns += ["brick_start", "brick_shape"]
    bricks: list[Brick] = []
    images: list[npt.NDArray[Any]] = []
    annotations: list[npt.NDArray[Any]] = []
    for path, run in groupby(groups, key=lambda group: group.shard):
        with open_shard(version.store, path) as shard:
            table = shard.read_row_groups([group.index for group in run], columns=columns)
        if version.is_volumetric:
            bricks += decode_bricks(table, labels=labels)
            continue
        images.append(decode_images(table))
        if labels:
            annotations.append(decode_labels(table))
    if version.is_volumetric:
        return BrickRows(bricks, version.data_config.image_size, seed)
    return Rows(np.concatenate(images), np.concatenate(annotations) if labels else None)

"""Row groups of a version as the unit of reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from arco_core.samples import decode_images, decode_labels
from infra.datasets.shards import ROW_GROUP_ROWS, open_shard
from infra.datasets.version import DatasetVersion


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Some slices of one case."""

    shard: str
    index: int
    rows: int


@dataclass(frozen=True)
class Rows:
    """Decoded slices: images (N, C, H, W) float16 and, where asked for, labels (N, H, W) uint8."""

    images: npt.NDArray[np.float16]
    labels: npt.NDArray[np.uint8] | None

    def take(self, index: npt.NDArray[np.intp]) -> Rows:
        """Copies of the rows at `index`."""
        return Rows(self.images[index], None if self.labels is None else self.labels[index])


def row_groups_of(
    version: DatasetVersion, patients: Sequence[str], *, annotated_only: bool
) -> list[RowGroup]:
    """Row groups of the patients' cases, in the order of the cases."""
    groups = []
    for case in version.cases_of(patients):
        if annotated_only and not case.annotated:
            continue
        for number, index in enumerate(case.row_groups):
            rows = min(ROW_GROUP_ROWS, case.rows - number * ROW_GROUP_ROWS)
            groups.append(RowGroup(shard=case.shard, index=index, rows=rows))
    return groups


def read_rows(version: DatasetVersion, groups: Sequence[RowGroup], *, labels: bool) -> Rows:
    """The rows of `groups`, in their order. The label column is read only for `labels`."""
    columns = ["image", "label"] if labels else ["image"]
    images: list[npt.NDArray[Any]] = []
    annotations: list[npt.NDArray[Any]] = []
    for path, run in groupby(groups, key=lambda group: group.shard):
        with open_shard(version.store, path) as shard:
            table = shard.read_row_groups([group.index for group in run], columns=columns)
        images.append(decode_images(table))
        if labels:
            annotations.append(decode_labels(table))
    return Rows(np.concatenate(images), np.concatenate(annotations) if labels else None)

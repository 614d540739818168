"""Annotations whose numbers are not class numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from arco_core.errors import DataError
from infra.datasets.volume import Volume, VolumeSource
from infra.storage import Store


@dataclass(frozen=True)
class Relabeled:
    """`source` with its values replaced by class numbers, as a `VolumeSource`."""

    source: VolumeSource
    classes: Mapping[int, int]
    """Class number by value; 0 stays background."""

    @property
    def paths(self) -> tuple[str, ...]:
        """See `VolumeSource`."""
        return self.source.paths

    def load(self, raw: Store) -> Volume:
        """See `VolumeSource`. Raises `DataError` for a value without a class, too."""
        volume = self.source.load(raw)
        numbers = np.zeros(volume.voxels.shape, np.uint8)
        known = volume.voxels == 0
        for value, number in self.classes.items():  # one at a time: indices of all take 16 bytes a voxel
            found = volume.voxels == value
            numbers[found] = number
            known |= found
        if not known.all():
            wrong = volume.voxels[~known]
            raise DataError(
                f"{volume.path} has {wrong.size} voxels of no class, one with the value {wrong[0]:g}; its "
                f"format has {', '.join(map(str, sorted({0, *self.classes})))}: correct the annotation"
            )
        return dataclasses.replace(volume, voxels=numbers)

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`."""
        return self.source.digest(raw)

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
        known = np.array(sorted({0, *self.classes}))
        place = np.searchsorted(known, volume.voxels).clip(max=len(known) - 1)
        wrong = volume.voxels != known[place]
        if wrong.any():
            raise DataError(
                f"{volume.path} has {np.count_nonzero(wrong)} voxels of no class, one with the value "
                f"{volume.voxels[wrong][0]:g}; its format has {', '.join(map(str, known))}: correct the "
                "annotation"
            )
        numbers = np.array([self.classes.get(int(value), 0) for value in known], np.uint8)
        return dataclasses.replace(volume, voxels=numbers[place])

    def digest(self, raw: Store) -> str:
        """See `VolumeSource`."""
        return self.source.digest(raw)

"""Whole volumes as rows: bricks, each at most two patches wide along every axis.

Training cuts patches out of bricks at random. A brick is the unit that is read, so its size bounds the
memory and the time of a random read whatever the size of the scan. A volume of up to two patches along an
axis is not divided there. Neighbours share half a patch: where bricks meet, every voxel is at least a
quarter of a patch inside of some patch that can be drawn, and storage grows by a third an axis, at most.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from arco_core.errors import DataError

Sides = tuple[int, int, int]

LARGEST = 2
"""Sides of a brick in patches, at most."""


@dataclass(frozen=True, kw_only=True)
class BrickPlace:
    """Where a brick lies in its prepared volume (D, H, W)."""

    start: Sides
    shape: Sides

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the brick's voxels."""
        depth, height, width = (slice(s, s + n) for s, n in zip(self.start, self.shape, strict=True))
        return depth, height, width

    def patches(self, patch: Sequence[int]) -> int:
        """Patches that one epoch takes from the brick: as many as its volume holds, at least one."""
        return max(1, round(math.prod(self.shape) / math.prod(patch)))


@dataclass(frozen=True, kw_only=True)
class Brick:
    """Part of one prepared volume."""

    place: BrickPlace
    image: npt.NDArray[np.float16]
    """(C, d, h, w)."""
    label: npt.NDArray[np.uint8] | None
    """(d, h, w), where it was read."""

    def cut(
        self, patch: Sequence[int], rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8] | None]:
        """Image (C, *patch) and label (*patch) at a place drawn uniformly; views."""
        free = np.subtract(self.place.shape, patch)
        window = tuple(
            slice(int(start), int(start) + side)
            for start, side in zip(rng.integers(0, free, endpoint=True), patch, strict=True)
        )
        return self.image[(slice(None), *window)], None if self.label is None else self.label[window]


def brick_places(size: Sequence[int], patch: Sequence[int]) -> list[BrickPlace]:
    """The bricks of a volume of `size` (D, H, W) for patches of `patch`, in raster order.

    Raises `DataError` when the volume is smaller than a patch.
    """
    if any(side < least for side, least in zip(size, patch, strict=True)):
        raise DataError(f"a volume of {tuple(size)} voxels has no patch of {tuple(patch)}: pad it first")
    axes = [_divide(side, least) for side, least in zip(size, patch, strict=True)]
    shape = tuple(length for _, length in axes)
    return [
        BrickPlace(start=_three(start), shape=_three(shape))
        for start in itertools.product(*(starts for starts, _ in axes))
    ]


def assemble(bricks: Sequence[Brick]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]:
    """The volume (C, D, H, W) that `bricks` were cut from and, where all have one, its label (D, H, W).

    Raises `DataError` when bricks are missing.
    """
    ends = [np.add(brick.place.start, brick.place.shape) for brick in bricks]
    size = np.max(ends, axis=0) if ends else np.zeros(3, int)
    covered = np.zeros(size, bool)
    image = np.empty((bricks[0].image.shape[0] if bricks else 0, *size), np.float32)
    label = np.empty(size, np.uint8) if all(brick.label is not None for brick in bricks) else None
    for brick in bricks:
        where = brick.place.slices
        image[(slice(None), *where)] = brick.image
        covered[where] = True
        if label is not None:
            label[where] = brick.label
    if not covered.all() or not bricks:
        missing = int(covered.size - np.count_nonzero(covered))
        raise DataError(f"{len(bricks)} bricks leave {missing} voxels of their volume open: read all of them")
    return image, label


def _divide(side: int, patch: int) -> tuple[list[int], int]:
    """Starts of the bricks along one axis, and their common length."""
    shared = patch // 2
    count = max(1, math.ceil((side - shared) / (LARGEST * patch - shared)))
    length = math.ceil((side + (count - 1) * shared) / count)
    return [index * (side - length) // max(1, count - 1) for index in range(count)], length


def _three(sides: Sequence[Any]) -> Sides:
    depth, height, width = (int(side) for side in sides)
    return depth, height, width

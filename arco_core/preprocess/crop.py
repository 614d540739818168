"""The part of a scan that is kept: found from the image alone, as it must be for scans to predict."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from arco_core.config import DataConfig
from arco_core.errors import DataError
from arco_core.preprocess.geometry import Box, Geometry


def crop_box(channels: Iterable[npt.NDArray[np.float32]], native: Geometry, config: DataConfig) -> Box:
    """The box of the canonical volume that `config.crop` keeps; of several channels the union.

    Args:
        channels: canonical volumes (D, H, W), read only where the box depends on voxels.
        native: geometry of the whole scan.
        config: `none`, `center` (`crop_extent_mm` around the middle), `nonzero` (the box of all voxels that
            are not 0) or `body` (the box of the largest connected region above the volume's mean), the
            last two with `crop_margin_mm` around.

    Raises:
        DataError: no voxel of any channel is in the region.
    """
    sides, spacing = native.canonical_shape, native.canonical_spacing_mm
    if config.crop == "none":
        return native.crop
    if config.crop == "center":
        return _box(
            _middle(side, side if mm == 0 else max(1, round(mm / voxel)))
            for side, voxel, mm in zip(sides, spacing, config.crop_extent_mm, strict=True)
        )
    boxes = [box for channel in channels if (box := _found(channel, config.crop)) is not None]
    if not boxes:
        raise DataError(
            f"data.crop = {config.crop!r} finds nothing in the image, all of whose voxels are equal: "
            "the scan is empty"
        )
    margins = [math.ceil(config.crop_margin_mm / voxel) for voxel in spacing]
    return _box(
        (
            max(0, min(box[axis][0] for box in boxes) - margins[axis]),
            min(sides[axis], max(box[axis][1] for box in boxes) + margins[axis]),
        )
        for axis in range(3)
    )


def _found(volume: npt.NDArray[np.float32], region: str) -> Box | None:
    """The box of the region's voxels, or none where there are none."""
    if region == "nonzero":
        labels, chosen = (volume != 0).view(np.uint8), 1
    else:
        labels, count = ndimage.label(volume > volume.mean())
        if not count:
            return None
        sizes = np.zeros(count + 1, np.intp)
        for part in np.array_split(labels, 8):  # bincount copies what it counts to eight bytes a voxel
            sizes += np.bincount(part.ravel(), minlength=count + 1)
        chosen = int(sizes[1:].argmax()) + 1
    found = ndimage.find_objects(labels, max_label=chosen)[-1:]
    if not found or found[0] is None:
        return None
    return _box((int(part.start), int(part.stop)) for part in found[0])


def _middle(side: int, kept: int) -> tuple[int, int]:
    kept = min(side, kept)
    start = (side - kept) // 2
    return start, start + kept


def _box(sides: Iterable[tuple[int, int]]) -> Box:
    depth, height, width = sides
    return depth, height, width

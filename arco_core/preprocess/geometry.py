"""How a prepared scan lies in its original volume.

The canonical volume has the axes (D, H, W): D is the axis along which slices are cut, H and W are a
slice's rows and columns. They run to the patient's left, posterior and inferior (L-P-I), so that an axial
slice has its rows from front to back and its columns from the patient's right to left, as radiologists
look at it. An oblique scan is turned by whole axes to the nearest canonical ones; nothing is interpolated.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import affines, orientations

from arco_core.config import DataConfig
from arco_core.errors import DataError

Affine = tuple[tuple[float, float, float, float], ...]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and one past the last voxel along D, H and W."""
Shape = tuple[int, int, int]
CANONICAL_AXES = ("L", "P", "I")
_MOST_VOXELS = 2**30
"""Of a scan on the grid asked for, 4 GiB as float32, unless its own has more. Seven times those of a CT of
512 x 512 x 600: what asks for more is a header in other units, or no scan."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What was done to the grid of one scan: all that the way back needs."""

    shape: Shape
    """Voxels of the original volume (X, Y, Z), in the order of the file."""
    affine: Affine
    """Voxel indices of the original volume to millimetres (RAS+), 4 x 4."""
    slice_axis: int
    """Axis of the L-P-I volume that becomes D."""
    image_axes: int
    """2 where each voxel along D is a slice of its own, 3 where the whole is one volume."""
    crop: Box
    """Part of the canonical volume that is kept."""
    resampled: Shape
    """Voxels (D, H, W) of the cropped volume after resampling, before it is fitted to `size`."""
    size: Shape
    """Voxels (D, H, W) of the prepared scan."""

    @classmethod
    def native(cls, shape: tuple[int, ...], affine: npt.ArrayLike, config: DataConfig) -> Geometry:
        """The geometry of a scan of `shape` (X, Y, Z) that is only turned to canonical axes.

        Raises `DataError` for a shape or an affine that cannot belong to a volume.
        """
        matrix = _checked_affine(shape, affine)
        unknown = (1, 1, 1)
        turned = cls(
            shape=(shape[0], shape[1], shape[2]),
            affine=tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in matrix),
            slice_axis=config.slice_axis,
            image_axes=len(config.image_size),
            crop=((0, 1), (0, 1), (0, 1)),
            resampled=unknown,
            size=unknown,
        )
        whole = turned.canonical_shape
        depth, height, width = ((0, side) for side in whole)
        return dataclasses.replace(turned, crop=(depth, height, width), resampled=whole, size=whole)

    @classmethod
    def plan(
        cls, shape: tuple[int, ...], affine: npt.ArrayLike, config: DataConfig, crop: Box | None = None
    ) -> Geometry:
        """The geometry that `config` gives a scan of `shape` (X, Y, Z) and `affine` (4, 4).

        `crop` is the part to keep where `config.crop` depends on the voxels; by default everything is.
        Raises `DataError` for a shape or an affine that cannot belong to a volume, and for a grid of more
        than 2^30 voxels that is not the scan's own.
        """
        native = cls.native(shape, affine, config)
        kept = native if crop is None else dataclasses.replace(native, crop=crop)
        resampled = kept._resampled(config)
        if kept.image_axes == 2:
            size = (resampled[0], *config.image_size)
        else:
            size = tuple(max(side, least) for side, least in zip(resampled, config.image_size, strict=True))
        planned = dataclasses.replace(kept, resampled=resampled, size=_three(size))
        planned._check_size(config)
        return planned

    def _resampled(self, config: DataConfig) -> Shape:
        """Voxels (D, H, W) of the cropped volume at the spacing, or of the size, that `config` asks for."""
        sides = self.cropped_shape
        if config.fit == "resize":
            return _three((sides[0], *config.image_size))
        if not config.spacing_mm:
            return sides
        own = self.canonical_spacing_mm
        wanted = own[: 3 - self.image_axes] + config.spacing_mm
        exact = (side * old / new for side, old, new in zip(sides, own, wanted, strict=True))
        # First to four digits: headers hold float32, whose noise must not decide which way a half goes.
        return _three(tuple(max(1, round(round(voxels, 4))) for voxels in exact))

    def _check_size(self, config: DataConfig) -> None:
        """Refuse, before memory is taken for it, a grid that a header of a few bytes can ask for."""
        most = max(_MOST_VOXELS, math.prod(self.cropped_shape))
        grid = max(self.resampled, self.size, key=math.prod)
        if math.prod(grid) > most:
            asked = f" at data.spacing_mm = {config.spacing_mm}" if config.spacing_mm else ""
            raise DataError(
                f"the scan, {self.cropped_shape} voxels of {_mm(self.canonical_spacing_mm)} mm by its "
                f"header, would take {grid} voxels{asked}, more than {most}: correct the header or the "
                "settings, or cut the scan"
            )

    @property
    def canonical_shape(self) -> Shape:
        """Voxels (D, H, W) of the whole scan."""
        return _three(tuple(self.shape[axis] for axis in self._source_axes))

    @property
    def cropped_shape(self) -> Shape:
        """Voxels (D, H, W) of the part that is kept, before resampling."""
        return _three(tuple(stop - start for start, stop in self.crop))

    @property
    def prepared_shape(self) -> tuple[int, ...]:
        """Shape (N, *S) of the prepared label map: (slices, H, W), or (1, D, H, W) for a volume."""
        return self.size if self.image_axes == 2 else (1, *self.size)

    @property
    def voxel_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size of the original volume along X, Y and Z, in millimetres."""
        x, y, z = (float(v) for v in affines.voxel_sizes(np.asarray(self.affine)))
        return x, y, z

    @property
    def canonical_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size of the original volume along D, H and W, in millimetres."""
        depth, height, width = (self.voxel_spacing_mm[axis] for axis in self._source_axes)
        return depth, height, width

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size of the prepared scan along D, H and W, in millimetres."""
        depth, height, width = (
            spacing * old / new
            for spacing, old, new in zip(
                self.canonical_spacing_mm, self.cropped_shape, self.resampled, strict=True
            )
        )
        return depth, height, width

    def original_depth(self, index: int) -> int:
        """The place along D of the whole canonical scan where the middle of the prepared slice `index` lies.

        Padding beyond the scan counts as its first or last slice.
        """
        (start, stop), resampled, size = self.crop[0], self.resampled[0], self.size[0]
        kept = min(max(index - (size - resampled) // 2, 0), resampled - 1)
        return start + (2 * kept + 1) * (stop - start) // (2 * resampled)

    def to_canonical(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`volume` (X, Y, Z) on the axes (D, H, W); a view."""
        turn = orientations.ornt_transform(self._orientation, orientations.axcodes2ornt(CANONICAL_AXES))
        canonical: npt.NDArray[Any] = orientations.apply_orientation(volume, turn)
        return canonical.transpose(self._canonical_axes)

    def from_canonical(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """`volume` (D, H, W) on the axes (X, Y, Z) of the file; a view."""
        back = orientations.ornt_transform(orientations.axcodes2ornt(CANONICAL_AXES), self._orientation)
        canonical = volume.transpose(np.argsort(self._canonical_axes))
        native: npt.NDArray[Any] = orientations.apply_orientation(canonical, back)
        return native

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Geometry:
        """The geometry that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        for key in ("affine", "crop"):
            values[key] = tuple(tuple(row) for row in values[key])
        for key in ("shape", "resampled", "size"):
            values[key] = tuple(values[key])
        return cls(**values)

    @cached_property
    def _orientation(self) -> npt.NDArray[np.float64]:
        return np.asarray(orientations.io_orientation(np.asarray(self.affine)))

    @property
    def _canonical_axes(self) -> tuple[int, int, int]:
        """Axes of the L-P-I volume along D, H and W: rows run along the higher of the other two."""
        column, row = (axis for axis in range(3) if axis != self.slice_axis)
        return self.slice_axis, row, column

    @cached_property
    def _source_axes(self) -> tuple[int, int, int]:
        """Axes of the original volume along D, H and W."""
        source = np.argsort(self._orientation[:, 0])
        return _three(tuple(int(source[axis]) for axis in self._canonical_axes))


def _checked_affine(shape: tuple[int, ...], affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    matrix = np.asarray(affine, dtype=np.float64)
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"the image has shape {shape}; a volume has three axes, none of them empty")
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DataError(f"the affine {matrix.tolist()} is not a finite 4 x 4 matrix: repair the header")
    if math.isclose(np.linalg.det(matrix[:3, :3]), 0, abs_tol=1e-12) or _has_no_orientation(matrix):
        raise DataError(f"the affine {matrix.tolist()} maps voxels onto a plane: repair the header")
    return matrix


def _has_no_orientation(matrix: npt.NDArray[np.float64]) -> bool:
    return bool(np.isnan(orientations.io_orientation(matrix)).any())


def _mm(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def _three(sides: tuple[int, ...]) -> Shape:
    depth, height, width = sides
    return depth, height, width

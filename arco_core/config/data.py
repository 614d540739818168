"""How scans become what is trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from arco_core.config.errors import require, require_in, require_range

CROPS = ("none", "center", "nonzero", "body")
MOST_CLASSES = 256
"""With background: label maps and masks have a byte a voxel."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How scans become 2D slices or 3D patches, and how patients are split."""

    name: str = "dataset"
    """Name of the dataset in the store: a folder there, and a word of `arco data`."""
    classes: tuple[str, ...] = ()
    """Class names, background first. Empty: the scans' own, by `dataset.json` or format."""
    exclude: tuple[str, ...] = ()
    """Cases or patients to leave out."""
    max_failures: int = 0
    """Cases that may be left out because they cannot be used; with more, there is no dataset."""
    image_size: tuple[int, ...] = (256, 256)
    """Height and width of a slice, or depth, height and width of a patch, in pixels; all divisible by 16."""
    crop: str = "none"
    """Part of the scan that is kept, before all else: `none` crops nothing, `center` keeps `crop_extent_mm`
    around the middle, `nonzero` the box of the voxels that are not 0, `body` the box of the largest connected
    region brighter than the mean."""
    crop_extent_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Extent of `center` along depth (through the slices), height and width; 0 keeps an axis whole."""
    crop_margin_mm: float = 0.0
    """Kept around the box of `nonzero` and `body`."""
    fit: str = "pad"
    """How slices get `image_size`: `pad` crops or pads around the centre and keeps the spacing; `resize`
    interpolates. Volumes that patches are cut from are only padded, where smaller than a patch."""
    spacing_mm: tuple[float, ...] = ()
    """Voxel size to resample to, one number a side of `image_size`; empty keeps the scan's own. The distance
    between slices stays as it is."""
    intensity: str = "minmax"
    """Per volume, over the part that is kept: `minmax` to [0, 1] between percentiles, `zscore`, or `window`
    (HU to [0, 1])."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Intensity percentiles that `minmax` maps to 0 and 1."""
    window_hu: tuple[float, float] = (-200.0, 250.0)
    """Lower and upper bound of `window`, in Hounsfield units."""
    slice_axis: int = 2
    """Axis along which slices are cut, a patch's depth: 0 left-right, 1 front-back, 2 up-down."""
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[^\W_][\w.-]{0,99}", self.name) is not None,
            "data.name", self.name,
            "up to 100 letters, digits, '.', '_' and '-', of which the first is a letter or a digit",
        )  # fmt: skip
        require(
            len(self.classes) != 1 and len(self.classes) <= MOST_CLASSES
            and all(self.classes) and len(set(self.classes)) == len(self.classes),
            "data.classes", self.classes,
            f"none, or background and others, each with a name of its own, {MOST_CLASSES} at most",
        )  # fmt: skip
        require(
            len(self.image_size) in (2, 3) and all(s >= 16 and s % 16 == 0 for s in self.image_size),
            "data.image_size", self.image_size, "2 or 3 sides, all multiples of 16, at least 16",
        )  # fmt: skip
        require(self.max_failures >= 0, "data.max_failures", self.max_failures, "must not be negative")
        require_in("data.crop", self.crop, CROPS)
        require(
            min(self.crop_extent_mm) >= 0 and (self.crop == "center") == any(self.crop_extent_mm),
            "data.crop_extent_mm", self.crop_extent_mm,
            f"the extents of data.crop = 'center', of which one at least is positive; it is {self.crop!r}",
        )  # fmt: skip
        require(
            self.crop_margin_mm >= 0 and (self.crop in ("nonzero", "body") or not self.crop_margin_mm),
            "data.crop_margin_mm", self.crop_margin_mm,
            f"0 or, around data.crop = 'nonzero' or 'body', positive; it is {self.crop!r}",
        )  # fmt: skip
        require_in("data.fit", self.fit, ("pad", "resize"))
        require(
            self.fit == "pad" or len(self.image_size) == 2,
            "data.fit", self.fit, "must be 'pad' for patches: they are cut out, not squeezed in",
        )  # fmt: skip
        require_in("data.intensity", self.intensity, ("minmax", "zscore", "window"))
        require(
            not self.spacing_mm
            or (len(self.spacing_mm) == len(self.image_size) and min(self.spacing_mm) > 0),
            "data.spacing_mm", self.spacing_mm,
            f"positive, one a side of data.image_size = {self.image_size}, or none at all",
        )  # fmt: skip
        low, high = self.percentiles
        require(0 <= low < high <= 100, "data.percentiles", self.percentiles, "0 <= low < high <= 100")
        require(self.window_hu[0] < self.window_hu[1], "data.window_hu", self.window_hu, "low < high")
        require(self.slice_axis in (0, 1, 2), "data.slice_axis", self.slice_axis, "must be 0, 1 or 2")
        require_range("data.validation_fraction", self.validation_fraction, 0.0, 0.9)
        require_range("data.test_fraction", self.test_fraction, 0.0, 0.9)

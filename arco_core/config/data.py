"""How scans become what is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from arco_core.config.errors import require, require_in, require_range


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How scans become 2D slices or 3D patches, and how patients are split."""

    name: str = "dataset"
    """Name of the dataset in the store."""
    classes: tuple[str, ...] = ()
    """Class names, background first. Empty: the scans' own, by `dataset.json` or format."""
    exclude: tuple[str, ...] = ()
    """Cases or patients to leave out."""
    image_size: tuple[int, ...] = (256, 256)
    """Height and width of a slice, or depth, height and width of a patch, in pixels; all divisible by 16."""
    fit: str = "pad"
    """`pad` crops or pads around the centre and keeps the spacing; `resize` interpolates."""
    spacing_mm: float | None = None
    """In-plane spacing to resample to before fitting; none keeps the scan's own."""
    intensity: str = "minmax"
    """Per volume: `minmax` to [0, 1] between percentiles, `zscore`, or `window` (HU to [0, 1])."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Intensity percentiles that `minmax` maps to 0 and 1."""
    window_hu: tuple[float, float] = (-200.0, 250.0)
    """Lower and upper bound of `window`, in Hounsfield units."""
    slice_axis: int = 2
    """Axis of the canonical (RAS) volume along which slices are cut."""
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        require(
            len(self.image_size) in (2, 3) and all(s >= 16 and s % 16 == 0 for s in self.image_size),
            "data.image_size", self.image_size, "2 or 3 sides, all multiples of 16, at least 16",
        )  # fmt: skip
        require_in("data.fit", self.fit, ("pad", "resize"))
        require_in("data.intensity", self.intensity, ("minmax", "zscore", "window"))
        require(
            self.spacing_mm is None or self.spacing_mm > 0,
            "data.spacing_mm", self.spacing_mm, "must be positive",
        )  # fmt: skip
        low, high = self.percentiles
        require(0 <= low < high <= 100, "data.percentiles", self.percentiles, "0 <= low < high <= 100")
        require(self.window_hu[0] < self.window_hu[1], "data.window_hu", self.window_hu, "low < high")
        require(self.slice_axis in (0, 1, 2), "data.slice_axis", self.slice_axis, "must be 0, 1 or 2")
        require_range("data.validation_fraction", self.validation_fraction, 0.0, 0.9)
        require_range("data.test_fraction", self.test_fraction, 0.0, 0.9)

    def require_slices(self) -> None:
        """Raise `ConfigError` for 3D patches: stages train on them, but scans cannot be cut into them yet."""
        require(
            len(self.image_size) == 2,
            "data.image_size", self.image_size,
            "scans are cut into 2D slices only, so far; train on slices (network.kind=unet, two sides here), "
            "or give patches of your own to arco_core.training.train",
        )  # fmt: skip

    @property
    def slice_size(self) -> tuple[int, int]:
        """Height and width of a slice; raises as `require_slices`."""
        self.require_slices()
        return self.image_size[0], self.image_size[1]

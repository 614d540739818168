"""How a trained model is applied to a scan."""

from __future__ import annotations

from dataclasses import dataclass

from arco_core.config.errors import require, require_range

FLIP_AXES = "dhw"


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How probabilities are averaged: over windows of a volume, and over mirror images."""

    overlap: float = 0.5
    """Share of its sides by which a window overlaps the next; 0.5 means eight windows a voxel in 3D. Slices
    are predicted one by one."""
    flips: str = ""
    """Axes to mirror images along, of `d`, `h` and `w` (depth, height, width): probabilities are averaged
    over every combination, two to the power of the axes' number. Training mirrors along `w`."""

    def __post_init__(self) -> None:
        require_range("inference.overlap", self.overlap, 0.0, 0.95)
        require(
            set(self.flips) <= set(FLIP_AXES) and len(set(self.flips)) == len(self.flips),
            "inference.flips", self.flips, f"letters of {FLIP_AXES!r}, each at most once",
        )  # fmt: skip

"""How a trained model is applied to a scan."""

from __future__ import annotations

from dataclasses import dataclass

from arco_core.config.errors import require_range


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Prediction of volumes patch by patch; slices are predicted one by one and need no setting."""

    overlap: float = 0.5
    """Share of its sides by which a window overlaps the next; 0.5 means eight windows a voxel in 3D."""

    def __post_init__(self) -> None:
        require_range("inference.overlap", self.overlap, 0.0, 0.95)

"""Which network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from arco_core.config.errors import require, require_in

NETWORKS = {"unet": 2, "vnet": 3}
"""Kinds of networks, and the spatial axes of their images."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The networks of the field's semi-supervised literature: U-Net for slices, V-Net for 3D patches."""

    kind: str = "unet"
    """`unet` (2D) or `vnet` (3D)."""
    features: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Channels of each level, fine to coarse."""
    dropout: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    """One a level, fine to coarse. U-Net: within the encoder's block, single values. V-Net: after the level's
    last block, whole channels; the literature has 0.5 at both ends and 0 between."""

    def __post_init__(self) -> None:
        require_in("network.kind", self.kind, NETWORKS)
        require(
            len(self.features) == len(self.dropout) >= 2,
            "network.dropout", self.dropout, f"needs one value a level of features {self.features}",
        )  # fmt: skip

    @property
    def spatial_axes(self) -> int:
        """2 or 3."""
        return NETWORKS[self.kind]

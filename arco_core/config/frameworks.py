"""The frameworks of stage one, and the settings of those that are not ARCO's own.

Defaults are what each paper and its authors' code have. Sizes that go with the batch or with the encoder
there go with them here; docs/method.md lists sources, and what differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arco_core.config.errors import require, require_range

ARCO = "arco"
FRAMEWORK_NAMES = (ARCO, "moco-v2", "knn-moco", "simclr", "byol", "isd", "vicreg")


def _require_positive(table: str, settings: Any, *keys: str) -> None:
    for key in keys:
        value = getattr(settings, key)
        require(value > 0, f"pretrain.{table}.{key}", value, "must be positive")


@dataclass(frozen=True, kw_only=True)
class MoCoConfig:
    """MoCo v2 (Chen et al., arXiv:2003.04297), and what kNN-MoCo has of it."""

    temperature: float = 0.2
    embedding_dim: int = 128
    ema: float = 0.999
    queue_batches: int = 256
    """Keys of so many batches are kept: as many as in 65 536 keys of batches of 256."""

    def __post_init__(self) -> None:
        _require_positive("moco", self, "temperature", "embedding_dim", "queue_batches")
        require_range("pretrain.moco.ema", self.ema, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class KnnMoCoConfig:
    """What kNN-MoCo (Van Gansbeke et al., NeurIPS 2021) adds to MoCo v2."""

    neighbors: int = 50
    weight: float = 0.4
    """Of the neighbours' term, beside MoCo's own."""

    def __post_init__(self) -> None:
        _require_positive("knn_moco", self, "neighbors", "weight")


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
    """SimCLR (Chen et al., ICML 2020)."""

    temperature: float = 0.1
    embedding_dim: int = 128

    def __post_init__(self) -> None:
        _require_positive("simclr", self, "temperature", "embedding_dim")


@dataclass(frozen=True, kw_only=True)
class BYOLConfig:
    """BYOL (Grill et al., NeurIPS 2020)."""

    hidden_dim: int = 4096
    """Of projector and predictor."""
    embedding_dim: int = 256
    ema: float = 0.996
    """At the start; it rises to 1 along a cosine."""

    def __post_init__(self) -> None:
        _require_positive("byol", self, "hidden_dim", "embedding_dim")
        require_range("pretrain.byol.ema", self.ema, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class ISDConfig:
    """ISD (Tejankar et al., ICCV 2021)."""

    temperature: float = 0.02
    """Of student and teacher."""
    ema: float = 0.999
    queue_batches: int = 500
    """Keys of so many batches are kept: as many as in 128 000 keys of batches of 256."""

    def __post_init__(self) -> None:
        _require_positive("isd", self, "temperature", "queue_batches")
        require_range("pretrain.isd.ema", self.ema, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class VICRegConfig:
    """VICReg (Bardes et al., ICLR 2022)."""

    expander_dim: int = 1024
    """Of each of the expander's three layers: four times the features of the U-Net's encoder, as 8192 are of
    ResNet-50's 2048."""
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("vicreg", self, "expander_dim", "invariance", "variance", "covariance")

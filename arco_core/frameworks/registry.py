"""Frameworks by name."""

from __future__ import annotations

from collections.abc import Mapping

from arco_core.config.errors import require_in
from arco_core.config.frameworks import ARCO
from arco_core.config.schema import ArcoConfig
from arco_core.frameworks.arco import Arco
from arco_core.frameworks.base import Framework
from arco_core.frameworks.byol import BYOL
from arco_core.frameworks.isd import ISD
from arco_core.frameworks.knn_moco import KnnMoCo
from arco_core.frameworks.moco import MoCoV2
from arco_core.frameworks.simclr import SimCLR
from arco_core.frameworks.vicreg import VICReg
from arco_core.peers import Peers

FRAMEWORKS: Mapping[str, type[Framework]] = {
    ARCO: Arco,
    "moco-v2": MoCoV2,
    "knn-moco": KnnMoCo,
    "simclr": SimCLR,
    "byol": BYOL,
    "isd": ISD,
    "vicreg": VICReg,
}
"""What `pretrain.framework` chooses from."""


def make_framework(config: ArcoConfig, peers: Peers, classes: int) -> Framework | None:
    """The framework that `config` names, freshly initialised; None where its terms weigh nothing.

    Raises `ConfigError` for a name that is none of `FRAMEWORKS`.
    """
    settings = config.pretrain
    require_in("pretrain.framework", settings.framework, FRAMEWORKS)
    kind = FRAMEWORKS[settings.framework]
    if not settings.global_weight and not (kind.dense and settings.local_weight):
        return None
    return kind(config, peers, classes)

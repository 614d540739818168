"""The baseline: the same network, augmentation and optimiser on the labelled scans alone."""

from __future__ import annotations

import torch
from torch import Tensor

from arco_core.config.schema import ArcoConfig
from arco_core.networks import PyramidNetwork, build_network
from arco_core.peers import Peers
from arco_core.stages.base import Stage


class SupervisedStage(Stage):
    """Supervised training; it has no teacher."""

    def __init__(self, config: ArcoConfig, peers: Peers, *, channels: int, classes: int) -> None:
        super().__init__(config, peers)
        self.student = build_network(channels, classes, config.network)

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """See `Stage.forward`."""
        return self.labeled_step(self.student, batch, generator)

    def export(self) -> PyramidNetwork:
        """See `Stage.export`."""
        return self.student

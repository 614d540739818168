"""The baseline: the same network, augmentation and optimiser on the labelled scans alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arco_core.config.schema import ArcoConfig
from arco_core.losses import supervised_loss
from arco_core.networks.teacher import make_teacher
from arco_core.networks.unet import UNet
from arco_core.stages.base import Peers, Stage


class SupervisedStage(Stage):
    """Supervised training. Its moving average is what is evaluated, as for the other methods."""

    def __init__(self, config: ArcoConfig, peers: Peers, *, channels: int, classes: int) -> None:
        super().__init__(config, peers)
        self.student = UNet(channels, classes, config.network)
        self.teacher = make_teacher(self.student)

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """See `Stage.forward`."""
        images, labels = self.weak_view(batch["labeled_image"], batch["labeled_label"], generator)
        assert labels is not None
        loss = supervised_loss(self.student(images), labels)
        return {"loss": loss, "supervised": loss.detach()}

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """See `Stage.teacher_of`."""
        return {self.teacher: self.student}

    @property
    def ema(self) -> float:
        """See `Stage.ema`."""
        return self.config.supervised.ema

    def export(self) -> UNet:
        """See `Stage.export`."""
        return self.teacher

"""ISD: student and teacher agree on how an image relates to earlier ones; ARCO's stage one comes from it."""

from __future__ import annotations

from torch import Tensor

from arco_core.config.schema import ArcoConfig
from arco_core.frameworks.base import Framework, Views
from arco_core.frameworks.heads import mlp
from arco_core.losses import relational_loss
from arco_core.peers import Peers


class ISD(Framework):
    """Iterative similarity distillation (Tejankar et al., ICCV 2021, equation 3).

    As in the authors' code there is no projector, and the predictor's layers are as wide as the encoder's
    output.
    """

    def __init__(self, config: ArcoConfig, peers: Peers, classes: int) -> None:
        super().__init__(config, peers, classes)
        self.settings, width = config.pretrain.isd, config.network.features[-1]
        self.predictor = mlp((width, width, width), norm=True)
        self.key_queue = self.queue(self.settings.queue_batches, width)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """See `Framework.forward`."""
        prediction, keys = self.predictor(views.student(0).pooled)[None], views.teacher(1).pooled[None]
        temperature = self.settings.temperature
        loss = relational_loss(prediction, keys, self.key_queue.stored.clone(), temperature, temperature)
        self.push(self.key_queue, keys, views.labeled)
        return {"global": loss}

    def momentum(self, progress: float) -> float:
        """See `Framework.momentum`."""
        return self.settings.ema

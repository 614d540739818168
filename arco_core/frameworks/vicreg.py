"""VICReg: embeddings of two views agree, spread over the batch and do not repeat each other."""

from __future__ import annotations

from torch import Tensor

from arco_core.config.schema import ArcoConfig
from arco_core.frameworks.base import Framework, Views
from arco_core.frameworks.heads import mlp
from arco_core.losses import vicreg_loss
from arco_core.peers import Peers


class VICReg(Framework):
    """Bardes et al., ICLR 2022; no teacher takes part. Variances are those over the images of all workers."""

    def __init__(self, config: ArcoConfig, peers: Peers, classes: int) -> None:
        super().__init__(config, peers, classes)
        self.settings, dim = config.pretrain.vicreg, config.pretrain.vicreg.expander_dim
        self.expander = mlp((config.network.features[-1], dim, dim, dim), norm=True, last_bias=False)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """See `Framework.forward`."""
        settings = self.settings
        first, second = (self.peers.whole(self.expander(views.student(view).pooled)) for view in (0, 1))
        loss = vicreg_loss(
            first,
            second,
            invariance=settings.invariance,
            variance=settings.variance,
            covariance=settings.covariance,
        )
        return {"global": loss}

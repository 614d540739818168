"""SimCLR: two views of an image find each other among the batch's."""

from __future__ import annotations

from torch import Tensor, nn

from arco_core.config.schema import ArcoConfig
from arco_core.frameworks.base import Framework, Views
from arco_core.frameworks.heads import batch_norm, mlp
from arco_core.losses import nt_xent_loss
from arco_core.peers import Peers


class SimCLR(Framework):
    """Chen et al., ICML 2020; no teacher takes part.

    The projector's hidden layer is as wide as the encoder's output, and batch norm follows both layers, as
    in the authors' code. Negatives are the images of all workers.
    """

    def __init__(self, config: ArcoConfig, peers: Peers, classes: int) -> None:
        super().__init__(config, peers, classes)
        self.settings, width = config.pretrain.simclr, config.network.features[-1]
        dim = self.settings.embedding_dim
        self.projector = nn.Sequential(*mlp((width, width, dim), norm=True, last_bias=False), batch_norm(dim))

    def forward(self, views: Views) -> dict[str, Tensor]:
        """See `Framework.forward`."""
        first, second = (self.peers.whole(self.projector(views.student(view).pooled)) for view in (0, 1))
        return {"global": nt_xent_loss(first, second, self.settings.temperature)}

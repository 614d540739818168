"""kNN-MoCo: MoCo v2, and a query finds its nearest neighbours' keys, too."""

from __future__ import annotations

from torch import Tensor

from arco_core.config.schema import ArcoConfig
from arco_core.frameworks.base import Views
from arco_core.frameworks.moco import MoCoV2
from arco_core.losses import info_nce_loss, neighbor_nce_loss
from arco_core.peers import Peers


class KnnMoCo(MoCoV2):
    """Van Gansbeke et al., NeurIPS 2021, section 4.3; neighbours are those of the encoder's features."""

    def __init__(self, config: ArcoConfig, peers: Peers, classes: int) -> None:
        super().__init__(config, peers, classes)
        self.neighbors = config.pretrain.knn_moco
        self.feature_queue = self.queue(self.settings.queue_batches, config.network.features[-1])

    def forward(self, views: Views) -> dict[str, Tensor]:
        """See `Framework.forward`."""
        queries, keys = self._embed(views)
        stored, count = self._stored()
        temperature = self.settings.temperature
        loss = info_nce_loss(queries, keys, stored, count, temperature)
        near = neighbor_nce_loss(
            queries,
            views.student(0).pooled,
            stored,
            self.feature_queue.stored[0],
            count,
            self.neighbors.neighbors,
            temperature,
        )
        self.push(self.key_queue, keys[None], views.labeled)
        self.push(self.feature_queue, views.teacher(1).pooled[None], views.labeled)
        return {"global": loss + self.neighbors.weight * near}

"""MoCo v2: a query finds its own key among those of earlier images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arco_core.config.schema import ArcoConfig
from arco_core.frameworks.base import Framework, Views
from arco_core.frameworks.heads import mlp
from arco_core.losses import info_nce_loss
from arco_core.networks.teacher import make_teacher
from arco_core.peers import Peers


class MoCoV2(Framework):
    """Momentum contrast (He et al., CVPR 2020) with a two-layer projector (Chen et al., arXiv:2003.04297).

    The hidden layer is as wide as the encoder's output, there and here.
    """

    def __init__(self, config: ArcoConfig, peers: Peers, classes: int) -> None:
        super().__init__(config, peers, classes)
        self.settings, width = config.pretrain.moco, config.network.features[-1]
        self.student_projector = mlp((width, width, self.settings.embedding_dim))
        self.teacher_projector = make_teacher(self.student_projector)
        self.key_queue = self.queue(self.settings.queue_batches, self.settings.embedding_dim)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """See `Framework.forward`."""
        queries, keys = self._embed(views)
        loss = info_nce_loss(queries, keys, *self._stored(), self.settings.temperature)
        self.push(self.key_queue, keys[None], views.labeled)
        return {"global": loss}

    def _embed(self, views: Views) -> tuple[Tensor, Tensor]:
        """Queries of view 0 and keys of view 1, (B, D) each."""
        queries = self.student_projector(views.student(0).pooled)
        with torch.no_grad():
            return queries, self.teacher_projector(views.teacher(1).pooled)

    def _stored(self) -> tuple[Tensor, Tensor]:
        """The queue's keys and their number, as they are before this step's are pushed."""
        return self.key_queue.stored[0].clone(), self.key_queue.count[0].clone()

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """See `Framework.teacher_of`."""
        return {self.teacher_projector: self.student_projector}

    def momentum(self, progress: float) -> float:
        """See `Framework.momentum`."""
        return self.settings.ema

"""BYOL: from one view the student predicts what the teacher makes of the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from arco_core.config.schema import ArcoConfig
from arco_core.frameworks.base import Framework, Views
from arco_core.frameworks.heads import mlp
from arco_core.losses import regression_loss
from arco_core.networks.teacher import make_teacher
from arco_core.peers import Peers


class BYOL(Framework):
    """Grill et al., NeurIPS 2020: the loss of equation 2, and that of exchanged views."""

    def __init__(self, config: ArcoConfig, peers: Peers, classes: int) -> None:
        super().__init__(config, peers, classes)
        self.settings, width = config.pretrain.byol, config.network.features[-1]
        hidden, dim = self.settings.hidden_dim, self.settings.embedding_dim
        self.student_projector = mlp((width, hidden, dim), norm=True)
        self.predictor = mlp((dim, hidden, dim), norm=True)
        self.teacher_projector = make_teacher(self.student_projector)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """See `Framework.forward`."""
        return {"global": self._term(views, 0, 1) + self._term(views, 1, 0)}

    def _term(self, views: Views, online: int, target: int) -> Tensor:
        prediction = self.predictor(self.student_projector(views.student(online).pooled))
        with torch.no_grad():
            wanted = self.teacher_projector(views.teacher(target).pooled)
        return regression_loss(prediction, wanted)

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """See `Framework.teacher_of`."""
        return {self.teacher_projector: self.student_projector}

    def momentum(self, progress: float) -> float:
        """1 - (1 - τ) (cos πk/K + 1) / 2 (section 3.2, and its implementation details)."""
        return 1.0 - (1.0 - self.settings.ema) * (math.cos(math.pi * min(progress, 1.0)) + 1.0) / 2.0

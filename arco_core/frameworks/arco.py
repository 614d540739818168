"""ARCO's own framework: relational distillation of images and of their windows (METHOD section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arco_core.banks import Bank
from arco_core.config.schema import ArcoConfig, PretrainConfig
from arco_core.frameworks.base import Features, Framework, Views
from arco_core.losses import relational_loss
from arco_core.networks.teacher import make_teacher
from arco_core.peers import Peers

_CELLS = 32  # the output map is pooled to 32 cells an axis …
_WINDOW, _STRIDE = 8, 4  # … and local windows are 8 cells wide, 4 apart: 64 and 32 pixels at 256 x 256


def _mlp(sizes: tuple[int, int, int], linear: bool) -> nn.Sequential:
    between = nn.Identity() if linear else nn.ReLU()
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), between, nn.Linear(sizes[1], sizes[2]))


def _projectors(bottleneck: int, classes: int, settings: PretrainConfig, linear: bool) -> nn.ModuleDict:
    """Two-layer projectors, non-linear unless told otherwise, of the terms that have a weight.

    `global_` acts on the mean bottleneck, `local` on each cell's K mean logits; a window's embedding is all
    of its cells.
    """
    projectors = nn.ModuleDict()
    if settings.global_weight:
        projectors["global_"] = _mlp((bottleneck, settings.embedding_dim, settings.embedding_dim), linear)
    if settings.local_weight:
        projectors["local"] = _mlp((classes, 2 * classes, classes), linear)
    return projectors


def _cells(logits: Tensor) -> Tensor:
    """Mean logits (cells, …, B, K) of each cell of the output map (B, K, *S)."""
    pool = F.adaptive_avg_pool2d if logits.ndim == 4 else F.adaptive_avg_pool3d
    return pool(logits, _CELLS).permute(*range(2, logits.ndim), 0, 1)


def _windows(cells: Tensor) -> Tensor:
    """Cut cell embeddings (cells, …, B, K) into windows (R, B, K · 8 · 8 …)."""
    axes = cells.ndim - 2
    for axis in range(axes):
        cells = cells.unfold(axis, _WINDOW, _STRIDE)
    return cells.flatten(0, axes - 1).flatten(2)


class Arco(Framework):
    """Student and teacher agree on how an image, and each window of it, relates to mined views.

    You et al., NeurIPS 2023, E.1.
    """

    dense = True

    def __init__(self, config: ArcoConfig, peers: Peers, classes: int) -> None:
        super().__init__(config, peers, classes)
        settings, linear = self.settings, config.released.linear_projectors
        self.student_projector = _projectors(config.network.features[-1], classes, settings, linear)
        if settings.global_weight:
            self.global_predictor = _mlp((settings.embedding_dim,) * 3, linear)
        if settings.local_weight:
            self.local_predictor = _mlp((classes,) * 3, linear)
        self.teacher_projector = make_teacher(self.student_projector)
        if settings.global_weight:
            self.global_bank = Bank(1, settings.bank_size, settings.embedding_dim)
        if settings.local_weight:
            axes = config.network.spatial_axes
            windows = ((_CELLS - _WINDOW) // _STRIDE + 1) ** axes
            self.local_bank = Bank(windows, settings.bank_size, classes * _WINDOW**axes)

    @property
    def settings(self) -> PretrainConfig:
        """This framework's part of the configuration."""
        return self.config.pretrain

    def forward(self, views: Views) -> dict[str, Tensor]:
        """See `Framework.forward`."""
        student, teacher = views.student(0), views.teacher(1)
        compared: dict[str, tuple[Tensor, Tensor, Bank]] = {}
        if self.settings.global_weight:
            compared["global"] = (*self._global(student, teacher), self.global_bank)
        if self.settings.local_weight:
            compared["local"] = (*self._local(student, teacher), self.local_bank)
        temperatures = (self.settings.student_temperature, self.settings.teacher_temperature)
        losses = {}
        for name, (embedding, target, bank) in compared.items():
            losses[name] = relational_loss(embedding, target, bank.stored.clone(), *temperatures)
            bank.push(self.gathered(target, views.labeled)[:, -self.settings.fresh_keys :])
        return losses

    def _global(self, student: Features, teacher: Features) -> tuple[Tensor, Tensor]:
        """Embeddings (1, B, D) of whole images, by both networks."""
        embedding = self.global_predictor(self.student_projector["global_"](student.pooled[None]))
        with torch.no_grad():
            target = self.teacher_projector["global_"](teacher.pooled[None])
        return embedding, target

    def _local(self, student: Features, teacher: Features) -> tuple[Tensor, Tensor]:
        """Embeddings (R, B, D) of the windows, by both networks."""
        cells = self.student_projector["local"](_cells(student.logits))
        embedding = _windows(self.local_predictor(cells))
        with torch.no_grad():
            target = _windows(self.teacher_projector["local"](_cells(teacher.logits)))
        return embedding, target

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """See `Framework.teacher_of`."""
        return {self.teacher_projector: self.student_projector}

"""Stage one: relational semi-supervised pre-training (METHOD section 2; You et al. 2023, E.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arco_core.augment import jitter
from arco_core.banks import Bank
from arco_core.config.schema import ArcoConfig, PretrainConfig
from arco_core.losses import relational_loss, supervised_loss
from arco_core.networks.teacher import make_teacher
from arco_core.networks.unet import UNet
from arco_core.stages.base import Peers, Stage

_CELLS = 32  # the output map is pooled to 32 x 32 cells …
_WINDOW, _STRIDE = 8, 4  # … and local windows are 8 x 8 cells, 4 apart: 64 and 32 pixels at 256 x 256


def _mlp(sizes: tuple[int, int, int]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[2]))


class _Projector(nn.Module):
    """Two-layer non-linear projectors of the bottleneck (global) and of windows of the output (local).

    The local projector acts on each cell's K mean logits; a window's embedding is all of its cells.
    """

    def __init__(self, bottleneck: int, classes: int, dim: int) -> None:
        super().__init__()
        self.global_ = _mlp((bottleneck, dim, dim))
        self.local = _mlp((classes, 2 * classes, classes))

    def forward(self, logits: Tensor, bottleneck: Tensor) -> tuple[Tensor, Tensor]:
        """Global (1, B, D) and local (cells, cells, B, K) embeddings."""
        pooled = F.adaptive_avg_pool2d(logits, _CELLS).permute(2, 3, 0, 1)
        return self.global_(bottleneck.mean((2, 3)))[None], self.local(pooled)


def _windows(cells: Tensor) -> Tensor:
    """Cut cell embeddings (cells, cells, B, K) into windows (R, B, K · 8 · 8)."""
    windows = cells.unfold(0, _WINDOW, _STRIDE).unfold(1, _WINDOW, _STRIDE)
    return windows.flatten(0, 1).flatten(2)


class PretrainStage(Stage):
    """Student and EMA teacher agree on how an image, and each window of it, relates to mined views."""

    def __init__(self, config: ArcoConfig, peers: Peers, *, channels: int, classes: int) -> None:
        super().__init__(config, peers)
        settings = self.settings
        self.student = UNet(channels, classes, config.network)
        bottleneck = config.network.features[-1]
        self.student_projector = _Projector(bottleneck, classes, settings.embedding_dim)
        self.global_predictor = _mlp((settings.embedding_dim,) * 3)
        self.local_predictor = _mlp((classes,) * 3)
        self.teacher = make_teacher(self.student)
        self.teacher_projector = make_teacher(self.student_projector)
        windows = ((_CELLS - _WINDOW) // _STRIDE + 1) ** 2
        self.global_bank = Bank(1, settings.bank_size, settings.embedding_dim)
        self.local_bank = Bank(windows, settings.bank_size, classes * _WINDOW**2)

    @property
    def settings(self) -> PretrainConfig:
        """This stage's part of the configuration."""
        return self.config.pretrain

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """See `Stage.forward`."""
        labeled, labels = self.weak_view(batch["labeled_image"], generator, batch["labeled_label"])
        unlabeled = self.weak_image(batch["unlabeled_image"], generator)
        images = torch.cat([labeled, unlabeled])
        # As in stage two and in the baseline, labels are learnt from the weak view.
        student_view = torch.cat([labeled, jitter(unlabeled, self.config.augment, generator)])
        logits, pyramid = self.student.forward_pyramid(student_view)
        supervised = supervised_loss(logits[: len(labels)], labels)
        global_loss, local_loss = self._relational(images, logits, pyramid[0], generator)
        weighted = self.settings.global_weight * global_loss + self.settings.local_weight * local_loss
        terms = {"supervised": supervised, "global": global_loss, "local": local_loss}
        return {"loss": supervised + weighted, **{k: v.detach() for k, v in terms.items()}}

    def _relational(
        self, images: Tensor, logits: Tensor, bottleneck: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Global and local L_inst; pushes fresh teacher embeddings into the banks."""
        with torch.no_grad():
            view = jitter(images, self.config.augment, generator)
            teacher_logits, teacher_pyramid = self.teacher.forward_pyramid(view)
            teacher_global, teacher_cells = self.teacher_projector(teacher_logits, teacher_pyramid[0])
            teacher_local = _windows(teacher_cells)
        student_global, student_cells = self.student_projector(logits, bottleneck)
        student_global = self.global_predictor(student_global)
        student_local = _windows(self.local_predictor(student_cells))
        temperatures = (self.settings.student_temperature, self.settings.teacher_temperature)
        losses = (
            relational_loss(student_global, teacher_global, self.global_bank.stored.clone(), *temperatures),
            relational_loss(student_local, teacher_local, self.local_bank.stored.clone(), *temperatures),
        )
        self._push(self.global_bank, teacher_global)
        self._push(self.local_bank, teacher_local)
        return losses

    def _push(self, bank: Bank, embeddings: Tensor) -> None:
        fresh = self.peers.gather(embeddings.transpose(0, 1).contiguous())
        bank.push(fresh[-self.settings.fresh_keys :].transpose(0, 1))

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """See `Stage.teacher_of`."""
        return {self.teacher: self.student, self.teacher_projector: self.student_projector}

    @property
    def ema(self) -> float:
        """See `Stage.ema`."""
        return self.settings.ema

    def export(self) -> UNet:
        """See `Stage.export`."""
        return self.student

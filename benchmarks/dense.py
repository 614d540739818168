"""The reference of `benchmarks/step.py`: a fine-tuning step in the dense formulation of the authors' code.

Representations of D = 496 channels are built at every pixel of every image at full resolution, for the
student, for the teacher and for a third pass that nothing uses; classes are looped over; keys are
gathered by boolean masks into banks of 30 000; L_nn compares whole maps with a bank of 36 maps. Images,
U-Net, augmentation and warps are this project's own, so that only the formulation differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arco_core.augment import warp
from arco_core.config import ArcoConfig
from arco_core.losses import equivariance_loss, supervised_loss, unsupervised_loss
from arco_core.representation import PyramidHead
from arco_core.stages import ALONE
from arco_core.stages.finetune import FinetuneStage

BANK = 30_000


def _conv(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return F.conv2d(x, layer.weight[:, :, None, None])


def dense_representation(head: PyramidHead, pyramid: Sequence[Tensor]) -> Tensor:
    """(B, D, H, W) representation of every pixel."""
    x = pyramid[0]
    for level, finer in zip(head.levels[:-1], pyramid[1:], strict=True):
        x = F.interpolate(x + _conv(level, x), size=finer.shape[2:], mode="bilinear", align_corners=True)
        x = torch.cat([x, finer], dim=1)
    x = _conv(head.levels[-1], x)
    for layer in head.predictor:
        x = _conv(layer, x)
    return x


class DenseContrast:
    """The contrastive term over dense maps, one class after the other."""

    def __init__(self, config: ArcoConfig, classes: int, dim: int) -> None:
        self.config = config.finetune
        self.bank = [torch.zeros(0, dim) for _ in range(classes)]  # moves to the keys' device with the first

    def __call__(
        self, student: Tensor, teacher: Tensor, labels: Tensor, confidence: Tensor, probability: Tensor
    ) -> Tensor:
        """Representations (B, D, H, W), labels and confidence (B, H, W), teacher's softmax (B, K, H, W)."""
        config = self.config.contrast
        student, teacher = student.permute(0, 2, 3, 1), teacher.permute(0, 2, 3, 1)
        members = [(labels == c) & (confidence >= self.config.weak_threshold) for c in range(len(self.bank))]
        for c, member in enumerate(members):
            fresh = teacher[~member & (probability[:, c] < 1.0)]
            self.bank[c] = torch.cat([self.bank[c].to(fresh.device), fresh])[-BANK:]
        loss, taking_part = student.new_zeros(()), 0
        for c, member in enumerate(members):
            hard = student[member & (probability[:, c] > config.query_threshold)]
            if not len(hard) or not len(self.bank[c]):
                continue
            positive = teacher[member].mean(0, keepdim=True)
            query = hard[torch.randint(len(hard), (config.queries,), device=hard.device)]
            drawn = (config.queries * config.negatives,)
            pick = torch.randint(len(self.bank[c]), drawn, device=hard.device)
            negative = self.bank[c][pick].view(config.queries, config.negatives, -1)
            keys = torch.cat([positive.expand(config.queries, -1)[:, None], negative], dim=1)
            logits = torch.cosine_similarity(query[:, None], keys, dim=2) / config.temperature
            loss = loss + F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))
            taking_part += 1
        return loss / max(taking_part, 1)


class DenseStage(FinetuneStage):
    """A fine-tuning step whose heads work on whole maps."""

    map_bank: Tensor

    def __init__(self, config: ArcoConfig, *, channels: int, classes: int, size: int) -> None:
        super().__init__(config, ALONE, channels=channels, classes=classes)
        dim = self.student_head.dim
        self.dense_contrast = DenseContrast(config, classes, dim)
        pool = torch.randn(self.settings.neighbor_bank, dim * size * size)
        self.register_buffer("map_bank", F.normalize(pool, dim=1))
        self.pointer = 0

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """As `FinetuneStage.forward`."""
        weights = self.settings.weights
        views = self._views(batch, generator)
        n = views.labeled
        logits, pyramid = self.passes(self.student, views.images)
        with torch.no_grad():
            teacher_logits, teacher_pyramid = self.passes(self.teacher, views.images)
            teacher = dense_representation(self.teacher_head, teacher_pyramid)
        unused = dense_representation(self.student_head, self.passes(self.student, views.images[:n])[1])
        del unused
        student = dense_representation(self.student_head, pyramid)
        contrast = self.dense_contrast(
            student, teacher, views.labels, views.confidence, teacher_logits.softmax(1)
        )
        neighbors = self._map_neighbors(student[n:], teacher[n:])
        loss = (
            supervised_loss(logits[:n], views.labels[:n])
            + weights.unsupervised
            * unsupervised_loss(logits[n:], views.labels[n:], views.confidence[n:], 0.97)
            + weights.contrast * contrast
            + weights.neighbors * neighbors
        )
        grid = self.random_warp.grid(len(logits), (logits.shape[2], logits.shape[3]), generator)
        weight = warp((views.labels > 0)[:, None].to(logits.dtype), grid)[:, 0]
        warped = self.passes.logits(self.student, warp(views.images, grid))
        loss = loss + weights.equivariance * equivariance_loss(warped, warp(logits.detach(), grid), weight)
        return {"loss": loss}

    def _map_neighbors(self, student: Tensor, teacher: Tensor) -> Tensor:
        with torch.no_grad():
            flat = [F.normalize(t.flatten(1), dim=1) for t in (student, teacher)]
            distance = [2 - 2 * f @ self.map_bank.T for f in flat]
            nearest = distance[0].topk(self.settings.neighbors, dim=1, largest=False).indices
            self.map_bank[self.pointer : self.pointer + len(teacher)] = flat[1]
            self.pointer = (self.pointer + len(teacher)) % len(self.map_bank)
            return distance[1].gather(1, nearest).mean()

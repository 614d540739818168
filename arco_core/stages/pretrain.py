"""Stage one: relational semi-supervised pre-training (METHOD section 2; You et al. 2023, E.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arco_core.augment import jitter
from arco_core.banks import Bank
from arco_core.config.schema import ArcoConfig, PretrainConfig
from arco_core.losses import relational_loss, supervised_loss
from arco_core.networks import PyramidNetwork, build_network
from arco_core.networks.teacher import make_teacher
from arco_core.stages.base import Peers, Stage

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


def _mean(features: Tensor) -> Tensor:
    """(B, C): mean of a map (B, C, *s)."""
    return features.mean(tuple(range(2, features.ndim)))


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


class PretrainStage(Stage):
    """Student and EMA teacher agree on how an image, and each window of it, relates to mined views.

    A weight of 0 leaves out its term, projector, predictor and bank.
    """

    def __init__(self, config: ArcoConfig, peers: Peers, *, channels: int, classes: int) -> None:
        super().__init__(config, peers)
        settings, linear = self.settings, config.released.linear_projectors
        self.student = build_network(channels, classes, config.network)
        self.student_projector = _projectors(config.network.features[-1], classes, settings, linear)
        if settings.global_weight:
            self.global_predictor = _mlp((settings.embedding_dim,) * 3, linear)
        if settings.local_weight:
            self.local_predictor = _mlp((classes,) * 3, linear)
        self.teacher = make_teacher(self.student)
        self.teacher_projector = make_teacher(self.student_projector)
        if settings.global_weight:
            self.global_bank = Bank(1, settings.bank_size, settings.embedding_dim)
        if settings.local_weight:
            axes = config.network.spatial_axes
            windows = ((_CELLS - _WINDOW) // _STRIDE + 1) ** axes
            self.local_bank = Bank(windows, settings.bank_size, classes * _WINDOW**axes)

    @property
    def settings(self) -> PretrainConfig:
        """This stage's part of the configuration."""
        return self.config.pretrain

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """See `Stage.forward`."""
        weights = {"global": self.settings.global_weight, "local": self.settings.local_weight}
        if not any(weights.values()):
            return self.labeled_step(self.student, batch, generator, self.settings.supervised_weight)
        labeled, labels = self.weak_view(batch["labeled_image"], generator, batch["labeled_label"])
        unlabeled = self.weak_image(batch["unlabeled_image"], generator)
        images = torch.cat([labeled, unlabeled])
        # As in stage two and in the baseline, labels are learnt from the weak view.
        student_view = torch.cat([labeled, jitter(unlabeled, self.config.augment, generator)])
        logits, pyramid = self.passes(self.student, student_view)
        supervised = supervised_loss(logits[: len(labels)], labels)
        relational = self._relational(images, len(labels), logits, pyramid[0], generator)
        loss = self.settings.supervised_weight * supervised
        loss = loss + sum(weights[name] * term for name, term in relational.items())
        terms = {"supervised": supervised, **relational}
        return {"loss": loss, **{k: v.detach() for k, v in terms.items()}}

    def _relational(
        self, images: Tensor, labeled: int, logits: Tensor, bottleneck: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """`global` and `local` L_inst, where they have a weight; feeds their banks."""
        with torch.no_grad():
            view = jitter(images, self.config.augment, generator)
            teacher_logits, teacher_pyramid = self.passes(self.teacher, view)
        compared: dict[str, tuple[Tensor, Tensor, Bank]] = {}
        if self.settings.global_weight:
            compared["global"] = (*self._global(bottleneck, teacher_pyramid[0]), self.global_bank)
        if self.settings.local_weight:
            compared["local"] = (*self._local(logits, teacher_logits), self.local_bank)
        temperatures = (self.settings.student_temperature, self.settings.teacher_temperature)
        losses = {}
        for name, (embedding, target, bank) in compared.items():
            losses[name] = relational_loss(embedding, target, bank.stored.clone(), *temperatures)
            self._push(bank, target, labeled)
        return losses

    def _global(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (1, B, D) of whole images, from the bottlenecks (B, C, *s) of both networks."""
        embedding = self.global_predictor(self.student_projector["global_"](_mean(student)[None]))
        with torch.no_grad():
            target = self.teacher_projector["global_"](_mean(teacher)[None])
        return embedding, target

    def _local(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (R, B, D) of the windows of the logits (B, K, *S) of both networks."""
        embedding = _windows(self.local_predictor(self.student_projector["local"](_cells(student))))
        with torch.no_grad():
            target = _windows(self.teacher_projector["local"](_cells(teacher)))
        return embedding, target

    def _push(self, bank: Bank, embeddings: Tensor, labeled: int) -> None:
        """Append the last of all workers' embeddings (R, B, D), the labelled images' before the others'.

        So the keys are those of one worker with the whole batch.
        """
        workers = self.peers.gather(embeddings.transpose(0, 1).contiguous()).chunk(self.peers.gathered)
        fresh = torch.cat([part[:labeled] for part in workers] + [part[labeled:] for part in workers])
        bank.push(fresh[-self.settings.fresh_keys :].transpose(0, 1))

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """See `Stage.teacher_of`."""
        pairs: dict[nn.Module, nn.Module] = {self.teacher: self.student}
        if len(self.student_projector):
            pairs[self.teacher_projector] = self.student_projector
        return pairs

    @property
    def ema(self) -> float:
        """See `Stage.ema`."""
        return self.settings.ema

    def export(self) -> PyramidNetwork:
        """See `Stage.export`."""
        return self.student

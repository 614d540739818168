"""Stage two: anatomical contrastive fine-tuning (METHOD section 3; You et al. 2023, E.2, E.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arco_core.augment import RandomWarp, jitter, mix, warp
from arco_core.banks import Bank
from arco_core.config.schema import ArcoConfig, FinetuneConfig
from arco_core.losses import (
    equivariance_loss,
    neighbor_loss,
    released_neighbor_loss,
    supervised_loss,
    unsupervised_loss,
)
from arco_core.networks import PyramidNetwork, build_network
from arco_core.networks.teacher import make_teacher
from arco_core.peers import Peers
from arco_core.representation import PyramidHead, image_mean, project
from arco_core.stages.base import Stage
from arco_core.stages.contrast import Contrast
from arco_core.stages.released import StarvingContrast, entropy_levels


@dataclass(frozen=True, kw_only=True)
class _Views:
    """The student's images of a step (labelled ones first) and what is known of their pixels."""

    images: Tensor
    """(B, C, *S)"""
    labels: Tensor
    """(B, *S) int64: labels, then pseudo-labels."""
    confidence: Tensor
    """(B, *S): 1 on labelled images, then the teacher's largest probability."""
    labeled: int
    """How many of the B images are labelled."""


class FinetuneStage(Stage):
    """ARCO. A weight of 0 leaves out its term and all it costs.

    All but `unsupervised` 0 is mean teacher; all 0 is supervised learning, from stage one's weights.
    """

    def __init__(self, config: ArcoConfig, peers: Peers, *, channels: int, classes: int) -> None:
        super().__init__(config, peers)
        settings = self.settings
        self.student = build_network(channels, classes, config.network)
        self.teacher = make_teacher(self.student)
        if settings.weights.contrast or settings.weights.neighbors:
            widths, identity = self.student.pyramid_channels, not config.released.random_heads
            self.student_head = PyramidHead(widths, predictor=True, identity=identity)
            self.teacher_head = make_teacher(PyramidHead(widths, predictor=False))
            self.teacher_head.levels.load_state_dict(self.student_head.levels.state_dict())
        if settings.weights.contrast:
            dim = self.student_head.dim
            self.class_bank = Bank(classes, settings.contrast.bank_size, dim)
            kind = StarvingContrast if config.released.starving_banks else Contrast
            self.contrast = kind(settings.contrast, self.class_bank, peers, settings.weak_threshold)
        if settings.weights.neighbors:
            self.image_bank = Bank(1, settings.neighbor_bank, self.student_head.dim)
        self.random_warp = RandomWarp()

    @property
    def settings(self) -> FinetuneConfig:
        """This stage's part of the configuration."""
        return self.config.finetune

    def load_pretrained(self, stage_one: dict[str, Any]) -> None:
        """See `Stage.load_pretrained`: student into student, teacher into teacher."""
        released = self.config.released.teacher_from_student
        for source, module in (
            ("student", self.student),
            ("student" if released else "teacher", self.teacher),
        ):
            prefix = f"{source}."
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in stage_one.items() if k.startswith(prefix)}
            )
        if not released:
            self.set_extra_state(stage_one["_extra_state"])

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """See `Stage.forward`."""
        weights = self.settings.weights
        if weights.all_off:
            return self.labeled_step(self.student, batch, generator, weights.supervised)
        views = self._views(batch, generator)
        logits, pyramid = self.passes(self.student, views.images)
        n = views.labeled
        terms = {"supervised": supervised_loss(logits[:n], views.labels[:n])}
        if weights.unsupervised:
            terms["unsupervised"] = unsupervised_loss(
                logits[n:], views.labels[n:], views.confidence[n:], self.settings.strong_threshold
            )
        statistics = self._confidence(views.confidence[n:])
        if weights.contrast or weights.neighbors:
            more, drawn = self._representation_terms(views, logits, pyramid, generator)
            terms, statistics = terms | more, statistics | drawn
        if weights.equivariance:
            terms["equivariance"] = self._equivariance(views, logits, generator)
        weighted = (getattr(weights, name) * term for name, term in terms.items())
        loss = sum(weighted, start=logits.new_zeros(()))
        return {"loss": loss, **{k: v.detach() for k, v in terms.items()}, **statistics}

    def _confidence(self, confidence: Tensor) -> dict[str, Tensor]:
        """Shares of unlabelled pixels that count for L_unsup, and that carry their pseudo-label."""
        settings = self.settings
        thresholds = {"confident": settings.strong_threshold, "pseudo_labeled": settings.weak_threshold}
        return {name: (confidence >= least).float().mean() for name, least in thresholds.items()}

    def _representation_terms(
        self, views: _Views, logits: Tensor, pyramid: Sequence[Tensor], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`contrast` and `neighbors`, where they have a weight, and statistics; feeds their banks."""
        weights, n = self.settings.weights, views.labeled
        matrix = self.student_head.matrix()
        with torch.no_grad():
            teacher_logits, teacher_pyramid = self.passes(self.teacher, views.images)
            teacher_matrix = self.teacher_head.matrix()
        terms, statistics = {}, {}
        if weights.contrast:
            confidence = views.confidence
            if self.config.released.starving_banks:
                confidence = entropy_levels(logits.detach(), n, self.teacher_updates / self.settings.steps)
            contrast = self.contrast(
                labels=views.labels,
                confidence=confidence,
                teacher_probability=teacher_logits.softmax(1),
                student=(pyramid, matrix),
                teacher=(teacher_pyramid, teacher_matrix),
                generator=generator,
            )
            terms["contrast"], statistics = contrast.loss, contrast.statistics
        if weights.neighbors:
            terms["neighbors"] = self._neighbors(
                project(image_mean([p[n:] for p in pyramid]), matrix),
                project(image_mean([p[n:] for p in teacher_pyramid]), teacher_matrix),
            )
        return terms, statistics

    def _views(self, batch: dict[str, Tensor], generator: torch.Generator) -> _Views:
        labeled, labels = self.weak_view(batch["labeled_image"], generator, batch["labeled_label"])
        weak = self.weak_image(batch["unlabeled_image"], generator)
        with torch.no_grad():
            confidence, pseudo = self.passes.logits(self.teacher, weak).softmax(1).max(1)
        strong = jitter(weak, self.config.augment, generator)
        classes = self.student.classes
        strong, pseudo, confidence = mix(
            self.settings.mix, strong, pseudo, confidence, classes=classes, generator=generator
        )
        return _Views(
            images=torch.cat([labeled, strong]),
            labels=torch.cat([labels, pseudo]),
            confidence=torch.cat([torch.ones_like(labels, dtype=confidence.dtype), confidence]),
            labeled=len(labels),
        )

    def _neighbors(self, student: Tensor, teacher: Tensor) -> Tensor:
        """L_nn of the unlabelled images' representations (U, D); pushes the teacher's into the bank."""
        bank = self.image_bank
        filled = bank.stored[0].clone(), bank.count[0].clone(), self.settings.neighbors
        if self.config.released.neighbors_without_gradient:
            loss = released_neighbor_loss(student, teacher, *filled)
        else:
            loss = neighbor_loss(student, *filled)
        bank.push(self.peers.gather(teacher)[None, -bank.size :])
        return loss

    def _equivariance(self, views: _Views, logits: Tensor, generator: torch.Generator) -> Tensor:
        size = (logits.shape[2], logits.shape[3])
        grid = self.random_warp.grid(len(logits), size, generator)
        sure = (views.labels > 0) & (views.confidence >= self.settings.weak_threshold)
        weight = warp(sure[:, None].to(logits.dtype), grid)[:, 0]
        prediction = self.passes.logits(self.student, warp(views.images, grid))
        return equivariance_loss(prediction, warp(logits.detach(), grid), weight)

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """See `Stage.teacher_of`."""
        pairs: dict[nn.Module, nn.Module] = {self.teacher: self.student}
        if hasattr(self, "teacher_head"):
            # The student's predictor has no counterpart in the teacher.
            pairs[self.teacher_head.levels] = self.student_head.levels
        return pairs

    @property
    def ema(self) -> float:
        """See `Stage.ema`."""
        return self.settings.ema

    def export(self) -> PyramidNetwork:
        """See `Stage.export`."""
        return self.student

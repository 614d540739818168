"""Stage one: semi-supervised pre-training (METHOD sections 2 and 6; You et al. 2023, E.1 and Table 8)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from arco_core.augment import jitter
from arco_core.config.schema import ArcoConfig, PretrainConfig
from arco_core.frameworks import Features, Views, make_framework
from arco_core.losses import supervised_loss
from arco_core.networks import PyramidNetwork, build_network
from arco_core.networks.teacher import make_teacher
from arco_core.peers import Peers
from arco_core.stages.base import Stage


class PretrainStage(Stage):
    """Labelled images teach the student what they show, and all images what `pretrain.framework` asks.

    The teacher follows the student whether the framework has a use for it or not: stage two has one.
    """

    def __init__(self, config: ArcoConfig, peers: Peers, *, channels: int, classes: int) -> None:
        super().__init__(config, peers)
        self.student = build_network(channels, classes, config.network)
        self.framework = make_framework(config, peers, classes)
        self.teacher = make_teacher(self.student)

    @property
    def settings(self) -> PretrainConfig:
        """This stage's part of the configuration."""
        return self.config.pretrain

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """See `Stage.forward`."""
        settings, framework = self.settings, self.framework
        if framework is None:
            return self.labeled_step(self.student, batch, generator, settings.supervised_weight)
        labeled, labels = self.weak_view(batch["labeled_image"], generator, batch["labeled_label"])
        unlabeled = self.weak_image(batch["unlabeled_image"], generator)
        # As in stage two and in the baseline, labels are learnt from the weak view.
        first = torch.cat([labeled, jitter(unlabeled, self.config.augment, generator)])
        if framework.dense:
            images = torch.cat([labeled, unlabeled])
        else:
            raw = torch.cat([batch["labeled_image"], batch["unlabeled_image"]])
            images = self.weak_image(raw, generator)
        second = jitter(images, self.config.augment, generator)
        n = len(labels)
        passes = partial(self._features, self.student), partial(self._features, self.teacher)
        views = Views((first, second), n, *passes)
        supervised = supervised_loss(views.student(0).logits[:n], labels)
        terms = framework(views)
        weights = {"global": settings.global_weight, "local": settings.local_weight}
        loss = settings.supervised_weight * supervised
        loss = loss + sum(weights[name] * term for name, term in terms.items())
        terms = {"supervised": supervised, **terms}
        return {"loss": loss, **{k: v.detach() for k, v in terms.items()}}

    def _features(self, network: PyramidNetwork, images: Tensor) -> Features:
        logits, pyramid = self.passes(network, images)
        return Features(logits, pyramid[0])

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """See `Stage.teacher_of`."""
        heads = self.framework.teacher_of() if self.framework else {}
        return {self.teacher: self.student, **heads}

    @property
    def ema(self) -> float:
        """See `Stage.ema`."""
        if self.framework is None:
            return self.settings.ema
        return self.framework.momentum(self.teacher_updates / max(self.settings.steps, 1))

    def export(self) -> PyramidNetwork:
        """See `Stage.export`."""
        return self.student

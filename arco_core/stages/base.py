"""The interface of a training stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from arco_core.augment import random_affine, warp
from arco_core.config.schema import ArcoConfig
from arco_core.losses import supervised_loss
from arco_core.networks import PyramidNetwork
from arco_core.networks.teacher import ema_update, teach
from arco_core.peers import Peers
from arco_core.stages.passes import Passes

STATISTICS = frozenset({"confident", "pseudo_labeled", "candidates", "absent", "queries", "bank_fill"})
"""What `Stage.forward` gives besides losses, where a stage has it (`Contrast`, `FinetuneStage`)."""


class Stage(nn.Module, ABC):
    """Student, teacher, heads and banks of one stage; all of it is in `state_dict`.

    `forward` computes the losses of one step on one worker's batch; gradients flow only to the student's
    side. The module as a whole can be wrapped for data-parallel training, since a step calls it once.
    """

    def __init__(self, config: ArcoConfig, peers: Peers) -> None:
        super().__init__()
        self.config = config
        self.peers = peers
        self.teacher_updates = 0
        self.passes = Passes()

    @abstractmethod
    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of one step: `loss`, to be minimised, and each of its terms, all 0-dim.

        Also some of `STATISTICS`, each 0-dim, or (K,) with one entry a class. Nothing in a step may wait for
        the device: no `.item()`, no shape that depends on data, no tensor made of Python numbers.

        Args:
            batch: `labeled_image` (b, C, *S) float32, `labeled_label` (b, *S) integer, and
                `unlabeled_image` (u, C, *S) unless the stage is supervised.
            generator: randomness of augmentation and sampling, on the batch's device.
        """

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """Each module that is a moving average, and the student's module that it follows."""
        return {}

    @property
    def ema(self) -> float:
        """Momentum of the moving average, once it has warmed up."""
        return 0.0

    def after_step(self) -> None:
        """Update the teacher, after the optimiser's step.

        Young teachers follow faster: after n updates the average spans about the last tenth of them, until
        it has the length that `ema` gives it. Otherwise the first hundreds of steps, when the student
        changes most, are guided by what it was at the start.
        """
        momentum, released = self.ema, self.config.released
        if not released.teacher_without_warmup:
            momentum = min(momentum, (1 + self.teacher_updates) / (10 + self.teacher_updates))
        self.teacher_updates += 1
        for teacher, student in self.teacher_of().items():
            ema_update(teacher, student, momentum, buffers=not released.teacher_keeps_statistics)

    def get_extra_state(self) -> dict[str, int]:
        """State that is no tensor."""
        return {"teacher_updates": self.teacher_updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore what `get_extra_state` returned."""
        self.teacher_updates = state["teacher_updates"]

    @abstractmethod
    def export(self) -> PyramidNetwork:
        """The network to evaluate and publish: the student, as in the field's literature."""

    def load_pretrained(self, stage_one: dict[str, Any]) -> None:
        """Take student and teacher from the state of stage one."""
        raise TypeError(f"{type(self).__name__} does not start from a pre-trained stage")

    def train(self, mode: bool = True) -> Stage:
        """As `nn.Module.train`, but teachers are put into the mode in which they guide training."""
        super().train(mode)
        if mode and not self.config.released.teacher_keeps_statistics:
            for teacher in self.teacher_of():
                teach(teacher)
        return self

    def labeled_step(
        self,
        student: PyramidNetwork,
        batch: dict[str, Tensor],
        generator: torch.Generator,
        weight: float = 1.0,
    ) -> dict[str, Tensor]:
        """`forward` of the baseline, and of a stage whose other terms all weigh 0: labelled images alone."""
        images, labels = self.weak_view(batch["labeled_image"], generator, batch["labeled_label"])
        loss = supervised_loss(self.passes.logits(student, images), labels)
        return {"loss": weight * loss, "supervised": loss.detach()}

    def weak_view(self, images: Tensor, generator: torch.Generator, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation, crop and flip of images (B, C, *S) and, alike, of labels (B, *S) -> int64.

        What comes from outside repeats the border in both: a patch may end within a structure.
        """
        grid = self._weak_grid(images, generator)
        moved = warp(labels[:, None].to(images.dtype), grid, nearest=True, border=True)
        return warp(images, grid, border=True), moved[:, 0].round().long()

    def weak_image(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Rotation, crop and flip of images (B, C, *S) that have no label."""
        return warp(images, self._weak_grid(images, generator), border=True)

    def _weak_grid(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return random_affine(len(images), images.shape[2:], self.config.augment, generator)

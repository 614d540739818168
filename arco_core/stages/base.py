"""The interface of a training stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arco_core.augment import random_affine, warp
from arco_core.config.schema import ArcoConfig
from arco_core.networks.teacher import ema_update, teach
from arco_core.networks.unet import UNet


def _identity(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True, kw_only=True)
class Peers:
    """The other workers, as far as a stage knows them: how many, and how to gather from them."""

    count: int = 1
    gather: Callable[[Tensor], Tensor] = _identity
    """Concatenate a tensor of all workers along its first axis, in order of rank; no gradient."""


ALONE = Peers()


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

    @abstractmethod
    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of one step: `loss`, to be minimised, and each of its terms, all 0-dim.

        Args:
            batch: `labeled_image` (b, C, H, W) float32, `labeled_label` (b, H, W) integer, and
                `unlabeled_image` (u, C, H, W) unless the stage is supervised.
            generator: randomness of augmentation and sampling, on the batch's device.
        """

    @abstractmethod
    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """Each module that is a moving average, and the student's module that it follows."""

    @property
    @abstractmethod
    def ema(self) -> float:
        """Momentum of the moving average, once it has warmed up."""

    def after_step(self) -> None:
        """Update the teacher, after the optimiser's step.

        Until the exponential average is the longer one, the teacher is the plain mean of all students so
        far (Tarvainen & Valpola): random initial weights would take hundreds of steps to fade.
        """
        self.teacher_updates += 1
        momentum = min(1.0 - 1.0 / self.teacher_updates, self.ema)
        for teacher, student in self.teacher_of().items():
            ema_update(teacher, student, momentum)

    def get_extra_state(self) -> dict[str, int]:
        """State that is no tensor."""
        return {"teacher_updates": self.teacher_updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore what `get_extra_state` returned."""
        self.teacher_updates = state["teacher_updates"]

    @abstractmethod
    def export(self) -> UNet:
        """The network to evaluate and publish: the teacher."""

    def load_pretrained(self, stage_one: dict[str, Any]) -> None:
        """Take student and teacher from the state of stage one."""
        raise TypeError(f"{type(self).__name__} does not start from a pre-trained stage")

    def train(self, mode: bool = True) -> Stage:
        """As `nn.Module.train`, but teachers are put into the mode in which they guide training."""
        super().train(mode)
        for teacher in self.teacher_of() if mode else ():
            teach(teacher)
        return self

    def weak_view(
        self, images: Tensor, labels: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Rotation, crop and flip of images (B, C, H, W) and, alike, of labels (B, H, W) -> int64."""
        size = (images.shape[2], images.shape[3])
        grid = random_affine(len(images), size, self.config.augment, generator)
        images = warp(images, grid, border=True)
        if labels is None:
            return images, None
        labels = warp(labels[:, None].to(images.dtype), grid, nearest=True)
        return images, labels[:, 0].round().long()

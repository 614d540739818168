"""What stage one asks of a framework of self-supervision, and what a framework gets to work with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from arco_core.banks import Bank
from arco_core.config.schema import ArcoConfig
from arco_core.peers import Peers


class Features(NamedTuple):
    """What a network makes of B images."""

    logits: Tensor
    """(B, K, *S)"""
    bottleneck: Tensor
    """(B, C, *s): the encoder's output."""

    @property
    def pooled(self) -> Tensor:
        """(B, C): the bottleneck's mean over the image."""
        return self.bottleneck.mean(tuple(range(2, self.bottleneck.ndim)))


class Views:
    """Two views of a step's images, labelled ones first, and what student and teacher make of them.

    A network sees a view when its features are first asked for, so that a framework costs only the passes
    that it needs.

    Args:
        images: the two views, (B, C, *S) each.
        labeled: how many of the B images are labelled.
        student, teacher: the networks' passes.
    """

    def __init__(
        self,
        images: tuple[Tensor, Tensor],
        labeled: int,
        student: Callable[[Tensor], Features],
        teacher: Callable[[Tensor], Features],
    ) -> None:
        self.labeled = labeled
        self._images = images
        self._passes = {"student": student, "teacher": teacher}
        self._made: dict[tuple[str, int], Features] = {}

    def student(self, view: int) -> Features:
        """Of view 0 or 1, with gradient."""
        return self._of("student", view)

    @torch.no_grad()
    def teacher(self, view: int) -> Features:
        """Of view 0 or 1, without."""
        return self._of("teacher", view)

    def _of(self, network: str, view: int) -> Features:
        if (network, view) not in self._made:
            self._made[network, view] = self._passes[network](self._images[view])
        return self._made[network, view]


class Framework(nn.Module, ABC):
    """Heads, banks and loss of a framework; stage one owns the networks.

    A weight of 0 leaves out its term and all of its state. Parameters are the student's, but for those of
    the modules that `teacher_of` names.

    Args:
        config: the whole configuration.
        peers: the other workers.
        classes: number of classes K.
    """

    dense = False
    """Whether it has a term on windows, for which both views must show the same pixels at the same places."""

    def __init__(self, config: ArcoConfig, peers: Peers, classes: int) -> None:
        super().__init__()
        self.config = config
        self.peers = peers
        self.classes = classes

    @abstractmethod
    def forward(self, views: Views) -> dict[str, Tensor]:
        """The terms of one step, `global` (on whole images) or `local` (on windows), 0-dim; feeds banks."""

    def teacher_of(self) -> dict[nn.Module, nn.Module]:
        """As `Stage.teacher_of`, for the heads."""
        return {}

    def momentum(self, progress: float) -> float:
        """Momentum of the moving averages, `progress` going from 0 to 1 with training."""
        return self.config.pretrain.ema

    def queue(self, batches: int, dim: int) -> Bank:
        """A queue with room for the keys of so many batches of all workers."""
        return Bank(1, batches * self.config.pretrain.batch, dim)

    def push(self, bank: Bank, embeddings: Tensor, labeled: int) -> None:
        """Append all workers' embeddings (R, B, D) to `bank`, the labelled images' before the others'.

        So the keys are those of one worker with the whole batch.
        """
        bank.push(self.gathered(embeddings, labeled))

    def gathered(self, embeddings: Tensor, labeled: int) -> Tensor:
        """Embeddings (R, B, D) of all workers' images, the labelled ones first; without gradient."""
        workers = self.peers.gather(embeddings.transpose(0, 1).contiguous()).chunk(self.peers.gathered)
        fresh = [part[:labeled] for part in workers] + [part[labeled:] for part in workers]
        return torch.cat(fresh).transpose(0, 1)

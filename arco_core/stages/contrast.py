"""The contrastive term of stage two: which pixels are queries, positives and negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arco_core.banks import Bank
from arco_core.config.schema import ContrastConfig
from arco_core.losses import contrastive_loss
from arco_core.peers import Peers
from arco_core.representation import masked_mean, project, sample_pyramid
from arco_core.sampling import make_sampler

PyramidAndMatrix = tuple[Sequence[Tensor], Tensor]


class ContrastTerm(NamedTuple):
    """L_contrast of one step, and what it was computed from; statistics are (K,), without gradient."""

    loss: Tensor
    candidates: Tensor
    """Pixels that the queries are drawn from."""
    absent: Tensor
    """1 for a class without candidates, else 0."""
    queries: Tensor
    """Queries that took part: none of a class that is absent or has no negatives."""
    bank_fill: Tensor
    """Share of the class's bank that is filled."""

    @property
    def statistics(self) -> dict[str, Tensor]:
        """All but the loss."""
        return {name: value for name, value in self._asdict().items() if name != "loss"}


def query_mask(member: Tensor, teacher_probability: Tensor, threshold: float) -> Tensor:
    """(K, B, *S) bool: the pixels that queries are drawn from, in training and where variance is measured.

    Args:
        member: (K, B, *S) bool: the pixel carries the class.
        teacher_probability: (B, K, *S).
        threshold: the teacher's probability of the class must exceed it.
    """
    return member & (teacher_probability.transpose(0, 1) > threshold)


class Contrast:
    """Samples queries and negatives, computes L_contrast and feeds the per-class bank.

    Args:
        config: sample sizes, sampler, temperature.
        bank: one row a class; owned by the stage, so that it is saved with it.
        peers: the other workers; every worker's bank gets the keys that `peers` gathers.
        threshold: confidence above which a pixel carries its pseudo-label.
    """

    def __init__(self, config: ContrastConfig, bank: Bank, peers: Peers, threshold: float) -> None:
        self.config = config
        self.bank = bank
        self.peers = peers
        self.threshold = threshold
        self.sampler = make_sampler(config.sampler, config.grid)
        self.sets = math.ceil(config.queries / (config.queries_per_negative_set * peers.count))
        self.queries = self.sets * config.queries_per_negative_set
        self.new_keys = max(1, config.keys_per_step // peers.gathered)

    def __call__(
        self,
        *,
        labels: Tensor,
        confidence: Tensor,
        teacher_probability: Tensor,
        student: PyramidAndMatrix,
        teacher: PyramidAndMatrix,
        generator: torch.Generator,
    ) -> ContrastTerm:
        """L_contrast of one step; feeds the bank.

        Args:
            labels: (B, *S) int64 labels and pseudo-labels.
            confidence: (B, *S), 1 where labelled.
            teacher_probability: (B, K, *S).
            student, teacher: pyramids of levels (B, C_l, *S_l), coarse to fine, and their heads' matrices.
            generator: on the tensors' device.
        """
        config, (pyramid, matrix), (teacher_pyramid, teacher_matrix) = self.config, student, teacher
        classes = teacher_probability.shape[1]
        every = torch.arange(classes, device=labels.device).view(-1, *[1] * labels.ndim)
        of_class = labels == every  # (K, B, *S)
        member = of_class & (confidence >= self.threshold)
        hard = query_mask(member, teacher_probability, config.query_threshold)
        query = self.sampler.pixels(hard, self.queries, generator)
        queries = project(sample_pyramid(pyramid, query.position.flatten()), matrix)
        queries = queries.view(classes, self.queries, -1)
        with torch.no_grad():
            positives = project(masked_mean(teacher_pyramid, member), teacher_matrix)
            negatives, available = self.negatives(generator)
        valid = query.present & available
        loss = contrastive_loss(queries, positives, negatives, valid, config.temperature)
        mask = self.key_mask(of_class, confidence, teacher_probability)
        self._feed(mask, teacher_pyramid, teacher_matrix, generator)
        return ContrastTerm(
            loss=loss,
            candidates=hard.flatten(1).sum(1).float(),
            absent=(~query.present).float(),
            queries=(self.queries * (valid & (valid.sum() >= 2))).float(),
            bank_fill=self.bank.count / self.bank.size,
        )

    def negatives(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Negative keys (K, sets, n, D) of each class, and (K,) whether there are any."""
        return self.bank.draw_others(self.sampler, self.sets, self.config.negatives, generator)

    def key_mask(self, of_class: Tensor, confidence: Tensor, teacher_probability: Tensor) -> Tensor:
        """Which pixels may enter the bank, by its rows.

        Args:
            of_class: (K, B, *S) bool: the pixel's label or pseudo-label is the class.
            confidence, teacher_probability: as of `__call__`.
        """
        certain = teacher_probability.transpose(0, 1) >= self.threshold
        return of_class & (confidence >= self.threshold) & certain

    def fresh_keys(self, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which of the pixels of `mask` enter the bank: positions (K, m), and (K, m) false for none."""
        fresh = self.sampler.pixels(mask, self.new_keys, generator)
        return fresh.position, fresh.present[:, None].expand(-1, self.new_keys)

    @torch.no_grad()
    def _feed(
        self, mask: Tensor, pyramid: Sequence[Tensor], matrix: Tensor, generator: torch.Generator
    ) -> None:
        """Push fresh keys of each class's confident pixels into the bank, those of all workers."""
        position, valid = self.fresh_keys(mask, generator)
        keys = project(sample_pyramid(pyramid, position.flatten()), matrix).view(*position.shape, -1)
        keys = self.peers.gather(keys.transpose(0, 1).contiguous())
        valid = self.peers.gather(valid.T.contiguous())
        self.bank.push(keys.transpose(0, 1), valid.T)

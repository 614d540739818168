"""What the samplers average: the contrastive loss and its gradient at every pixel of a batch.

The features are those of a training step: the student with dropout, both networks with the batch's own
statistics. The negative keys are drawn once for each class, as in training, and stay the same, so that
nothing but the sampler's choice of queries varies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arco_core.errors import DataError
from arco_core.losses import query_losses
from arco_core.representation import masked_mean, project, sample_pyramid
from arco_core.stages.contrast import query_mask
from arco_core.stages.finetune import FinetuneStage
from arco_core.variance.outer import Outer

_PIXELS = 8192
"""Pixels whose loss is computed at once."""


@dataclass(frozen=True, kw_only=True)
class ClassField:
    """Loss and gradient of every query of one class, in raster order."""

    class_index: int
    mask: Tensor
    """(B, *S) bool: the P pixels that are queries."""
    loss: Outer
    """(P, 1) and (P, 1) float64."""
    gradient: Outer
    """(P, D) and (P, D): the gradient in the student's head as a whole, the matrix that `matrix()` gives."""


@dataclass(frozen=True, kw_only=True)
class _Keys:
    positives: Tensor
    """(K, D)"""
    negatives: Tensor
    """(K, 1, n, D)"""


def check_stage(stage: object) -> FinetuneStage:
    """`stage`, if it has a contrastive loss to measure. Raises `DataError` otherwise."""
    if not isinstance(stage, FinetuneStage):
        raise DataError(
            f"a {type(stage).__name__} has no contrastive loss: take the checkpoint of a fine-tuning."
        )
    weight = stage.settings.weights.contrast
    if not weight:
        raise DataError(
            f"finetune.weights.contrast = {weight:g}, so there is no contrastive loss to measure: "
            "take the checkpoint of a run that trained with one."
        )
    counts = stage.class_bank.count.tolist()
    if sum(count > 0 for count in counts) < 2:
        raise DataError(
            f"the bank holds {counts} keys of the classes, and negatives need two classes that have some: "
            "take a checkpoint of later in training."
        )
    return stage


def class_fields(
    stage: FinetuneStage, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Iterator[ClassField]:
    """The fields of every class that takes part in the contrastive loss of a batch, one after the other.

    Dropout draws from torch's default generator: seed it inside `torch.random.fork_rng`.

    Args:
        stage: trained; see `check_stage`. Put into training mode.
        images: (B, C, *S).
        labels: (B, *S) int64.
        generator: draws the negative keys; on the stage's device.
    """
    config, classes = stage.settings.contrast, stage.student.classes
    stage.train()
    with torch.no_grad():
        _, pyramid = stage.student.forward_pyramid(images)
        teacher_logits, teacher_pyramid = stage.teacher.forward_pyramid(images)
        matrix = stage.student_head.matrix()
        member = labels == torch.arange(classes, device=labels.device).view(-1, *[1] * labels.ndim)
        positives = project(masked_mean(teacher_pyramid, member), stage.teacher_head.matrix())
        negatives, available = stage.contrast.negatives(generator)
        queries = query_mask(member, teacher_logits.softmax(1), config.query_threshold)
    keys = _Keys(positives=positives, negatives=negatives[:, :1])
    taking_part = (queries.flatten(1).any(1) & available).nonzero().flatten().tolist()
    for index in taking_part if len(taking_part) > 1 else ():
        loss, gradient = _query_field(pyramid, matrix, queries[index], keys, index, config.temperature)
        yield ClassField(class_index=index, mask=queries[index], loss=loss, gradient=gradient)


def _query_field(
    pyramid: Sequence[Tensor], matrix: Tensor, mask: Tensor, keys: _Keys, index: int, temperature: float
) -> tuple[Outer, Outer]:
    losses, gradients, features = [], [], []
    for position in torch.split(mask.flatten().nonzero().flatten(), _PIXELS):
        rows = torch.cat(sample_pyramid(pyramid, position), dim=1)
        query = project([rows], matrix).requires_grad_()
        loss = query_losses(
            query[None], keys.positives[index, None], keys.negatives[index, None], temperature
        )[0]
        (gradient,) = torch.autograd.grad(loss.sum(), query)
        losses.append(loss.detach().double())
        gradients.append(gradient)
        features.append(rows)
    loss = torch.cat(losses)[:, None]
    return Outer(loss, torch.ones_like(loss)), Outer(torch.cat(gradients), torch.cat(features))

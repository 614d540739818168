"""How much a sampler lowers the variance of the contrastive loss, and of its gradient, on real features.

For a trained stage and a batch, each pixel p of class c has a loss h(p): the contrastive term of that
query against the class's positive key and one fixed set of negatives. A sampler estimates the mean of h;
its variance over repeated draws is measured, relative to naive sampling. The gradient with respect to the
(linear) head is the outer product of ∂h/∂r and the pixel's pyramid feature; its total variance, the trace
of the covariance, is measured through random projections that are the same for all samplers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from arco_core.representation import masked_mean, sample_pyramid
from arco_core.sampling import Sampler, make_sampler
from arco_core.stages.finetune import FinetuneStage

_CHUNK = 8192


@dataclass(frozen=True, kw_only=True)
class PixelFields:
    """What is averaged over sampled pixels, known at every pixel of a batch."""

    mask: Tensor
    """(K, B, H, W) bool: the queries of each class."""
    values: Tensor
    """(B · H · W, 1 + S): the loss of each pixel, then S random projections of its gradient."""


@dataclass(frozen=True, kw_only=True)
class VarianceRow:
    """Variance of one sampler's estimate for one class, relative to naive sampling with as many draws."""

    class_index: int
    sampler: str
    loss_ratio: float
    loss_interval: tuple[float, float]
    gradient_ratio: float
    gradient_interval: tuple[float, float]
    """95% bootstrap intervals over draws."""


def pixel_fields(
    stage: FinetuneStage, images: Tensor, labels: Tensor, *, projections: int, generator: torch.Generator
) -> PixelFields:
    """Loss and projected gradient of every pixel of labelled images.

    Args:
        stage: trained, with heads and a filled class bank.
        images: (B, C, H, W).
        labels: (B, H, W) int64.
        projections: S, random projections of the gradient.
        generator: on the stage's device.

    Raises `ValueError` when the stage has no class bank or the bank is empty.
    """
    if not stage.settings.weights.contrast or not bool((stage.class_bank.count > 0).sum() >= 2):
        raise ValueError(
            "the stage has no contrastive term or an empty bank: take a fine-tuned ARCO checkpoint"
        )
    config, classes = stage.settings.contrast, stage.student.classes
    stage.eval()
    with torch.no_grad():
        probability = stage.teacher(images).softmax(1).transpose(0, 1)
        member = labels == torch.arange(classes, device=labels.device).view(-1, 1, 1, 1)
        positives = stage.teacher_head(masked_mean(stage.teacher.forward_pyramid(images)[1], member))
        negatives, _ = stage.class_bank.draw_others(make_sampler("ns"), 1, config.negatives, generator)
        pyramid = stage.student.forward_pyramid(images)[1]
    keys = (F.normalize(positives, dim=1), negatives[:, 0])
    dim = stage.student_head.dim
    sketch = torch.randn(2, dim, projections, generator=generator, device=images.device)
    flat, pieces = labels.flatten(), []
    for pixels in torch.split(torch.arange(len(flat), device=images.device), _CHUNK):
        rows = sample_pyramid(pyramid, pixels)
        loss, gradient = _query_losses(stage, rows, flat[pixels], keys, config.temperature)
        projected = (gradient @ sketch[0]) * (torch.cat(rows, dim=1) @ sketch[1])
        pieces.append(torch.cat([loss[:, None], projected], dim=1).detach())
    return PixelFields(mask=member & (probability > config.query_threshold), values=torch.cat(pieces))


def _query_losses(
    stage: FinetuneStage,
    rows: Sequence[Tensor],
    labels: Tensor,
    keys: tuple[Tensor, Tensor],
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Loss (N,) of each pixel as a query of its class, and its gradient (N, D) in the representation."""
    positives, negatives = keys
    with torch.no_grad():
        representation = stage.student_head(rows)
    representation.requires_grad_()
    query = F.normalize(representation, dim=1) / temperature
    logits = torch.einsum("nd,kmd->nkm", query, negatives)
    negative = logits[torch.arange(len(labels), device=labels.device), labels]
    positive = (query * positives[labels]).sum(1)
    loss = torch.logsumexp(torch.cat([positive[:, None], negative], dim=1), dim=1) - positive
    (gradient,) = torch.autograd.grad(loss.sum(), representation)
    return loss.detach(), gradient


def draw_means(
    fields: PixelFields, sampler: Sampler, n: int, draws: int, generator: torch.Generator
) -> Tensor:
    """Means over `draws` samples of n pixels each: (draws, K, 1 + S)."""
    means = [fields.values[sampler.pixels(fields.mask, n, generator).position].mean(1) for _ in range(draws)]
    return torch.stack(means).double()


def compare_samplers(
    fields: PixelFields, samplers: Sequence[str], *, n: int, draws: int, grid: int, generator: torch.Generator
) -> list[VarianceRow]:
    """Variance of each sampler's estimates relative to `ns`, for each class that has queries."""
    present = [k for k, m in enumerate(fields.mask) if bool(m.any())]
    squares = {}
    truth = torch.stack([_mean_over(fields.values, m) for m in fields.mask])
    for name in {"ns", *samplers}:
        means = draw_means(fields, make_sampler(name, grid), n, draws, generator)
        error = (means - truth).square()
        squares[name] = torch.stack([error[..., 0], error[..., 1:].sum(2)], dim=2)  # (draws, K, 2)
    rows = []
    for name in samplers:
        for k in present:
            ratios, low, high = _ratio(squares[name][:, k], squares["ns"][:, k], generator)
            rows.append(
                VarianceRow(
                    class_index=k,
                    sampler=name,
                    loss_ratio=float(ratios[0]),
                    loss_interval=(float(low[0]), float(high[0])),
                    gradient_ratio=float(ratios[1]),
                    gradient_interval=(float(low[1]), float(high[1])),
                )
            )
    return rows


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values (N, V) over a mask of N pixels, float64; 0 for an empty one."""
    return values[mask.flatten()].double().sum(0) / mask.sum().clamp_min(1)


def _ratio(own: Tensor, naive: Tensor, generator: torch.Generator, repeats: int = 500) -> tuple[Tensor, ...]:
    """Ratio of mean squared errors (draws, 2) and its 95% bootstrap interval."""
    draws, device = len(own), own.device
    means = []
    for errors in (own, naive):
        pick = torch.randint(draws, (repeats, draws), generator=generator, device=device)
        means.append(errors[pick].mean(1))
    low, high = (means[0] / means[1]).quantile(torch.tensor([0.025, 0.975], device=device).double(), dim=0)
    return own.mean(0) / naive.mean(0), low, high

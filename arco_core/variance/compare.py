"""Samplers side by side: variances over batches, as ratios with intervals.

The estimate of one class is the mean of its loss over n sampled queries; the overall estimate, as in
L_contrast, the mean over the classes that take part, whose draws are independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arco_core.config.schema import SAMPLER_NAMES
from arco_core.stages.finetune import FinetuneStage
from arco_core.variance.exact import exact_variances
from arco_core.variance.fields import class_fields

OVERALL = "overall"
QUANTITIES = ("loss", "gradient")
_FIRST = 2
"""Column of the first sampler's variance; before it are pixels and squared norm."""
_RESAMPLES = 4000
_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of variances and its 95 % interval, which two batches at least are needed for."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class VarianceRow:
    """One class (or `overall`), one quantity, one sampler."""

    class_name: str
    quantity: str
    """`loss`, or `gradient`: in the student's head as a whole, the total variance of its entries."""
    sampler: str
    batches: int
    """Batches in which the class took part."""
    pixels: float
    """Size of the population that is sampled from; mean over batches."""
    variance: float
    """Of the estimate, given the batch; mean over batches."""
    relative_error: float
    """Root of the variance over the mean square of what is estimated."""
    to_ns: Ratio
    to_sg: Ratio


def batch_variances(
    stage: FinetuneStage, images: Tensor, labels: Tensor, *, queries: int, generator: torch.Generator
) -> Tensor:
    """Variances of one batch, (K + 1, 2, 2 + samplers) float64, on the CPU.

    Rows are the classes and, last, all of them; nan where one takes no part. Then `QUANTITIES`. Then the
    number of pixels, the squared norm of what is estimated, and its variance under each of `SAMPLER_NAMES`.

    Args:
        stage, images, labels, generator: see `class_fields`.
        queries: n, sampled of each class.
    """
    classes, grid = stage.student.classes, stage.settings.contrast.grid
    shape = (classes + 1, len(QUANTITIES), _FIRST + len(SAMPLER_NAMES))
    result = torch.full(shape, torch.nan, dtype=torch.float64)
    means: dict[str, list[Tensor]] = {quantity: [] for quantity in QUANTITIES}
    for field in class_fields(stage, images, labels, generator):
        for q, values in enumerate((field.loss, field.gradient)):
            mean = values.mean().double()
            means[QUANTITIES[q]].append(mean)
            variances = exact_variances(values, field.mask, n=queries, grid=grid)
            row = result[field.class_index, q]
            row[0], row[1] = field.mask.sum(), mean.square().sum()
            row[_FIRST:] = torch.tensor([variances[name] for name in SAMPLER_NAMES], dtype=torch.float64)
    if means["loss"]:
        total = result[:classes].nansum(0)
        result[classes] = total / len(means["loss"]) ** 2
        result[classes, :, 0] = total[:, 0]
        for q, quantity in enumerate(QUANTITIES):
            result[classes, q, 1] = torch.stack(means[quantity]).mean(0).square().sum()
    return result


def compare_samplers(
    batches: Sequence[Tensor], class_names: Sequence[str], generator: torch.Generator
) -> list[VarianceRow]:
    """Means over batches, and their ratios with bootstrap intervals over batches.

    A ratio is one of means over the same batches, so a batch weighs as much as its variance. Batches, not
    draws, are resampled: the variance given a batch is exact, batches are what differs.

    Args:
        batches: what `batch_variances` gave for each.
        class_names: K names.
        generator: on the CPU.

    Returns:
        Rows of every class that took part in at least one batch, then of all of them together.
    """
    every = torch.stack(list(batches))
    rows = []
    for index, name in enumerate((*class_names, OVERALL)):
        for q, quantity in enumerate(QUANTITIES):
            values = every[:, index, q]
            values = values[~values[:, 0].isnan()]
            if len(values):
                rows += _rows(name, quantity, values, generator)
    return rows


def _rows(class_name: str, quantity: str, values: Tensor, generator: torch.Generator) -> list[VarianceRow]:
    """The samplers' rows, from (N, 2 + samplers)."""
    mean = values.mean(0)
    picks = torch.randint(len(values), (_RESAMPLES, len(values)), generator=generator)
    resampled = values[picks].mean(1) if len(values) > 1 else None
    return [
        VarianceRow(
            class_name=class_name,
            quantity=quantity,
            sampler=sampler,
            batches=len(values),
            pixels=float(mean[0]),
            variance=float(mean[column]),
            relative_error=float((mean[column] / mean[1]).sqrt()),
            to_ns=_ratio(mean, resampled, column, _FIRST + SAMPLER_NAMES.index("ns")),
            to_sg=_ratio(mean, resampled, column, _FIRST + SAMPLER_NAMES.index("sg")),
        )
        for column, sampler in enumerate(SAMPLER_NAMES, start=_FIRST)
    ]


def _ratio(mean: Tensor, resampled: Tensor | None, own: int, other: int) -> Ratio:
    value = float(mean[own] / mean[other])
    if resampled is None:
        return Ratio(value=value, low=None, high=None)
    ratios = resampled[:, own] / resampled[:, other]
    low, high = ratios.quantile(torch.tensor(_INTERVAL).double()).tolist()
    return Ratio(value=value, low=low, high=high)

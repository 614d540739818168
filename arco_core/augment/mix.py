"""Mixing of unlabelled images and their pseudo-labels: CutMix, CutOut and ClassMix.

French et al., BMVC 2020 (CutMix for segmentation); Olsson et al., WACV 2021 (ClassMix).
"""

from __future__ import annotations

import torch
from torch import Tensor

from arco_core.augment.random import uniform
from arco_core.config.errors import require_in


def mix(
    mode: str, images: Tensor, labels: Tensor, confidence: Tensor, *, classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Paste part of the next image of the batch over each image.

    Args:
        mode: `cutmix` pastes a rectangle of half the area, `classmix` the pixels of half of the classes
            that the other image holds, `cutout` erases a rectangle (value 0, confidence 0), `none`.
        images: (B, C, H, W).
        labels: (B, H, W) int64 pseudo-labels.
        confidence: (B, H, W) teacher confidence.
        classes: number of classes K.

    Returns:
        Mixed images, labels and confidence, of the same shapes.
    """
    require_in("mix", mode, ("cutmix", "cutout", "classmix", "none"))
    if mode == "none":
        return images, labels, confidence
    if mode == "cutout":
        keep = ~_rectangles(len(images), labels.shape[1:], generator)
        return images * keep[:, None], labels, confidence * keep
    others = labels.roll(-1, 0)
    if mode == "cutmix":
        paste = _rectangles(len(images), labels.shape[1:], generator)
    else:
        paste = _half_of_classes(others, classes, generator)
    return (
        torch.where(paste[:, None], images.roll(-1, 0), images),
        torch.where(paste, others, labels),
        torch.where(paste, confidence.roll(-1, 0), confidence),
    )


def _rectangles(batch: int, size: torch.Size, generator: torch.Generator) -> Tensor:
    """(B, H, W) bool: a random rectangle of half the area in each image."""
    height, width = size
    wide = uniform((batch, 1, 1), 0.5, 1.0, generator)
    w, h = wide * width, 0.5 / wide * height
    left = uniform((batch, 1, 1), 0.0, 1.0, generator) * (width - w)
    top = uniform((batch, 1, 1), 0.0, 1.0, generator) * (height - h)
    x = torch.arange(width, device=generator.device) + 0.5
    y = torch.arange(height, device=generator.device)[:, None] + 0.5
    return (x >= left) & (x < left + w) & (y >= top) & (y < top + h)


def _half_of_classes(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """(B, H, W) bool: pixels of a random half (rounded up) of the classes present in each image."""
    every = torch.arange(classes, device=labels.device)
    present = (labels.flatten(1)[:, None] == every[:, None]).any(2)
    scores = uniform((len(labels), classes), 0.0, 1.0, generator).masked_fill(~present, 2.0)
    place = scores.argsort(1).argsort(1)
    chosen = place < (present.sum(1, keepdim=True) + 1) // 2
    return chosen.gather(1, labels.flatten(1)).view_as(labels)

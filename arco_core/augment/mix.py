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
        mode: `cutmix` pastes a box of half the area or volume, `classmix` the pixels of half of the classes
            that the other image holds, `cutout` erases a box (value 0, confidence 0), `none`.
        images: (B, C, *S).
        labels: (B, *S) int64 pseudo-labels.
        confidence: (B, *S) teacher confidence.
        classes: number of classes K.

    Returns:
        Mixed images, labels and confidence, of the same shapes.
    """
    require_in("mix", mode, ("cutmix", "cutout", "classmix", "none"))
    if mode == "none":
        return images, labels, confidence
    if mode == "cutout":
        keep = ~_boxes(len(images), labels.shape[1:], generator)
        return images * keep[:, None], labels, confidence * keep
    others = labels.roll(-1, 0)
    if mode == "cutmix":
        paste = _boxes(len(images), labels.shape[1:], generator)
    else:
        paste = _half_of_classes(others, classes, generator)
    return (
        torch.where(paste[:, None], images.roll(-1, 0), images),
        torch.where(paste, others, labels),
        torch.where(paste, confidence.roll(-1, 0), confidence),
    )


def _boxes(batch: int, size: torch.Size, generator: torch.Generator) -> Tensor:
    """(B, *S) bool: a random box of half the area or volume in each image."""
    one = (batch, *[1] * len(size))
    inside = torch.ones(1, dtype=torch.bool, device=generator.device)
    rest: Tensor | float = 0.5  # the share of the sides still to be drawn, multiplied
    for axis in range(len(size) - 1, -1, -1):
        share = uniform(one, 0.0, 1.0, generator) * (1.0 - rest) + rest if axis else rest
        rest = rest / share
        length = share * size[axis]
        start = uniform(one, 0.0, 1.0, generator) * (size[axis] - length)
        place = torch.arange(size[axis], device=generator.device) + 0.5
        place = place.view(-1, *[1] * (len(size) - 1 - axis))
        inside = inside & (place >= start) & (place < start + length)
    return inside


def _half_of_classes(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """(B, *S) bool: pixels of a random half (rounded up) of the classes present in each image."""
    every = torch.arange(classes, device=labels.device)
    present = (labels.flatten(1)[:, None] == every[:, None]).any(2)
    scores = uniform((len(labels), classes), 0.0, 1.0, generator).masked_fill(~present, 2.0)
    place = scores.argsort(1).argsort(1)
    chosen = place < (present.sum(1, keepdim=True) + 1) // 2
    return chosen.gather(1, labels.flatten(1)).view_as(labels)

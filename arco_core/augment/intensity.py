"""Intensity augmentation: the strong view's contrast, brightness, blur and noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from arco_core.augment.random import chance, uniform
from arco_core.config.schema import AugmentConfig


def jitter(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Randomly change contrast and brightness, blur and add noise; each image by its own parameters.

    Args:
        images: (B, C, *S), any intensity scale; strengths are relative to each image's own spread.
    """
    batch = (len(images), *[1] * (images.ndim - 1))
    every = tuple(range(1, images.ndim))
    mean = images.mean(every, keepdim=True)
    spread = images.std(every, keepdim=True)
    contrast = 1.0 + uniform(batch, -config.contrast, config.contrast, generator)
    brightness = uniform(batch, -config.brightness, config.brightness, generator)
    changed = (images - mean) * contrast + mean + brightness * spread
    images = torch.where(chance(batch, config.jitter_probability, generator), changed, images)
    if config.blur_probability:
        sigma = uniform((len(images),), 0.15, config.blur_sigma, generator)
        blurred = blur(images, sigma, radius=max(1, math.ceil(2.6 * config.blur_sigma)))
        images = torch.where(chance(batch, config.blur_probability, generator), blurred, images)
    if config.noise:
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + noise * spread * uniform(batch, 0.0, config.noise, generator)
    return images


def blur(images: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """Gaussian blur of images (B, C, *S) by `sigma` (B,) pixels, cut off at `radius`; borders repeat."""
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], dim=0)
    axes = images.ndim - 2
    convolve = F.conv2d if axes == 2 else F.conv3d
    flat = F.pad(images.flatten(0, 1)[None], (radius, radius) * axes, mode="replicate")
    for axis in range(axes):
        along = [1] * axes
        along[axis] = -1
        flat = convolve(flat, kernel.view(len(kernel), 1, *along), groups=len(kernel))
    return flat[0].view_as(images)

"""The interface of all samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor


class PixelSample(NamedTuple):
    """A sample of pixels for each class."""

    position: Tensor
    """(K, n) int64: flat positions in the mask's B × spatial extent; 0 where the class is absent."""
    present: Tensor
    """(K,) bool: the class has at least one pixel. Rows of absent classes mean nothing."""


class Sampler(ABC):
    """Draws n members, with replacement, from each of several populations at once.

    No method loops in Python over pixels, groups or classes, and none waits for the device.
    """

    @abstractmethod
    def pixels(self, mask: Tensor, n: int, generator: torch.Generator) -> PixelSample:
        """Draw n pixels for each class.

        Args:
            mask: (K, B, *spatial) bool, the population of each class; 2D or 3D images.
            n: sample size; may exceed the population.
            generator: source of randomness, on the mask's device.
        """

    @abstractmethod
    def ranks(self, sizes: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Draw n ranks from each of R ordered populations, neighbours in the order being alike.

        Args:
            sizes: (R,) int64 population sizes. A population of 0 yields rank 0.

        Returns:
            (R, n) int64, each in [0, size).
        """


def uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """Float64 uniforms in [0, 1): float32 cannot address every pixel of a large batch."""
    return torch.rand(*shape, generator=generator, device=generator.device, dtype=torch.float64)


def scale(fraction: Tensor, sizes: Tensor) -> Tensor:
    """floor(fraction · size) as int64, kept inside [0, size) against rounding; 0 for size 0."""
    drawn = (fraction * sizes).long()
    return torch.minimum(drawn, sizes - 1).clamp_min(0)

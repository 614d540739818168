"""Random parameters, one per image."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Float32 uniforms in [low, high) on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def chance(shape: tuple[int, ...], probability: float, generator: torch.Generator) -> Tensor:
    """Bool, true with `probability`."""
    return torch.rand(shape, generator=generator, device=generator.device) < probability

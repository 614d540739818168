"""Features at sampled pixels, and their class means, straight from the low-resolution pyramid.

Nothing of the size of an up-sampled map is allocated: pixels are gathered by their few taps, and the
mean over a mask is a weighted sum at each level's own resolution, the weights being the adjoint of the
interpolation applied to the mask. 2D and 3D.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from arco_core.representation.interpolation import taps, upsampling_matrix


def _table(level: Tensor) -> Tensor:
    """(B · prod(S), C) view (channels last) or copy of a level (B, C, *S)."""
    return level.movedim(1, -1).reshape(-1, level.shape[1])


def sample_pyramid(pyramid: Sequence[Tensor], index: Tensor) -> list[Tensor]:
    """Features of every level at sampled pixels, as if up-sampled to the finest level.

    Args:
        pyramid: levels (B, C_l, *S_l), coarse to fine.
        index: (N,) int64 flat positions in B × S of the finest level.

    Returns:
        One (N, C_l) tensor a level.
    """
    shape = pyramid[-1].shape[2:]
    coordinates = _coordinates(index, shape)
    rows = [_sample_level(pyramid, level, coordinates) for level in range(len(pyramid) - 1)]
    return [*rows, _table(pyramid[-1]).index_select(0, index)]


def _coordinates(index: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Image and place along each axis of `shape`, (N,) each. `torch.unravel_index` copies to the device."""
    coordinates: list[Tensor] = []
    for side in reversed(shape):
        coordinates.insert(0, index % side)
        index = index.div(side, rounding_mode="floor")
    return [index, *coordinates]


def _sample_level(pyramid: Sequence[Tensor], level: int, coordinates: Sequence[Tensor]) -> Tensor:
    source = pyramid[level]
    position = coordinates[0][:, None]
    weight = torch.ones_like(position, dtype=source.dtype)
    for axis, at in enumerate(coordinates[1:], start=2):
        tap = taps(tuple(p.shape[axis] for p in pyramid[level:]), source.device, source.dtype)
        position = (position[:, :, None] * source.shape[axis] + tap.source[at][:, None]).flatten(1)
        weight = (weight[:, :, None] * tap.weight[at][:, None]).flatten(1)
    return F.embedding_bag(position, _table(source), mode="sum", per_sample_weights=weight)


def masked_mean(pyramid: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """Mean up-sampled feature over each class's pixels.

    Args:
        pyramid: levels (B, C_l, *S_l), coarse to fine.
        mask: (K, B, *S) bool over the finest level.

    Returns:
        One (K, C_l) tensor a level; zeros for a class without pixels.
    """
    weight = mask.to(pyramid[-1].dtype)
    weight = weight / weight.flatten(1).sum(1).clamp_min(1.0).view(-1, *[1] * (mask.ndim - 1))
    return [w.flatten(1) @ _table(p) for w, p in zip(_adjoints(pyramid, weight), pyramid, strict=True)]


def image_mean(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """Mean up-sampled feature of each image: one (B, C_l) tensor a level."""
    finest = pyramid[-1]
    weight = finest.new_full((1, 1, *finest.shape[2:]), 1.0 / finest.shape[2:].numel())
    weights = _adjoints(pyramid, weight)
    return [p.flatten(2) @ w.flatten() for w, p in zip(weights, pyramid, strict=True)]


def _adjoints(pyramid: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
    """Weights (·, ·, *S_l) of each level, coarse to fine, that act as `weight` does on the finest."""
    weights = [weight]
    for level in pyramid[-2::-1]:
        for axis in range(2, weight.ndim):
            up = upsampling_matrix(level.shape[axis], weight.shape[axis], weight.device, weight.dtype)
            weight = (weight.movedim(axis, -1) @ up).movedim(-1, axis)
        weights.append(weight)
    return weights[::-1]

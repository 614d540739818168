"""Samplers that see a population as an ordered list: naive and Hilbert stratification.

Stratified draw i of n has rank floor((i + U_i) · P / n). Whatever the joint law of the U_i, uniform
margins make it unbiased for every P and n. The pixels of a class are ordered along a space-filling
curve, image after image, so that a stratum is a compact patch of about P / n pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from arco_core.sampling.base import PixelSample, Sampler, scale, uniform
from arco_core.sampling.hilbert import hilbert_order

Draw = Literal["independent", "stratified", "antithetic", "systematic"]

_BLOCK = 256  # pixels counted at once when the r-th pixel of a class is looked up


def _independent(rows: int, n: int, generator: torch.Generator) -> Tensor:
    return uniform(rows, n, generator=generator)


def _strata(offsets: Tensor, n: int) -> Tensor:
    return (torch.arange(n, device=offsets.device) + offsets) / n


def _stratified(rows: int, n: int, generator: torch.Generator) -> Tensor:
    return _strata(uniform(rows, n, generator=generator), n)


def _systematic(rows: int, n: int, generator: torch.Generator) -> Tensor:
    return _strata(uniform(rows, 1, generator=generator), n)


def _antithetic(rows: int, n: int, generator: torch.Generator) -> Tensor:
    u = uniform(rows, (n + 1) // 2, generator=generator)
    return _strata(torch.stack([u, 1.0 - u], dim=2).flatten(1)[:, :n], n)


_FRACTIONS: dict[Draw, Callable[[int, int, torch.Generator], Tensor]] = {
    "independent": _independent,
    "stratified": _stratified,
    "antithetic": _antithetic,
    "systematic": _systematic,
}


class OrderedSampler(Sampler):
    """Naive sampling and Hilbert stratification.

    Args:
        draw: `independent` is naive sampling (n i.i.d. uniform draws). The others cut the ordered
            population into n equal strata and draw one member from each: `stratified` independently;
            `antithetic` with U_{2i+1} = 1 - U_{2i}; `systematic` with one U for all strata, which has the
            least variance but is weak against periodic fields.
        along_curve: order pixels along a Hilbert curve instead of raster order.
    """

    def __init__(self, draw: Draw, *, along_curve: bool) -> None:
        self.draw: Draw = draw
        self.along_curve = along_curve

    def ranks(self, sizes: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """See `Sampler.ranks`."""
        return scale(_FRACTIONS[self.draw](len(sizes), n, generator), sizes[:, None])

    def pixels(self, mask: Tensor, n: int, generator: torch.Generator) -> PixelSample:
        """See `Sampler.pixels`."""
        spatial = mask.shape[2:].numel()
        if self.along_curve:
            order = hilbert_order(tuple(mask.shape[2:]), mask.device)
            mask = mask.flatten(2)[:, :, order]
        mask = mask.flatten(1)
        sizes = mask.sum(1)
        position = nth_true(mask, self.ranks(sizes, n, generator))
        if self.along_curve:
            image = position.div(spatial, rounding_mode="floor")
            position = image * spatial + order[position - image * spatial]
        return PixelSample(position, sizes > 0)


def nth_true(mask: Tensor, ranks: Tensor) -> Tensor:
    """Positions of the true elements of given rank in each row.

    Args:
        mask: (R, M) bool.
        ranks: (R, n) int64, each below its row's number of true elements.

    Returns:
        (R, n) int64 positions in [0, M); 0 for a row with no true element.
    """
    rows, length = mask.shape
    blocks = -(-length // _BLOCK)
    padded = torch.nn.functional.pad(mask, (0, blocks * _BLOCK - length)).view(rows, blocks, _BLOCK)
    ends = padded.sum(2).cumsum(1)
    block = torch.searchsorted(ends, ranks, right=True).clamp_max(blocks - 1)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp_min(0)), 0)
    row = torch.arange(rows, device=mask.device)[:, None]
    inside = padded[row, block].cumsum(2, dtype=torch.int32) <= (ranks - before)[..., None]
    offset = inside.sum(2)
    return torch.where(ends[:, -1:] > 0, block * _BLOCK + offset, 0)

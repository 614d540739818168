"""SG and SAG as the authors' released code draws them, faults included, to compare with (METHOD section 8).

The grid lies over a square into which the flat list of pixels is reshaped, not over the image, so that a
cell holds pieces of many rows of many images. Every cell gets the same quota, by integer division, whatever
it holds; what is missing is drawn uniformly. So pixels at the end of the list, beyond the square, come from
that remainder alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arco_core.sampling.base import PixelSample, Sampler
from arco_core.sampling.ordered import nth_true

_BLOCK = 16


class ReleasedSampler(Sampler):
    """Biased. Unlike all other samplers, loops over populations and waits for the device.

    Args:
        grid: cells along each side of the square.
        antithetic: SAG instead of SG: half of a cell's draws are point reflections of the other half.
    """

    def __init__(self, grid: int, *, antithetic: bool) -> None:
        self.grid = grid
        self.antithetic = antithetic

    def pixels(self, mask: Tensor, n: int, generator: torch.Generator) -> PixelSample:
        """See `Sampler.pixels`."""
        mask = mask.flatten(1)
        sizes = mask.sum(1)
        return PixelSample(nth_true(mask, self.ranks(sizes, n, generator)), sizes > 0)

    def ranks(self, sizes: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """See `Sampler.ranks`."""
        return torch.stack([self._draw(int(size), n, generator) for size in sizes.tolist()])

    def _draw(self, size: int, n: int, generator: torch.Generator) -> Tensor:
        side = round(math.sqrt(size))
        if side >= 2 * self.grid:
            rank = self._cells(side, n * side**2 // size // self.grid**2, generator)
        else:  # a cell of one place raises an error there, and a bare `except` draws by blocks instead
            rank = self._blocks(size, n, generator)
        rank = rank[rank < size]  # a square larger than the list has places without a pixel
        rank = rank[torch.randperm(len(rank), generator=generator, device=rank.device)][:n]
        missing = (n - len(rank),)
        extra = torch.randint(max(size, 1), missing, generator=generator, device=generator.device)
        return torch.cat([rank, extra])

    def _blocks(self, size: int, n: int, generator: torch.Generator) -> Tensor:
        """As many draws from each whole block of the list; none from what is left over at its end."""
        blocks = size // _BLOCK
        quota = n // blocks if blocks else 0
        shape = (blocks, quota // 2 if self.antithetic else quota)
        offset = torch.randint(_BLOCK, shape, generator=generator, device=generator.device)
        if self.antithetic:
            offset = torch.cat([offset, _BLOCK - 1 - offset], dim=1)
        return (torch.arange(blocks, device=offset.device)[:, None] * _BLOCK + offset).flatten()

    def _cells(self, side: int, quota: int, generator: torch.Generator) -> Tensor:
        """`quota` places in each cell of the square; one fewer if it is odd and they come in pairs."""
        low = torch.arange(self.grid, device=generator.device) * (side // self.grid)
        high = torch.cat([low[1:], low.new_tensor([side])])  # the last cell takes what is left over
        shape = (2, self.grid, self.grid, quota // 2 if self.antithetic else quota)
        u = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
        size = high - low
        row = low[:, None, None] + (u[0] * size[:, None, None]).long()
        column = low[:, None] + (u[1] * size[:, None]).long()
        rank = row * side + column
        if self.antithetic:
            reflection = (low + high - 1)[:, None, None] - row, (low + high - 1)[:, None] - column
            rank = torch.cat([rank, reflection[0] * side + reflection[1]], dim=2)
        return rank.flatten()

"""Stratified group sampling over a grid: SG and SAG (You et al. 2023, section 3.2).

A group is one class's pixels in one cell of a G × G (× G) grid laid over the class's bounding box in
one image. Group sizes come from prefix sums, and the r-th pixel of a cell from a search along one axis
after the other, so no pixel list is ever built or sorted.

The cells of an image come in the order of a Hilbert curve. With fewer draws than groups, rounded quotas
take every so manieth group: along the curve these lie all over the image, row by row in one column.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from arco_core.sampling.base import PixelSample, Sampler, scale, uniform
from arco_core.sampling.hilbert import hilbert_order


class GroupSampler(Sampler):
    """SG, and SAG when `antithetic`.

    Quotas are rounded at random, by one uniform offset over the cumulative sizes, so that
    E[n_m] = n · |P_m| / |P| exactly. SAG reflects every second draw of a group by rank (raster order
    in the cell, k <-> |P_m| - 1 - k): the point reflection on a full cell, measure-preserving on any.

    Args:
        grid: cells along each axis.
        antithetic: SAG instead of SG.
    """

    def __init__(self, grid: int, *, antithetic: bool) -> None:
        self.grid = grid
        self.antithetic = antithetic

    def ranks(self, sizes: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """See `Sampler.ranks`. Groups are grid² equal runs of the order.

        An order has one axis, whatever the images have: grid² is no more than a number of strata, for 3D
        patches too, though their classes have grid³ cells an image.
        """
        groups = self.grid**2
        edges = torch.arange(groups + 1, device=sizes.device) * sizes[:, None] // groups
        group, rank = self.draw(edges.diff(dim=1), n, generator)
        return edges.gather(1, group) + rank

    def pixels(self, mask: Tensor, n: int, generator: torch.Generator) -> PixelSample:
        """See `Sampler.pixels`."""
        cells = Cells(mask, self.grid)
        group, rank = self.draw(cells.sizes, n, generator)
        present = cells.sizes.sum(1) > 0
        return PixelSample(torch.where(present[:, None], cells.locate(group, rank), 0), present)

    def draw(self, sizes: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Groups (R, n), ascending, and ranks inside them (R, n), for group sizes (R, M)."""
        ends = sizes.cumsum(1)
        offset = uniform(len(sizes), 1, generator=generator)
        draws = torch.arange(n, device=sizes.device)
        group = torch.searchsorted(ends, scale((draws + offset) / n, ends[:, -1:]), right=True)
        group = group.clamp_max(sizes.shape[1] - 1)
        size = sizes.gather(1, group)
        rank = scale(uniform(len(sizes), n, generator=generator), size)
        if self.antithetic:
            position = draws - torch.searchsorted(group, group)  # within the draws of its group
            reflection = (size - 1 - rank.roll(1, dims=1)).clamp_min(0)  # an empty population has size 0
            rank = torch.where(position % 2 == 1, reflection, rank)
        return group, rank


class Cells:
    """The pixels of each class, by cell of a grid over its bounding box in each image."""

    def __init__(self, mask: Tensor, grid: int) -> None:
        self.spatial = mask.shape[2:]
        self.grid = grid
        self.edges = [_cell_edges(mask, axis, grid) for axis in range(len(self.spatial))]
        self.prefixes: list[Tensor] = []
        counts = mask
        for axis in reversed(range(len(self.spatial))):
            # counts: (K, B, S_1 … S_axis, G … G) -> (K, B, S_1 … S_{axis-1}, G, G … G)
            prefix = _prefix_sum(counts, axis + 2)
            edges = self.edges[axis].view(*mask.shape[:2], *[1] * axis, -1, *[1] * (mask.ndim - axis - 3))
            index = edges.expand(*prefix.shape[: axis + 2], grid + 1, *prefix.shape[axis + 3 :])
            counts = prefix.gather(axis + 2, index).diff(dim=axis + 2)
            self.prefixes.insert(0, prefix)
        self.order = hilbert_order((grid,) * len(self.spatial), mask.device)
        self.sizes = counts.flatten(2)[:, :, self.order].flatten(1).long()
        """(K, B · G^d) int64, images first, the cells of each along the curve."""

    def locate(self, group: Tensor, rank: Tensor) -> Tensor:
        """Flat positions (K, n) of the pixels of given rank (raster order) in given groups, (K, n) each."""
        position = image = group.div(len(self.order), rounding_mode="floor")
        cell = self.order[group % len(self.order)]
        cells: list[Tensor] = []
        for _ in self.spatial:
            cells.insert(0, cell % self.grid)
            cell = cell.div(self.grid, rounding_mode="floor")
        classes = torch.arange(len(group), device=group.device)[:, None].expand_as(group)
        found: list[Tensor] = []
        for axis, prefix in enumerate(self.prefixes):
            lines = prefix.movedim(axis + 2, -1)  # (K, B, S_1 … S_{axis-1}, G … G, S_axis + 1)
            line = lines[(classes, image, *found, *cells[axis + 1 :])]
            first = self.edges[axis][classes, image, cells[axis]]
            target = line.gather(2, first[..., None]) + rank[..., None]
            step = ((line <= target).sum(2) - 1).clamp(0, self.spatial[axis] - 1)
            rank = (target - line.gather(2, step[..., None])).squeeze(2)
            found.append(step)
            position = position * self.spatial[axis] + step
        return position


def _prefix_sum(counts: Tensor, dim: int) -> Tensor:
    """Cumulative sums along `dim` with a leading 0, int32."""
    sums = counts.cumsum(dim, dtype=torch.int32)
    return F.pad(sums, [0, 0] * (counts.ndim - dim - 1) + [1, 0])


def _cell_edges(mask: Tensor, axis: int, grid: int) -> Tensor:
    """(K, B, grid + 1) int64: where cells begin along `axis` of each class's bounding box."""
    others = [d for d in range(2, mask.ndim) if d != axis + 2]
    occupied = (mask.amax(others) if others else mask).to(torch.uint8)  # (K, B, S)
    any_occupied = occupied.amax(2)
    low = occupied.argmax(2)
    high = torch.where(any_occupied > 0, mask.shape[axis + 2] - occupied.flip(2).argmax(2), low)
    return low[..., None] + torch.arange(grid + 1, device=mask.device) * (high - low)[..., None] // grid

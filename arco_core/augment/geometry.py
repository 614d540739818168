"""Spatial transforms as sampling grids: rotation, crop and flip, a smooth random warp (2D), and inverses.

A grid (B, H, W, 2) or (B, D, H, W, 3) holds, for each output pixel, the (x, y) or (x, y, z) it is read
from, in [-1, 1] with pixel centres at the ends (`align_corners=True`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from arco_core.augment.random import chance, uniform
from arco_core.config.schema import AugmentConfig


def warp(maps: Tensor, grid: Tensor, *, nearest: bool = False, border: bool = False) -> Tensor:
    """Read `maps` (B, C, *S) at `grid` (B, *S, 2 or 3); outside is 0, or the nearest border pixel."""
    mode = "nearest" if nearest else "bilinear"
    padding = "border" if border else "zeros"
    # Places are never rounded to the maps' precision: bfloat16 tells no more than 256 of them along a side.
    dtype = torch.promote_types(maps.dtype, grid.dtype)
    read = F.grid_sample(maps.to(dtype), grid.to(dtype), mode=mode, padding_mode=padding, align_corners=True)
    return read.to(maps.dtype)


def identity_grid(height: int, width: int, device: torch.device) -> Tensor:
    """The grid (H, W, 2) that leaves a map as it is."""
    y = torch.linspace(-1.0, 1.0, height, device=device)
    x = torch.linspace(-1.0, 1.0, width, device=device)
    return torch.stack([x[None, :].expand(height, -1), y[:, None].expand(-1, width)], dim=2)


def _apply_affine(points: Tensor, angle: Tensor, scale: Tensor, mirror: Tensor, shift: Tensor) -> Tensor:
    """Map points (B, …, 2) by mirror (B,), rotation in radians (B,), scale (B,), then shift (B, 2)."""
    cos, sin = scale * angle.cos(), scale * angle.sin()
    sign = 1.0 - 2.0 * mirror.float()
    matrix = torch.stack([cos * sign, -sin, sin * sign, cos], dim=1).view(-1, 2, 2)
    flat = points.flatten(1, -2) @ matrix.transpose(1, 2) + shift[:, None]
    return flat.view(-1, *points.shape[1:])


def random_affine(
    batch: int, size: Sequence[int], config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """Grid (B, *S, 2 or 3) of a random rotation, crop and horizontal flip (the paper's weak augmentation).

    A crop keeps a share of all sides in [crop_min, 1] at a random place and scales it to full size.
    Patches turn about their depth, the through-plane axis: scans rarely have equal voxels along it. Pixels
    count as square in the plane, whatever the shape of the image.
    """
    device, (height, width) = generator.device, size[-2:]
    degrees = uniform((batch,), -config.rotation_degrees, config.rotation_degrees, generator)
    keep = uniform((batch,), config.crop_min, 1.0, generator)
    shift = uniform((batch, len(size)), -1.0, 1.0, generator) * (1.0 - keep)[:, None]
    mirror = chance((batch,), config.flip_probability, generator)
    aspect = _aspect((width - 1) / (height - 1), device)
    points = identity_grid(height, width, device)[None].expand(batch, -1, -1, -1) * aspect
    plane = _apply_affine(points, degrees.deg2rad(), keep, mirror, shift[:, :2] * aspect) / aspect
    if len(size) == 2:
        return plane
    z = torch.linspace(-1.0, 1.0, size[0], device=device) * keep[:, None] + shift[:, 2:]
    shape = (batch, *size, -1)
    return torch.cat([plane[:, None].expand(shape), z[:, :, None, None, None].expand(shape)], dim=4)


@lru_cache(maxsize=8)
def _aspect(ratio: float, device: torch.device) -> Tensor:
    """(2,): half image sides in half heights, along x and y. Kept, because it is a copy to the device."""
    return torch.tensor([ratio, 1.0], device=device)


def invert(grid: Tensor, steps: int = 6) -> Tensor:
    """The grid of the inverse map: what `grid` has warped, the inverse brings back, up to interpolation.

    Of the map q = A p + r(p), with A its best affine approximation, p = A⁻¹ (q - r(p)) is iterated. Every
    step shrinks the error by the slope of r relative to A: an affine map is inverted at once, the warps of
    `RandomWarp` to less than a hundredth of a pixel.

    Args:
        grid: (B, *S, 2 or 3) of a map that can be inverted; all sides of S at least 2.
        steps: of the iteration.

    Returns:
        (B, *S, 2 or 3). Pixels that `grid` never reads from point outside of [-1, 1].
    """
    axes, size = grid.shape[-1], grid.shape[1:-1]
    sides = [torch.linspace(-1.0, 1.0, side, device=grid.device, dtype=grid.dtype) for side in size]
    points = torch.stack(torch.meshgrid(*sides, indexing="ij")[::-1], dim=-1).view(-1, axes)
    values = grid.flatten(1, -2)
    offset = values.mean(1, keepdim=True)
    # The lattice's axes are orthogonal and centred, so that least squares needs no solver.
    matrix = values.transpose(1, 2) @ points / points.square().sum(0)
    rest = values - offset - points @ matrix.transpose(1, 2)
    rest_map = rest.transpose(1, 2).reshape(len(grid), axes, *size)
    back = torch.linalg.inv_ex(matrix).inverse.transpose(1, 2)  # inv would wait for the device
    inverse: Tensor = ((points - offset) @ back).view_as(grid)
    for _ in range(steps):
        moved = warp(rest_map, inverse, border=True).flatten(2).transpose(1, 2)
        inverse = ((points - offset - moved) @ back).view_as(grid)
    return inverse


class RandomWarp:
    """The warp of the equivariance term: random scale and mirror with small thin-plate jitter.

    A 5 × 5 lattice of control points is displaced by uniform noise of ± `jitter` (half image sides);
    a thin-plate spline (Bookstein, PAMI 1989) carries the displacement to every pixel. `invert` gives the way
    back.
    """

    def __init__(self, *, scale: tuple[float, float] = (0.8, 1.2), jitter: float = 0.01) -> None:
        self.scale = scale
        self.jitter = jitter

    def grid(self, batch: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """A grid (B, H, W, 2) for images of `size` (H, W)."""
        device = generator.device
        basis = _thin_plate_basis(*size, device)
        noise = uniform((batch, basis.shape[1], 2), -self.jitter, self.jitter, generator)
        points = identity_grid(*size, device) + (basis @ noise).view(batch, *size, 2)
        zero = torch.zeros(batch, device=device)
        zoom = 1.0 / uniform((batch,), *self.scale, generator)
        return _apply_affine(
            points, zero, zoom, chance((batch,), 0.5, generator), zero[:, None].expand(-1, 2)
        )


@lru_cache(maxsize=8)
def _thin_plate_basis(height: int, width: int, device: torch.device) -> Tensor:
    """(H·W, 25): the displacement of each pixel per unit displacement of each control point."""
    control = identity_grid(5, 5, torch.device("cpu")).view(-1, 2).double()
    pixels = identity_grid(height, width, torch.device("cpu")).view(-1, 2).double()

    def features(points: Tensor) -> Tensor:
        squared = torch.cdist(points, control).square()
        kernel: Tensor = squared * squared.clamp_min(1e-12).log()
        return torch.cat([kernel, torch.ones(len(points), 1, dtype=torch.float64), points], dim=1)

    side = features(control)  # (25, 28)
    system = torch.cat([side, torch.cat([side[:, 25:].T, torch.zeros(3, 3, dtype=torch.float64)], dim=1)])
    weights: Tensor = torch.linalg.solve(system, torch.eye(28, 25, dtype=torch.float64))
    return (features(pixels) @ weights).float().to(device)

"""The exact variance of the mean over a sample, for every sampler, from the whole population.

All samplers are unbiased, so Var = E‖mean of the sample‖² − ‖μ‖²; for values that are no scalars this is the
total variance, the trace of the covariance. In every sampler a draw depends on one or two uniforms, and on
each of them piecewise constantly: the expectations are finite sums. Positions are counted in units of 1 / n
pixel or, of strata and offsets, 1 / P, so that the ends of all pieces are whole numbers.

METHOD section 4; You et al. 2023, theorem 3.2, corrected: the between-group variance is weighted by w_m.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from arco_core.sampling.grid import Cells
from arco_core.sampling.hilbert import hilbert_order
from arco_core.variance.outer import Outer

_POINTS = 256
"""Values of the one uniform of `hilbert-systematic` over which its error is averaged."""
_PIXELS = 65536
"""Pixels located at once."""


def exact_variances(field: Outer, mask: Tensor, *, n: int, grid: int) -> dict[str, float]:
    """Variance of the mean over n sampled pixels, by the sampler's name.

    Exact, but for the integral over the one uniform of `hilbert-systematic`, which is a sum over 256 values.

    Args:
        field: one value a pixel of `mask`, in raster order.
        mask: (B, *S) bool, the population; not empty.
        n: sample size.
        grid: cells along each axis of SG and SAG.
    """
    mean = field.mean()
    spread = max(0.0, float(field.squares().mean()) - _square(mean))
    curve = field.take(curve_order(mask))
    strata = stratify(len(curve.left), n)
    hilbert, antithetic = _stratified(curve, strata, mean, spread, n)
    groups = cells_of(mask, grid)
    sg, sag = _grouped(field.take(groups.order), groups.sizes, mean, spread, n)
    variances = {
        "ns": spread / n,
        "sg": sg,
        "sag": sag,
        "hilbert": hilbert,
        "hilbert-antithetic": antithetic,
        "hilbert-systematic": _systematic(curve, mean, n),
    }
    return {name: max(0.0, value) for name, value in variances.items()}  # 0 comes with a rounding error


class Groups(NamedTuple):
    """The groups of SG and SAG."""

    order: Tensor
    """(P,) int64: pixels by group, and in a group by rank; numbers of the mask's pixels in raster order."""
    sizes: Tensor
    """(M,) int64."""


class Strata(NamedTuple):
    """The n equal strata of an ordered population, cut at the edges of pixels."""

    pixel: Tensor
    """(N,) int64, of each piece."""
    stratum: Tensor
    """(N,) int64, ascending."""
    share: Tensor
    """(N,) float64: the piece's share of its stratum."""


class Quotas(NamedTuple):
    """How many of the n draws the groups get, over the one uniform offset that rounds them."""

    share: Tensor
    """(J,) float64: probability of each outcome."""
    draws: Tensor
    """(J, M) int64, rows sum to n."""


def cells_of(mask: Tensor, grid: int) -> Groups:
    """The groups of a population (B, *S): pixels of a cell of the grid over the bounding box in an image."""
    cells = Cells(mask[None], grid)
    sizes = cells.sizes[0]
    group = torch.arange(len(sizes), device=mask.device).repeat_interleave(sizes)
    rank = torch.arange(len(group), device=mask.device) - (sizes.cumsum(0) - sizes)[group]
    parts = zip(*(torch.split(part[None], _PIXELS, dim=1) for part in (group, rank)), strict=True)
    position = torch.cat([cells.locate(g, r)[0] for g, r in parts])
    return Groups((mask.flatten().cumsum(0) - 1)[position], sizes)


def curve_order(mask: Tensor) -> Tensor:
    """(P,) int64: the pixels of a population (B, *S) along the Hilbert curve, image after image."""
    number = (mask.flatten().cumsum(0) - 1).view(len(mask), -1)
    order = hilbert_order(tuple(mask.shape[1:]), mask.device)
    return number[:, order][mask.flatten(1)[:, order]]


def stratify(size: int, n: int) -> Strata:
    """Cut a population of `size` into n equal strata."""
    cuts = _sorted(torch.arange(size) * n, torch.arange(n) * size, torch.tensor([size * n]))
    start = cuts[:-1]
    return Strata(start // n, start // size, cuts.diff().double() / size)


def quotas(sizes: Tensor, n: int) -> Quotas:
    """Every outcome of rounding the quotas n · |P_m| / |P|: draw i falls at (i + u) / n of them."""
    edges = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]) * n
    total = int(sizes.sum())
    breaks = _sorted(sizes.new_zeros(1), edges % total, sizes.new_full((1,), total))
    middle = 2 * breaks[:-1, None] + 1  # in units of 1 / 2P: breaks are whole, so no edge lies here
    first = -((middle - 2 * edges) // (2 * total))  # the first draw at or beyond each edge
    return Quotas(breaks.diff().double() / total, first.diff(dim=1))


def _grouped(field: Outer, sizes: Tensor, mean: Tensor, spread: float, n: int) -> tuple[float, float]:
    """SG and SAG, for values by group and rank."""
    members = torch.arange(len(field.left), device=sizes.device)
    group = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    means = field.sums(members, 1.0 / sizes[group].double(), group, len(sizes))
    end = sizes.cumsum(0)
    mirror = (2 * end - sizes - 1)[group] - members
    product = torch.zeros(len(sizes), dtype=torch.float64, device=sizes.device)
    product.index_add_(0, group, field.inner(members, mirror))
    covariance = product / sizes.clamp_min(1) - _squares(means)
    means -= mean
    means[sizes == 0] = 0
    share, draws = quotas(sizes, n)
    within = spread - float(sizes.double() / end[-1] @ _squares(means))
    # The part of the variance that rounding the quotas adds; nothing where all n w_m are whole numbers.
    rounding = float(share @ _squares(draws.to(means.dtype) / n @ means))
    pairs = share @ (draws // 2).double()
    sg = within / n + rounding
    return sg, sg + 2.0 / n**2 * float(pairs @ covariance)


def _stratified(field: Outer, strata: Strata, mean: Tensor, spread: float, n: int) -> tuple[float, float]:
    """Hilbert stratification with independent draws and with antithetic pairs, for values along the curve."""
    pixel, stratum, share = (part.to(mean.device) for part in strata)
    means = field.sums(pixel, share, stratum, n)
    paired = n // 2 * 2
    independent = float((means[0:paired:2] * means[1:paired:2]).sum(dtype=torch.float64))
    left, right, weight = _mirrored(len(field.left), n)
    mirrored = float(field.inner(left.to(mean.device), right.to(mean.device)) @ weight.to(mean.device))
    means -= mean
    variance = (spread - float(_squares(means).mean())) / n
    return variance, variance + 2.0 / n**2 * (mirrored - independent)


def _mirrored(size: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels that antithetic draws 2i and 2i + 1 take together, and how probable each couple is.

    With U in the first stratum and 1 - U in the second, the draws lie equally far from the outer ends.
    """
    pairs = torch.arange(n // 2)
    edges = torch.arange(size + 1) * n
    stratum, offset = edges // size, edges % size
    offset = torch.where(stratum % 2 == 0, offset, (size - offset) % size)
    inside = stratum < n // 2 * 2
    cuts = _sorted(pairs * size, (stratum // 2 * size + offset)[inside], torch.tensor([n // 2 * size]))
    low, high = cuts[:-1], cuts[1:]
    pair = low // size
    left = (pair * size + low) // n
    right = (3 * pair * size + 2 * size - high) // n
    return left, right, (high - low).double() / size


def _systematic(field: Outer, mean: Tensor, n: int) -> float:
    """One common uniform for all strata, for values along the curve."""
    middle = 2 * torch.arange(_POINTS, device=mean.device)[:, None] + 1
    start = 2 * _POINTS * torch.arange(n, device=mean.device)
    pixel = ((start + middle) * len(field.left)).div(2 * _POINTS * n, rounding_mode="floor").flatten()
    group = torch.arange(_POINTS, device=mean.device).repeat_interleave(n)
    means = field.sums(pixel, torch.full_like(pixel, 1.0 / n, dtype=torch.float64), group, _POINTS)
    return float(_squares(means - mean).mean())


def _sorted(*values: Tensor) -> Tensor:
    """All values in order, each once."""
    unique: Tensor = torch.unique_consecutive(torch.cat(values).sort().values)
    return unique


def _square(value: Tensor) -> float:
    return float(_squares(value[None]))


def _squares(rows: Tensor) -> Tensor:
    """Squared norms of rows, float64."""
    return torch.einsum("ij,ij->i", rows, rows).double()

"""Exact variances: by hand where that can be done, and against the samplers themselves."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from arco_core.config.schema import SAMPLER_NAMES
from arco_core.sampling import make_sampler
from arco_core.sampling.hilbert import hilbert_order
from arco_core.variance import Outer, exact_variances
from arco_core.variance.exact import cells_of, curve_order, quotas, stratify


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scalars(values: Tensor) -> Outer:
    rows = values.flatten()[:, None].double()
    return Outer(rows, torch.ones_like(rows))


def square(side: int = 16) -> Tensor:
    return torch.ones(1, side, side, dtype=torch.bool)


def ragged(images: int = 2) -> Tensor:
    """A ring with holes, of another size in each image; P, groups and strata do not divide each other."""
    y, x = torch.meshgrid(torch.arange(13.0), torch.arange(17.0), indexing="ij")
    radius = ((x - 8) ** 2 + (y - 6) ** 2).sqrt()
    rings = torch.stack([(radius < 6 - i) & (radius > 1.5) for i in range(images)])
    return rings & (torch.rand(rings.shape, generator=seeded(3)) < 0.9)


def matrices(mask: Tensor, seed: int = 0) -> Outer:
    """Smooth along the image, with noise on top."""
    place = mask.nonzero().double() / 5
    maps = torch.randn(2, place.shape[1], 3, dtype=torch.float64, generator=seeded(seed))
    noise = torch.randn(2, len(place), 3, dtype=torch.float64, generator=seeded(seed + 1))
    return Outer(*(torch.sin(place @ maps) + 0.3 * noise))


def simulate(name: str, field: Outer, mask: Tensor, n: int, draws: int = 3000) -> float:
    """Mean squared error of the sampler's estimates; each of many rows is one draw."""
    values = torch.zeros(mask.numel(), field.left.shape[1] * field.right.shape[1], dtype=torch.float64)
    values[mask.flatten()] = torch.einsum("pa,pb->pab", *field).flatten(1)
    sampler, generator = make_sampler(name, 3), seeded(7)
    rows = mask.expand(500, *mask.shape)
    total = 0.0
    for _ in range(draws // 500):
        means = values[sampler.pixels(rows, n, generator).position].mean(1)
        total += float((means - field.mean()).square().sum())
    return total / draws


@pytest.mark.parametrize("n", [7, 20, 180])
@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_the_samplers_have_the_variance_that_is_computed(name: str, n: int) -> None:
    """Total variance of matrices over a ragged population of 148 pixels, smaller and larger than n."""
    mask = ragged()
    field = matrices(mask)
    exact = exact_variances(field, mask, n=n, grid=3)[name]
    assert simulate(name, field, mask, n) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_three_dimensions(name: str) -> None:
    mask = torch.rand(2, 4, 5, 6, generator=seeded()) < 0.6
    field = matrices(mask)
    exact = exact_variances(field, mask, n=16, grid=3)[name]
    assert simulate(name, field, mask, 16) == pytest.approx(exact, rel=0.05)


def test_every_sampler_is_the_naive_one_for_a_single_draw() -> None:
    mask = ragged()
    variances = exact_variances(matrices(mask), mask, n=1, grid=4)
    assert tuple(variances) == SAMPLER_NAMES
    for name, value in variances.items():
        # The uniform of the systematic sampler takes 256 values, of pixels there are fewer.
        tolerance = 1e-2 if name == "hilbert-systematic" else 1e-12
        assert value == pytest.approx(variances["ns"], rel=tolerance)


def test_a_linear_field() -> None:
    """Columns 0 to 15: variance (16² - 1) / 12; in a cell of four columns (4² - 1) / 12: a seventeenth."""
    n = 32
    variances = exact_variances(scalars(torch.arange(16).expand(16, 16)), square(), n=n, grid=4)
    assert variances["ns"] == pytest.approx(255 / 12 / n, rel=1e-12)
    assert variances["sg"] == pytest.approx(variances["ns"] / 17, rel=1e-12)
    assert variances["sag"] == pytest.approx(0.0, abs=1e-12)  # two draws a cell, always its mean
    # 32 strata of 2 x 4 pixels along the curve, as many of them upright as lying.
    assert variances["hilbert"] == pytest.approx((3 / 12 + 15 / 12) / 2 / n, rel=1e-12)


def test_a_field_that_is_even_in_every_cell() -> None:
    distance = (torch.arange(16) % 4 - 1.5).abs()
    variances = exact_variances(scalars(distance[:, None] + distance), square(), n=32, grid=4)
    assert variances["sag"] == pytest.approx(2 * variances["sg"], rel=1e-12)


def test_sixteen_strata_of_the_curve_are_the_cells_of_the_grid() -> None:
    field = scalars(torch.randn(16, 16, generator=seeded()))
    variances = exact_variances(field, square(), n=16, grid=4)
    assert variances["hilbert"] == pytest.approx(variances["sg"], rel=1e-12)


@pytest.mark.parametrize("times", [1, 2])
def test_as_many_strata_as_pixels_leave_nothing_to_chance(times: int) -> None:
    mask = ragged()
    variances = exact_variances(matrices(mask), mask, n=times * int(mask.sum()), grid=4)
    for name in ("hilbert", "hilbert-antithetic", "hilbert-systematic"):
        assert variances[name] < 1e-12 * variances["ns"]


def test_rounding_the_quotas_costs_what_the_theorem_leaves_out() -> None:
    """Two groups of three and one pixels, two draws: quotas (2, 0) and (1, 1), half of the time each."""
    mask = torch.tensor([[[True, True, True, True]]])
    field = scalars(torch.tensor([0.0, 0.0, 0.0, 4.0]))
    outcomes = quotas(torch.tensor([3, 1]), 2)
    assert outcomes.share.tolist() == [0.5, 0.5]
    assert sorted(outcomes.draws.tolist()) == [[1, 1], [2, 0]]
    # Cells of one pixel: quotas are 0 or 1, and the mean 0 or 2 with equal probability.
    assert exact_variances(field, mask, n=2, grid=4)["sg"] == pytest.approx(1.0)
    assert exact_variances(field, mask, n=4, grid=4)["sg"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
def test_fewer_draws_than_groups_lie_all_over_the_image(transposed: bool) -> None:
    """In raster order every fourth of 16 groups would be one column of cells: 1.25, which is 4 times NS."""
    values = (torch.arange(16) // 4).expand(16, 16)
    field = scalars(values.T.contiguous() if transposed else values)
    variances = exact_variances(field, square(), n=4, grid=4)
    assert variances["ns"] == pytest.approx(1.25 / 4, rel=1e-12)
    assert variances["sg"] == pytest.approx(0.0625, rel=1e-12)
    sampler, generator = make_sampler("sg", 4), seeded()
    position = sampler.pixels(square().expand(2000, 1, 16, 16), 4, generator).position
    assert float(field.left[:, 0][position].mean(1).var()) == pytest.approx(0.0625, rel=0.1)


def test_fewer_draws_than_groups_can_still_cost_more_than_naive_sampling() -> None:
    """A field with the period of the rounded quotas along the curve: all draws are equal."""
    phase = torch.empty(16, dtype=torch.int64)
    phase[hilbert_order((4, 4), phase.device)] = torch.arange(16) % 4
    field = scalars(phase.view(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1))
    assert exact_variances(field, square(), n=4, grid=4)["sg"] == pytest.approx(1.25, rel=1e-12)


@pytest.mark.parametrize("n", [1, 4, 37])
def test_quotas_sum_to_n_and_have_the_exact_expectation(n: int) -> None:
    sizes = torch.tensor([3, 1, 5, 0, 2])
    share, draws = quotas(sizes, n)
    assert float(share.sum()) == pytest.approx(1.0)
    assert (draws.sum(1) == n).all() and (draws >= 0).all()
    torch.testing.assert_close(share @ draws.double(), n * sizes / sizes.sum().double())


@pytest.mark.parametrize(("size", "n"), [(7, 3), (3, 7), (6, 3), (1, 4)])
def test_strata_share_the_population_equally(size: int, n: int) -> None:
    pixel, stratum, share = stratify(size, n)
    ones = torch.ones(n, dtype=torch.float64)
    torch.testing.assert_close(torch.zeros_like(ones).index_add(0, stratum, share), ones)
    taken = torch.zeros(size, dtype=torch.float64).index_add(0, pixel, share)
    torch.testing.assert_close(taken, torch.full_like(taken, n / size))


def test_orders_are_permutations_of_the_population() -> None:
    mask = ragged()
    every = torch.arange(int(mask.sum()))
    assert torch.equal(curve_order(mask).sort().values, every)
    order, sizes = cells_of(mask, 4)
    assert torch.equal(order.sort().values, every) and int(sizes.sum()) == len(every)


def test_one_pixel_has_no_variance() -> None:
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[1, 2, 3] = True
    field = Outer(torch.randn(1, 5, generator=seeded()), torch.randn(1, 4, generator=seeded(1)))
    assert max(exact_variances(field, mask, n=16, grid=4).values()) < 1e-5


@pytest.mark.realdata
def test_real_shapes_and_intensities(real_data: Path) -> None:
    """A structure on eight slices of a scan: theory and sampler agree, and stratification pays."""
    folder = real_data / "Task04_Hippocampus"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    path = sorted((folder / "labelsTr").glob("*.nii.gz"))[0]
    label = torch.from_numpy(np.asarray(nib.load(path).dataobj).astype(np.int64)).movedim(2, 0)
    image = torch.from_numpy(nib.load(folder / "imagesTr" / path.name).get_fdata()).movedim(2, 0)
    slices = (label == 1).flatten(1).sum(1).topk(8).indices
    mask = label[slices] == 1
    field = scalars(image[slices][mask])
    exact = exact_variances(field, mask, n=64, grid=3)
    for name in ("sg", "hilbert"):
        assert simulate(name, field, mask, 64, draws=1500) == pytest.approx(exact[name], rel=0.15)
        assert exact[name] < 0.9 * exact["ns"]

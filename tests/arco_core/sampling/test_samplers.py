"""Samplers: unbiased, inside their class, and of the variance that the theory gives them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from arco_core.config import ConfigError
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.sampling import GroupSampler, make_sampler
from arco_core.sampling.ordered import nth_true

STRATIFIED = [name for name in SAMPLER_NAMES if name != "ns"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_mask(shape: tuple[int, ...], seed: int = 0, density: float = 0.3) -> Tensor:
    return torch.rand(shape, generator=seeded(seed)) < density


def counts(name: str, mask: Tensor, n: int, draws: int, grid: int = 4) -> Tensor:
    """How often each pixel of each class was drawn, (K, B · prod(S))."""
    sampler, generator = make_sampler(name, grid), seeded(1)
    total = torch.zeros(mask.flatten(1).shape)
    for _ in range(draws):
        index = sampler.pixels(mask, n, generator).position
        total.scatter_add_(1, index, torch.ones(index.shape))
    return total


@pytest.mark.parametrize("name", SAMPLER_NAMES)
@pytest.mark.parametrize("shape", [(2, 3, 9, 13), (2, 2, 5, 6, 7)], ids=["2d", "3d"])
def test_every_pixel_is_drawn_equally_often(name: str, shape: tuple[int, ...]) -> None:
    """Chi-square against n / |P| for every pixel, whatever the group sizes."""
    mask, n, draws = random_mask(shape), 37, 3000
    total = counts(name, mask, n, draws)
    assert (total[~mask.flatten(1)] == 0).all()
    for k in range(len(mask)):
        members = mask[k].flatten()
        size = int(members.sum())
        expected = n * draws / size
        chi2 = float(((total[k, members] - expected) ** 2 / expected).sum())
        # The counts of stratified samples vary less than multinomial ones, never more.
        assert chi2 < size + 5 * np.sqrt(2 * size)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_population_smaller_than_the_sample(name: str) -> None:
    mask = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    mask[0, 0, 2, 3] = mask[0, 1, 7, 7] = mask[0, 1, 0, 5] = True
    total = counts(name, mask, n=10, draws=600)
    assert torch.allclose(total[mask.flatten(1)] / 600, torch.tensor(10 / 3), rtol=0.1)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_absent_class_and_single_pixel(name: str) -> None:
    mask = torch.zeros(3, 2, 8, 8, dtype=torch.bool)
    mask[0, 1, 4, 5] = True
    mask[2] = True
    sample = make_sampler(name).pixels(mask, 16, seeded())
    assert sample.present.tolist() == [True, False, True]
    assert (sample.position[0] == 64 + 4 * 8 + 5).all()
    assert (sample.position[1] == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(SAMPLER_NAMES),
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    images=st.integers(1, 3),
    n=st.integers(1, 40),
    grid=st.integers(1, 6),
    density=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
)
def test_samples_stay_inside_their_class(
    name: str, shape: list[int], images: int, n: int, grid: int, density: float, seed: int
) -> None:
    mask = random_mask((2, images, *shape), seed, density)
    sample = make_sampler(name, grid).pixels(mask, n, seeded(seed))
    assert sample.position.shape == (2, n)
    assert torch.equal(sample.present, mask.flatten(1).any(1))
    inside = mask.flatten(1).gather(1, sample.position)
    assert inside[sample.present].all()


@example(sizes=[0], n=2, name="sag")
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    n=st.integers(1, 50),
    name=st.sampled_from(SAMPLER_NAMES),
)
def test_ranks_stay_inside_their_population(sizes: list[int], n: int, name: str) -> None:
    population = torch.tensor(sizes)
    ranks = make_sampler(name, 2).ranks(population, n, seeded())
    assert ranks.shape == (len(sizes), n)
    assert (ranks >= 0).all() and (ranks < population.clamp_min(1)[:, None]).all()


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_ranks_are_unbiased(name: str) -> None:
    sampler, generator = make_sampler(name, grid=2), seeded()
    total = torch.zeros(7)
    for _ in range(4000):
        total += sampler.ranks(torch.tensor([7]), 5, generator).flatten().bincount(minlength=7)
    assert torch.allclose(total / 4000, torch.tensor(5 / 7), rtol=0.08)


def test_quota_has_the_exact_expectation() -> None:
    """E[n_m] = n w_m: exactly, by integrating over the one uniform offset that rounds the quotas."""
    sizes, n = torch.tensor([3, 1, 5, 0, 2]), 4
    edges = torch.cat([torch.zeros(1), sizes.cumsum(0) * n / sizes.sum()]).double()
    breaks = sorted({0.0, 1.0, *[float(e % 1) for e in edges]})
    expected = torch.zeros(5, dtype=torch.float64)
    for low, high in itertools.pairwise(breaks):
        middle = (low + high) / 2
        quota = torch.searchsorted(edges, torch.arange(n) + middle, right=True) - 1
        expected += (high - low) * quota.bincount(minlength=5)
    assert torch.allclose(expected, n * sizes / sizes.sum().double())
    drawn = torch.zeros(5)
    sampler, generator = GroupSampler(4, antithetic=False), seeded()
    for _ in range(8000):
        drawn += sampler.draw(sizes[None], n, generator)[0][0].bincount(minlength=5)
    assert torch.allclose(drawn.double() / 8000, expected, atol=0.03)


def sample_variance(name: str, field: Tensor, mask: Tensor, n: int, draws: int = 4000) -> float:
    sampler, generator = make_sampler(name), seeded(3)
    rows = mask.expand(draws // 100, *mask.shape[1:]) if mask.shape[0] == 1 else mask
    means = [field.flatten()[sampler.pixels(rows, n, generator).position].mean(1) for _ in range(100)]
    return float(torch.cat(means).double().var())


def full_square(side: int = 16) -> Tensor:
    return torch.ones(1, 1, side, side, dtype=torch.bool)


def test_theorem_3_2_corrected_by_simulation() -> None:
    """The sampler itself, on a large population with quotas that are integers."""
    side, n = 16, 32
    field = torch.randn(side, side, generator=seeded(5)) + torch.arange(side)[:, None] * 0.4
    cells = field.view(4, 4, 4, 4).transpose(1, 2).reshape(16, 16).double()
    within = cells.var(1, correction=0).mean() / n
    assert sample_variance("sg", field, full_square(), n) == pytest.approx(float(within), rel=0.08)
    naive = field.double().var(correction=0) / n
    assert sample_variance("ns", field, full_square(), n) == pytest.approx(float(naive), rel=0.08)


def test_antithetic_wins_on_a_monotone_field_and_loses_on_an_even_one() -> None:
    monotone = torch.arange(256.0).view(16, 16)
    centred = torch.arange(16.0) % 4 - 1.5
    even = centred[:, None].abs() + centred[None].abs()  # symmetric about the centre of every cell
    sg, sag = (sample_variance(s, monotone, full_square(), 32) for s in ("sg", "sag"))
    assert sag < 0.2 * sg
    sg, sag = (sample_variance(s, even, full_square(), 32) for s in ("sg", "sag"))
    assert 1.7 * sg < sag < 2.3 * sg  # and Var[SAG] <= 2 Var[SG]


@pytest.mark.parametrize("name", STRATIFIED)
def test_stratification_lowers_the_variance_on_a_smooth_field(name: str) -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    field = torch.sin(x / 9) + torch.cos(y / 7)
    mask = ((x - 15) ** 2 + (y - 14) ** 2 < 150)[None, None]
    ratio = sample_variance(name, field, mask, 64) / sample_variance("ns", field, mask, 64)
    assert ratio < (0.35 if name in ("sg", "sag") else 0.15)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_same_generator_same_draws(name: str) -> None:
    mask = random_mask((2, 2, 16, 16))
    first, second = (make_sampler(name).pixels(mask, 20, seeded(7)).position for _ in range(2))
    assert torch.equal(first, second)


def test_reflection_is_by_rank_within_the_group() -> None:
    sizes = torch.tensor([[5, 9, 1]])
    group, rank = GroupSampler(4, antithetic=True).draw(sizes, 60, seeded())
    for g in range(3):
        mine = rank[0, group[0] == g]
        pairs = mine[: len(mine) // 2 * 2].view(-1, 2)
        assert (pairs.sum(1) == sizes[0, g] - 1).all()


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4), length=st.integers(1, 700), density=st.floats(0.0, 1.0), seed=st.integers(0, 99)
)
def test_nth_true_is_nonzero(rows: int, length: int, density: float, seed: int) -> None:
    mask = random_mask((rows, length), seed, density)
    for row in mask:
        true = row.nonzero().flatten()
        if len(true):
            assert torch.equal(nth_true(row[None], torch.arange(len(true))[None])[0], true)
        else:
            assert (nth_true(row[None], torch.zeros(1, 3, dtype=torch.long)) == 0).all()


def test_unknown_sampler_is_refused() -> None:
    with pytest.raises(ConfigError, match="hilbert"):
        make_sampler("sgg")

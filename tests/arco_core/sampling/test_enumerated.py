"""The samplers themselves, by every outcome of their uniforms: expectations and variances without chance.

A draw depends on its uniforms piecewise constantly, with equal pieces, so one value out of each piece stands
for all of them. A row of the mask is one outcome.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from arco_core.config.schema import SAMPLER_NAMES
from arco_core.sampling import make_sampler
from arco_core.sampling.grid import Cells
from arco_core.variance import Outer, exact_variances

GROUPED = ("sg", "sag")
GRID = 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def middles(pieces: int) -> Tensor:
    """One number out of each of so many equal pieces of [0, 1)."""
    return (torch.arange(pieces, dtype=torch.float64) + 0.5) / pieces


def common_multiple(mask: Tensor, grid: int) -> int:
    """Of the sizes of all groups: pieces into which ranks cut a uniform."""
    return math.lcm(*(size for size in Cells(mask, grid).sizes[0].tolist() if size))


def draw(
    name: str, mask: Tensor, n: int, uniforms: Sequence[Tensor], monkeypatch: pytest.MonkeyPatch, grid: int
) -> Tensor:
    """Positions (R, n) of `mask` (1, B, *S) when the sampler's uniforms are `uniforms`, R rows a call."""
    left = list(uniforms)

    def given_uniform(*shape: int, generator: torch.Generator) -> Tensor:
        return left.pop(0).expand(shape)

    for module in ("grid", "ordered"):
        monkeypatch.setattr(f"arco_core.sampling.{module}.uniform", given_uniform)
    rows = mask.expand(len(uniforms[0]), *mask.shape[1:])
    positions = make_sampler(name, grid).pixels(rows, n, torch.Generator()).position
    assert not left
    return positions


MASKS = {
    "2d": torch.rand(1, 2, 5, 6, generator=seeded(1)) < 0.4,
    "3d": torch.rand(1, 2, 3, 4, 3, generator=seeded(2)) < 0.3,
    "an empty image": (torch.rand(1, 2, 5, 6, generator=seeded(3)) < 0.4)
    & torch.tensor([True, False]).view(1, 2, 1, 1),
    "one pixel": torch.arange(30).view(1, 1, 5, 6) == 17,
}


@pytest.mark.parametrize("name", SAMPLER_NAMES)
@pytest.mark.parametrize("case", MASKS)
@pytest.mark.parametrize("n", [1, 4, 7, 50])
def test_every_pixel_is_expected_equally_often(
    name: str, case: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E[count] = n / P exactly, in whole numbers; marginal laws suffice, so draws may share a uniform."""
    mask, grid = MASKS[case], 3
    size = int(mask.sum())
    uniforms = [middles(size)[:, None]]
    if name in GROUPED:
        pairs = torch.cartesian_prod(middles(size), middles(common_multiple(mask, grid)))
        uniforms = [pairs[:, :1], pairs[:, 1:]]
    positions = draw(name, mask, n, uniforms, monkeypatch, grid)
    counts = positions.flatten().bincount(minlength=mask.numel())
    outcomes = len(uniforms[0])
    assert torch.equal(counts * size, n * outcomes * mask.flatten())


def ragged() -> Tensor:
    """Eight pixels in cells of four, two, two and none: of four draws 2, 1, 1 and 0."""
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2, :2] = True
    mask[0, 0, [0, 1], [3, 2]] = True
    mask[0, 0, [2, 3], [1, 0]] = True
    return mask


GROUPS = torch.tensor([0, 0, 1, 0, 0, 1, 2, 2])
"""Cell of each pixel of `ragged`, in raster order."""
FIELD = torch.tensor([0.3, 1.7, -2.0, 5.0, 4.0, 0.5, 9.0, 4.5], dtype=torch.float64)


def enumerated_variance(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Of the mean of `FIELD` over a sample of `ragged`, over every outcome of independent uniforms."""
    mask = ragged()
    size, pieces = int(mask.sum()), common_multiple(mask, GRID)
    if name in GROUPED:
        every = torch.tensor([*itertools.product(middles(size), *[middles(pieces)] * n)])
        uniforms = [every[:, :1], every[:, 1:]]
    else:
        independent = (n + 1) // 2 if name == "hilbert-antithetic" else n
        uniforms = [torch.tensor([*itertools.product(*[middles(size)] * independent)])]
    positions = draw(name, mask, n, uniforms, monkeypatch, GRID)
    values = torch.zeros(mask.numel(), dtype=torch.float64)
    values[mask.flatten()] = FIELD
    means = values[positions].mean(1)
    assert float(means.mean()) == pytest.approx(float(FIELD.mean()), rel=1e-12)
    return float(means.var(correction=0))


def test_theorem_3_2_corrected_holds_for_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Var[SG] = Var[NS] - (1/n) Σ w_m (μ_m - μ)² = Σ n_m σ²_m / n²; not as the paper prints them."""
    n = 4
    naive, stratified = (enumerated_variance(name, n, monkeypatch) for name in ("ns", "sg"))
    parts = [FIELD[m == GROUPS] for m in range(3)]
    weights = [len(part) / len(FIELD) for part in parts]
    between = [float((part.mean() - FIELD.mean()) ** 2) for part in parts]
    within = [float(part.var(correction=0)) for part in parts]
    weighted = sum(w * b for w, b in zip(weights, between, strict=True))
    assert naive == pytest.approx(float(FIELD.var(correction=0)) / n, rel=1e-12)
    assert stratified == pytest.approx(naive - weighted / n, rel=1e-12)
    assert stratified == pytest.approx(
        sum(n * w * s for w, s in zip(weights, within, strict=True)) / n**2, rel=1e-12
    )
    assert abs(stratified - (naive - sum(between) / n)) > 0.5
    assert abs(stratified - sum(s * n * w / n for w, s in zip(weights, within, strict=True))) > 0.5


@pytest.mark.parametrize("name", [name for name in SAMPLER_NAMES if name != "hilbert-systematic"])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_variance_that_is_computed_is_that_of_the_sampler(
    name: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether n · w_m is whole or not."""
    field = Outer(FIELD[:, None], torch.ones(8, 1, dtype=torch.float64))
    exact = exact_variances(field, ragged()[0], n=n, grid=GRID)[name]
    assert enumerated_variance(name, n, monkeypatch) == pytest.approx(exact, rel=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 8), min_size=2, max_size=3),
    images=st.integers(1, 4),
    n=st.integers(1, 40),
    grid=st.integers(1, 4),
    density=st.floats(0.1, 1.0),
    seed=st.integers(0, 10_000),
    even=st.booleans(),
)
def test_sag_has_at_most_twice_the_variance_of_sg(
    shape: list[int], images: int, n: int, grid: int, density: float, seed: int, even: bool
) -> None:
    """Whatever mask and field; one that is even about the middle of all images is the hardest."""
    mask = torch.rand(images, *shape, generator=seeded(seed)) < density
    if not mask.any():
        return
    values = torch.randn(mask.shape, generator=seeded(seed + 1), dtype=torch.float64)
    if even:
        mask, values = mask | mask.flip(1, 2), values + values.flip(1, 2)
    rows = values[mask][:, None]
    variances = exact_variances(Outer(rows, torch.ones_like(rows)), mask, n=n, grid=grid)
    assert variances["sag"] <= 2 * variances["sg"] + 1e-12 * float(rows.square().mean())


LARGE, DRAWS, SAMPLE, BLOCK = 5233, 200, 256, 49


def chi_square(positions: Tensor, members: Tensor) -> float:
    """Of how often each block of members was drawn, against equal frequencies; the last one is full."""
    counts = positions.flatten().bincount(minlength=len(members))
    assert int(counts[~members].sum()) == 0
    blocks = counts[members].flip(0).split(BLOCK)
    drawn = torch.tensor([int(block.sum()) for block in blocks])
    expected = torch.tensor([len(block) for block in blocks]) * positions.numel() / len(counts[members])
    return float(((drawn - expected).square() / expected).sum())


BOUND = LARGE / BLOCK + 5 * math.sqrt(2 * LARGE / BLOCK)
"""Five standard deviations above the mean of independent draws; counts of stratified ones vary less."""


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_a_large_population_is_drawn_evenly(name: str) -> None:
    """5233 pixels, of which the released code draws the last 49 far too rarely."""
    mask, sampler = torch.zeros(1, 2, 64, 64, dtype=torch.bool), make_sampler(name)
    mask.view(-1)[torch.randperm(mask.numel(), generator=seeded())[:LARGE]] = True
    positions = sampler.pixels(mask.expand(DRAWS, *mask.shape[1:]), SAMPLE, seeded(1)).position
    assert chi_square(positions, mask.flatten()) < BOUND
    ranks = sampler.ranks(torch.full((DRAWS,), LARGE), SAMPLE, seeded(2))
    assert chi_square(ranks, torch.ones(LARGE, dtype=torch.bool)) < BOUND


@pytest.mark.parametrize("name", ["sg-released", "sag-released"])
def test_the_same_statistic_finds_the_bias_of_the_released_code(name: str) -> None:
    ranks = make_sampler(name).ranks(torch.full((DRAWS,), LARGE), SAMPLE, seeded(2))
    assert chi_square(ranks, torch.ones(LARGE, dtype=torch.bool)) > 2 * BOUND

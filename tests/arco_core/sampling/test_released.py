"""The released code's SG and SAG: their faults, each beside the sampler that does not have it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from arco_core.config.released import RELEASED_SAMPLERS
from arco_core.sampling import make_sampler


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(name: str, size: int, n: int, draws: int) -> Tensor:
    """How often each of `size` members is drawn, relative to n / size."""
    sizes = torch.full((draws,), size)
    drawn = make_sampler(name).ranks(sizes, n, seeded()).flatten()
    return drawn.bincount(minlength=size) * size / (n * draws)


def expected_shares(size: int, n: int) -> Tensor:
    """The same in expectation, written out cell by cell; size at least 57, and the square no larger."""
    side = round(math.sqrt(size))
    assert side**2 <= size
    quota = n * side**2 // size // 16
    expected = torch.full((size,), (n - 16 * quota) / size)
    for place in range(side**2):
        width = [side // 4 if cell < 3 else side - 3 * (side // 4) for cell in range(4)]
        row, column = (min(at // (side // 4), 3) for at in divmod(place, side))
        expected[place] += quota / (width[row] * width[column])
    return expected * size / n


@pytest.mark.parametrize(("name", "right"), [("sg-released", "sg"), ("sag-released", "sag")])
def test_the_last_pixels_are_drawn_too_rarely(name: str, right: str) -> None:
    """Of 5233 pixels 72² are in the square; the last 49 come from the 16 of 256 draws that are topped up."""
    size, n, draws = 5233, 256, 1500
    last = slice(72**2, None)
    share = shares(name, size, n, draws)
    topped_up = 16 if name == "sg-released" else 32  # SAG's quota of 15 is 7 pairs
    assert float(share[last].mean()) == pytest.approx(topped_up / n, rel=0.2)
    assert float(shares(right, size, n, draws)[last].mean()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("size", [130, 500])
def test_quotas_are_by_cell_and_not_by_size(size: int) -> None:
    """Every cell of the square gets the same quota, though the last row and column of cells are larger."""
    wanted = expected_shares(size, 64)
    assert float(wanted.max() / wanted[: math.isqrt(size)].min()) > 1.2
    torch.testing.assert_close(shares("sg-released", size, 64, 20_000), wanted, rtol=0.15, atol=0.02)
    even = shares("sg", size, 64, 20_000)
    torch.testing.assert_close(even, torch.ones(size), rtol=0.15, atol=0.02)


@pytest.mark.parametrize("name", RELEASED_SAMPLERS)
def test_small_lists_change_the_sampler(name: str) -> None:
    """With cells of one place its bare `except` draws from blocks of 16, and here never from the last 13."""
    share = shares(name, 29, 64, 500)
    assert (share[16:] == 0).all() and (share[:16] > 1.5).all()
    assert (shares("sg", 29, 64, 500) > 0.9).all()


def test_the_grid_is_not_over_the_image() -> None:
    """On a field that is constant in each cell over the image SG leaves no variance, released SG most."""
    side, n = 32, 64
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    mask = (x + y < side)[None, None]  # a triangle: its list of pixels is no image
    field = ((x // 8 + 2 * (y // 8)) % 5).float().flatten()
    spread = {}
    for name in ("ns", "sg", "sg-released"):
        position = make_sampler(name).pixels(mask.expand(1500, *mask.shape[1:]), n, seeded()).position
        spread[name] = float(field[position].mean(1).var())
    assert spread["sg"] < 0.1 * spread["ns"]
    assert spread["sg-released"] > 0.4 * spread["ns"]


@pytest.mark.parametrize("name", RELEASED_SAMPLERS)
@pytest.mark.parametrize("n", [1, 40])
def test_samples_stay_inside_their_class(name: str, n: int) -> None:
    mask = torch.rand(6, 2, 20, 20, generator=seeded()) < 0.5
    mask[1] = False
    mask[2] = torch.arange(800).view(2, 20, 20) == 77
    mask[3] = torch.arange(800).view(2, 20, 20) % 16 == 0
    sample = make_sampler(name).pixels(mask, n, seeded())
    assert sample.present.tolist() == [True, False, True, True, True, True]
    assert sample.position.shape == (6, n)
    assert mask.flatten(1).gather(1, sample.position)[sample.present].all()
    assert torch.equal(sample.position, make_sampler(name).pixels(mask, n, seeded()).position)


def test_reflections_are_through_the_centre_of_the_cell() -> None:
    """On 256 members, a square: the sum of a SAG sample of whole pairs is the same in every draw."""
    ranks = make_sampler("sag-released").ranks(torch.full((50,), 256), 64, seeded())
    assert (ranks.sum(1) == 64 * 255 / 2).all()
    assert make_sampler("sg-released").ranks(torch.full((50,), 256), 64, seeded()).sum(1).unique().numel() > 1

"""CPU and GPU give the same positions for the same uniforms; only their generators differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from arco_core.banks import Bank
from arco_core.config.schema import SAMPLER_NAMES
from arco_core.sampling import make_sampler

DEVICES = [pytest.param("cuda", marks=pytest.mark.gpu), "cpu"]
"""The CPU stands beside itself, so that the test is not dead where there is no GPU."""


@pytest.fixture(autouse=True)
def same_uniforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uniforms of a generator are those of a CPU's with its seed."""

    def uniform(*shape: int, generator: torch.Generator) -> Tensor:
        source = torch.Generator().manual_seed(generator.initial_seed())
        return torch.rand(*shape, generator=source, dtype=torch.float64).to(generator.device)

    for module in ("grid", "ordered"):
        monkeypatch.setattr(f"arco_core.sampling.{module}.uniform", uniform)


def on(device: str, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SAMPLER_NAMES)
@pytest.mark.parametrize("shape", [(3, 2, 33, 47), (3, 2, 9, 10, 11)], ids=["2d", "3d"])
def test_same_uniforms_same_pixels(name: str, shape: tuple[int, ...], device: str) -> None:
    mask = torch.rand(shape, generator=on("cpu", 0)) < 0.3
    mask[1] = False
    sampler = make_sampler(name)
    for n in (1, 37, 256):
        expected = sampler.pixels(mask, n, on("cpu", n))
        found = sampler.pixels(mask.to(device), n, on(device, n))
        assert found.position.device.type == device
        assert torch.equal(found.position.cpu(), expected.position)
        assert torch.equal(found.present.cpu(), expected.present)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_same_uniforms_same_keys(name: str, device: str) -> None:
    keys = torch.randn(3, 20, 5, generator=on("cpu", 1))
    banks = [Bank(3, 32, 5).to(target) for target in ("cpu", device)]
    for bank in banks:
        for _ in range(2):  # around the end
            bank.push(keys.to(bank.keys.device))
    expected, found = (
        bank.draw_others(make_sampler(name), 2, 40, on(bank.keys.device.type, 3))[0] for bank in banks
    )
    torch.testing.assert_close(found.cpu(), expected)

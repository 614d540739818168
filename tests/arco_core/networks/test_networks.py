"""U-Net and V-Net: sizes, pyramids, and errors for images that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from arco_core.config import NetworkConfig
from arco_core.networks import PyramidNetwork, build_network

SIDES = {"unet": (32, 48), "vnet": (16, 32, 48)}
AT_BOTH_ENDS = (0.5, 0.0, 0.0, 0.0, 0.5)


def network(kind: str, **settings: tuple[float, ...]) -> PyramidNetwork:
    return build_network(1, 2, NetworkConfig(kind=kind, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "parameters"), [("unet", 1_813_764), ("vnet", 9_448_866)])
def test_sizes_are_those_of_the_literature(kind: str, parameters: int) -> None:
    """Counted on the networks of SSL4MIS: U-Net with ACDC's 4 classes, V-Net with LA's 2."""
    built = build_network(1, 4 if kind == "unet" else 2, NetworkConfig(kind=kind))
    assert sum(p.numel() for p in built.parameters()) == parameters


@pytest.mark.parametrize("kind", SIDES)
def test_pyramid_goes_from_coarse_to_fine(kind: str) -> None:
    net, sides = network(kind).eval(), SIDES[kind]
    with torch.inference_mode():
        x = torch.rand(2, 1, *sides)
        logits, pyramid = net.forward_pyramid(x)
        assert torch.equal(net(x), logits)
    assert logits.shape == (2, 2, *sides)
    expected = [(2, c, *(s // 2 ** (4 - n) for s in sides)) for n, c in enumerate((256, 128, 64, 32, 16))]
    assert [tuple(level.shape) for level in pyramid] == expected
    assert net.pyramid_channels == (256, 128, 64, 32, 16)


def _convolutions(block: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv3d) for module in block.modules())


def test_vnet_convolves_once_twice_and_then_three_times_a_level() -> None:
    net = network("vnet")
    assert [_convolutions(block) for block in net.get_submodule("encoder").children()] == [1, 2, 3, 3, 3]
    assert [_convolutions(block) for block in net.get_submodule("decoder").children()] == [3, 3, 2, 1]


def test_vnet_drops_whole_channels_after_both_ends_and_shows_features_before() -> None:
    net = network("vnet", dropout=AT_BOTH_ENDS).train()
    seen: dict[str, torch.Tensor] = {}
    net.head.register_forward_pre_hook(lambda module, args: seen.update(head=args[0]))
    net.up[0].register_forward_pre_hook(lambda module, args: seen.update(up=args[0]))
    _, pyramid = net.forward_pyramid(torch.rand(2, 1, 32, 32, 32))
    for features, dropped in ((pyramid[0], seen["up"]), (pyramid[-1], seen["head"])):
        kept = dropped.flatten(2).abs().sum(2) > 0
        assert 0 < kept.float().mean() < 1
        torch.testing.assert_close(dropped, 2 * features * kept[:, :, None, None, None])


@pytest.mark.parametrize("kind", SIDES)
def test_images_that_do_not_fit_are_told(kind: str) -> None:
    net, sides = network(kind), SIDES[kind]
    with pytest.raises(ValueError, match=r"all sides must be multiples of 16; pad or crop"):
        net(torch.zeros(1, 1, *sides[:-1], 40))
    with pytest.raises(ValueError, match=f"network.kind = '{kind}' takes {len(sides)} axes"):
        net(torch.zeros(1, 1, *[32] * (5 - len(sides))))

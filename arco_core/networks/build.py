"""Networks by name."""

from __future__ import annotations

from arco_core.config.network import NetworkConfig
from arco_core.networks.base import PyramidNetwork
from arco_core.networks.unet import UNet
from arco_core.networks.vnet import VNet

_KINDS: dict[str, type[PyramidNetwork]] = {"unet": UNet, "vnet": VNet}


def build_network(in_channels: int, classes: int, config: NetworkConfig) -> PyramidNetwork:
    """A freshly initialised network of `config.kind`; see `PyramidNetwork`."""
    return _KINDS[config.kind](in_channels, classes, config)

"""Networks by name."""

from __future__ import annotations

import torch

from arco_core.config.network import NetworkConfig
from arco_core.networks.base import PyramidNetwork
from arco_core.networks.unet import UNet
from arco_core.networks.vnet import VNet

_KINDS: dict[str, type[PyramidNetwork]] = {"unet": UNet, "vnet": VNet}


def channels_last(config: NetworkConfig) -> torch.memory_format:
    """The format of weights and maps in which a network's convolutions are fastest, on CPUs too."""
    return torch.channels_last if config.spatial_axes == 2 else torch.channels_last_3d


def build_network(in_channels: int, classes: int, config: NetworkConfig) -> PyramidNetwork:
    """A freshly initialised network of `config.kind`, in channels last; see `PyramidNetwork`."""
    network = _KINDS[config.kind](in_channels, classes, config)
    return network.to(memory_format=channels_last(config))  # type: ignore[call-overload, no-any-return]

"""The 3D V-Net of the semi-supervised literature (Yu et al., UA-MT, MICCAI 2019): 5 levels, 9.4 M parameters.

Written here because no library's V-Net matches it. MONAI's follows Milletari et al. (3DV 2016): 5 x 5 x 5
convolutions, concatenated skips, widths that cannot be set, 46 M parameters, and no features of its levels.
This one has 3 x 3 x 3 convolutions and adds its skips.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from arco_core.config.network import NetworkConfig
from arco_core.networks.base import PyramidNetwork


def _normalised(convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm3d(channels), nn.ReLU(inplace=True))


def _block(in_channels: int, channels: int, level: int) -> nn.Sequential:
    """1, 2, 3, 3, … convolutions at level 0, 1, 2, 3, …"""
    widths = (in_channels, *[channels] * min(level + 1, 3))
    return nn.Sequential(*(_normalised(nn.Conv3d(i, o, 3, padding=1), o) for i, o in pairwise(widths)))


class VNet(PyramidNetwork):
    """3D V-Net; see `PyramidNetwork`."""

    def __init__(self, in_channels: int, classes: int, config: NetworkConfig) -> None:
        super().__init__(in_channels, classes, config)
        widths = config.features
        inputs = (in_channels, *widths[1:])
        self.encoder = nn.ModuleList(
            _block(i, o, n) for n, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.down = nn.ModuleList(_normalised(nn.Conv3d(i, o, 2, stride=2), o) for i, o in pairwise(widths))
        self.up = nn.ModuleList(
            _normalised(nn.ConvTranspose3d(i, o, 2, stride=2), o) for i, o in pairwise(widths[::-1])
        )
        self.decoder = nn.ModuleList(_block(w, w, n) for n, w in reversed(list(enumerate(widths[:-1]))))
        self.dropout = nn.ModuleList(nn.Dropout3d(p) for p in config.dropout)
        self.head = nn.Conv3d(widths[0], classes, 1)

    def forward_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `PyramidNetwork.forward_pyramid`; features are those before dropout."""
        self.check_size(x)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.down[level - 1](x) if level else x)
            skips.append(x)
        pyramid = [skips.pop()]
        for up, block, dropout in zip(self.up, self.decoder, list(self.dropout)[:0:-1], strict=True):
            pyramid.append(block(up(dropout(pyramid[-1])) + skips.pop()))
        return self.head(self.dropout[0](pyramid[-1])), pyramid

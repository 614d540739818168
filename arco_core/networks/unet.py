"""The 2D U-Net of the semi-supervised literature (Luo et al., SSL4MIS): 5 levels, 1.8 M parameters.

Written here because no library's U-Net matches it: dropout that grows with depth, and the decoder
features of every level as an output, which the contrastive head reads.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arco_core.config.network import NetworkConfig
from arco_core.networks.base import PyramidNetwork


def _conv_block(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(inplace=True),
    )


class _UpBlock(nn.Module):
    """Project, upsample by 2 (bilinear), concatenate the encoder's features, convolve twice."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.conv = _conv_block(2 * out_channels, out_channels, dropout=0.0)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.project(x), size=skip.shape[-2:], mode="bilinear", align_corners=True)
        out: Tensor = self.conv(torch.cat([skip, x], dim=1))
        return out


class UNet(PyramidNetwork):
    """2D U-Net; see `PyramidNetwork`."""

    def __init__(self, in_channels: int, classes: int, config: NetworkConfig) -> None:
        super().__init__(in_channels, classes, config)
        widths = (in_channels, *config.features)
        self.encoder = nn.ModuleList(
            _conv_block(i, o, d) for (i, o), d in zip(pairwise(widths), config.dropout, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.decoder = nn.ModuleList(_UpBlock(c, f) for c, f in pairwise(config.features[::-1]))
        self.head = nn.Conv2d(config.features[0], classes, 3, padding=1)

    def forward_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `PyramidNetwork.forward_pyramid`."""
        self.check_size(x)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        pyramid = [skips.pop()]
        for block in self.decoder:
            pyramid.append(block(pyramid[-1], skips.pop()))
        return self.head(pyramid[-1]), pyramid

"""What the stages need of a network: logits, and the features of every level."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from arco_core.config.network import NetworkConfig


class PyramidNetwork(nn.Module, ABC):
    """A segmentation network whose decoder's features can be read.

    Args:
        in_channels: channels C of the image.
        classes: number of classes K, background included.
        config: channels and dropout of each level, fine to coarse.
    """

    def __init__(self, in_channels: int, classes: int, config: NetworkConfig) -> None:
        super().__init__()
        self.in_channels, self.classes, self.config = in_channels, classes, config

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of each level of the pyramid, coarse to fine."""
        return self.config.features[::-1]

    @abstractmethod
    def forward_pyramid(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, K, *S) and features coarse to fine: (B, C_l, *S / 2^l), l = L-1 … 0.

        The first is the bottleneck, the others are the decoder's. The sides *S of `x` (B, C, *S) must be
        multiples of 2^(L-1).
        """

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, *S) of images (B, C, *S)."""
        return self.forward_pyramid(x)[0]

    def check_size(self, x: Tensor) -> None:
        """Raise `ValueError` unless images `x` have the axes and sides that this network needs."""
        sides, axes = tuple(x.shape[2:]), self.config.spatial_axes
        if len(sides) != axes:
            raise ValueError(
                f"images of {sides} pixels: network.kind = {self.config.kind!r} takes {axes} axes, not "
                f"{len(sides)}; choose the kind that fits"
            )
        divisor = 2 ** (len(self.config.features) - 1)
        if any(side % divisor for side in sides):
            raise ValueError(
                f"images of {sides} pixels: all sides must be multiples of {divisor}; pad or crop first"
            )

"""The representation head: a chain of bias-free linear maps up the feature pyramid.

Densely (the authors' formulation) it is x <- cat(up(x + W_l x), f_{l+1}) from the coarsest level to the
finest, with 1 × 1 convolutions W_l and bilinear up-sampling, and x <- W_L x at the end: D = 496 channels
at every pixel. A 1 × 1 convolution acts on channels, up-sampling on space; they commute. So the head
here takes rows of features already interpolated at the pixels wanted, and never sees a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn


class PyramidHead(nn.Module):
    """Rows of pyramid features -> rows of representations.

    Args:
        channels: channels C_l of each level, coarse to fine. D = sum(channels).
        predictor: add the student's predictor, two more bias-free linear maps D -> D.
    """

    def __init__(self, channels: Sequence[int], *, predictor: bool) -> None:
        super().__init__()
        widths = list(accumulate(channels))
        self.dim = widths[-1]
        self.levels = nn.ModuleList(nn.Linear(width, width, bias=False) for width in widths)
        maps = [nn.Linear(self.dim, self.dim, bias=False) for _ in range(2 if predictor else 0)]
        self.predictor = nn.Sequential(*maps)
        self._start_as_identity()

    @torch.no_grad()
    def _start_as_identity(self) -> None:
        """Begin with the features themselves, so that queries and keys share a space from the first step."""
        for level in self.levels[:-1]:
            level.get_parameter("weight").zero_()
        for square in (self.levels[-1], *self.predictor):
            nn.init.eye_(square.get_parameter("weight"))

    def forward(self, rows: Sequence[Tensor]) -> Tensor:
        """Project `rows`, one (N, C_l) tensor a level, coarse to fine, to (N, D)."""
        x = rows[0]
        for level, finer in zip(self.levels[:-1], rows[1:], strict=True):
            x = torch.cat([x + level(x), finer], dim=1)
        out: Tensor = self.predictor(self.levels[-1](x))
        return out

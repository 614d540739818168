"""The representation head: a chain of bias-free linear maps up the feature pyramid.

Densely (the authors' formulation) it is x <- cat(up(x + W_l x), f_{l+1}) from the coarsest level to the
finest, with 1 × 1 convolutions W_l and bilinear up-sampling, and x <- W_L x at the end: D = 496 channels
at every pixel. A 1 × 1 convolution acts on channels, up-sampling on space; they commute. So the head
here takes rows of features already interpolated at the pixels wanted, and never sees a map. The chain is
linear, so it is multiplied out once a step, and each row costs one product with a D × D matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PyramidHead(nn.Module):
    """Rows of pyramid features -> rows of representations.

    Args:
        channels: channels C_l of each level, coarse to fine. D = sum(channels).
        predictor: add the student's predictor, two more bias-free linear maps D -> D.
        identity: start as the identity; otherwise from random maps, as the released code does.
    """

    def __init__(self, channels: Sequence[int], *, predictor: bool, identity: bool = True) -> None:
        super().__init__()
        widths = list(accumulate(channels))
        self.dim = widths[-1]
        self.levels = nn.ModuleList(nn.Linear(width, width, bias=False) for width in widths)
        maps = [nn.Linear(self.dim, self.dim, bias=False) for _ in range(2 if predictor else 0)]
        self.predictor = nn.Sequential(*maps)
        if identity:
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
        return project(rows, self.matrix())

    def matrix(self) -> Tensor:
        """(D, D): the whole head. `project` applies it; take it once for all the rows of a step."""
        levels = [level.get_parameter("weight") for level in self.levels]
        chain = levels[0].new_zeros(0, 0)  # what the levels so far make of the features so far
        for weight in levels[:-1]:
            step = weight + torch.eye(len(weight), device=weight.device, dtype=weight.dtype)
            chain = _after(step, chain)
        chain = _after(levels[-1], chain)
        for layer in self.predictor:
            chain = layer.get_parameter("weight") @ chain
        return chain


def _after(step: Tensor, chain: Tensor) -> Tensor:
    """`step` applied to what `chain` gives and, beside it, the features of the next level."""
    return torch.cat([step[:, : len(chain)] @ chain, step[:, len(chain) :]], dim=1)


def project(rows: Sequence[Tensor], matrix: Tensor) -> Tensor:
    """Representations (N, D) of rows (N, C_l), coarse to fine, under a head's `matrix()` (D, D)."""
    return F.linear(torch.cat(list(rows), dim=1), matrix)

"""Values that are outer products, without ever writing them out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_ROWS = 8192
"""Rows gathered at once."""


class Outer(NamedTuple):
    """P values X_p = left_p ⊗ right_p, with the inner product of matrices.

    The gradient of a loss in a linear map is one, of the loss's gradient in the output and the input. A
    scalar is one too, with 1 on the right.
    """

    left: Tensor
    """(P, a)"""
    right: Tensor
    """(P, b)"""

    def take(self, index: Tensor) -> Outer:
        """The values at `index`."""
        return Outer(self.left[index], self.right[index])

    def squares(self) -> Tensor:
        """‖X_p‖², (P,) float64."""
        norms: list[Tensor] = [torch.linalg.vector_norm(x, dim=1, dtype=torch.float64) for x in self]
        return (norms[0] * norms[1]).square()

    def inner(self, first: Tensor, second: Tensor) -> Tensor:
        """⟨X_i, X_j⟩ of the pairs of indices (N,) `first` and `second`, (N,) float64."""
        pairs = zip(torch.split(first, _ROWS), torch.split(second, _ROWS), strict=True)
        return torch.cat([self._dot(self.left, i, j) * self._dot(self.right, i, j) for i, j in pairs])

    def mean(self) -> Tensor:
        """The mean value, (a · b,)."""
        return (self.left.T @ self.right).flatten() / len(self.left)

    def sums(self, index: Tensor, weight: Tensor, group: Tensor, groups: int) -> Tensor:
        """Σ weight · X over each group's part of `index`, (groups, a · b); `group` (N,) must ascend."""
        out = self.left.new_empty(groups, self.left.shape[1], self.right.shape[1])
        sizes = group.bincount(minlength=groups).tolist()
        parts = zip(out, torch.split(index, sizes), torch.split(weight.to(out.dtype), sizes), strict=True)
        for total, members, factor in parts:
            torch.mm((self.left[members] * factor[:, None]).T, self.right[members], out=total)
        return out.flatten(1)

    @staticmethod
    def _dot(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return (rows[first] * rows[second]).sum(1, dtype=torch.float64)

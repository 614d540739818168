"""The other workers, as far as the method knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def _identity(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True, kw_only=True)
class Peers:
    """How many workers there are, which one this is, and how to gather what banks get."""

    count: int = 1
    gathered: int = 1
    """From how many workers `gather` gathers: all, or only this one, whose banks then are its own."""
    rank: int = 0
    """Which of the gathered ones this is."""
    gather: Callable[[Tensor], Tensor] = _identity
    """Concatenate tensors of one shape of those workers along the first axis, by rank; no gradient."""

    def whole(self, rows: Tensor) -> Tensor:
        """The rows (N, …) of all gathered workers, (gathered · N, …); gradients flow into this one's own.

        For losses that compare all images of a batch, which every worker then computes on the same rows.
        Its own carry `gathered` times their gradient: data-parallel training averages over workers, which
        makes it the gradient of the loss on the whole batch.
        """
        if self.gathered == 1:
            return rows
        fixed = rows.detach()
        parts = list(self.gather(fixed).chunk(self.gathered))
        parts[self.rank] = fixed + self.gathered * (rows - fixed)
        return torch.cat(parts)


ALONE = Peers()

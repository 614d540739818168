"""First-in first-out banks of representations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arco_core.sampling import Sampler


class Bank(nn.Module):
    """R independent FIFO queues of unit vectors, kept in buffers and so in every checkpoint.

    Args:
        rows: number of queues R (classes, windows, or 1).
        size: keys kept in each.
        dim: length of a key.
    """

    keys: Tensor
    head: Tensor
    count: Tensor

    def __init__(self, rows: int, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        # One more slot than is ever read takes the writes of rows that are to be left out.
        self.register_buffer("keys", torch.zeros(rows, size + 1, dim))
        self.register_buffer("head", torch.zeros(rows, dtype=torch.long))
        self.register_buffer("count", torch.zeros(rows, dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Tensor, valid: Tensor | None = None) -> None:
        """Append `keys` (R, m, D), normalised here; those with `valid` (R, m) false are left out.

        Raises `ValueError` when m exceeds the bank's size.
        """
        rows, m, _ = keys.shape
        if m > self.size:
            raise ValueError(f"{m} keys pushed at once into a bank of {self.size}: enlarge the bank")
        if valid is None:
            valid = torch.ones(rows, m, dtype=torch.bool, device=keys.device)
        place = valid.long().cumsum(1)
        slot = torch.where(valid, (self.head[:, None] + place - 1) % self.size, self.size)
        row = torch.arange(rows, device=keys.device)[:, None].expand(-1, m)
        self.keys[row, slot] = F.normalize(keys.to(self.keys.dtype), dim=2)
        self.head.copy_((self.head + place[:, -1]) % self.size)
        self.count.copy_((self.count + place[:, -1]).clamp_max(self.size))

    @property
    def stored(self) -> Tensor:
        """(R, size, D): all slots; those at and beyond `count` are still zero."""
        return self.keys[:, : self.size]

    def draw_others(
        self, sampler: Sampler, sets: int, n: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """For each row, draw keys from the union of all other rows, oldest first within a row.

        Returns:
            (R, sets, n, D) keys and (R,) bool: the other rows hold at least one key.
        """
        rows = len(self.count)
        own = torch.eye(rows, dtype=torch.bool, device=self.count.device)
        ends = torch.where(own, 0, self.count).cumsum(1)  # (R, R): row r's population, row by row
        totals = ends[:, -1]
        rank = sampler.ranks(totals.repeat_interleave(sets), n, generator).view(rows, -1)
        source = torch.searchsorted(ends, rank, right=True).clamp_max(rows - 1)
        before = torch.where(source > 0, ends.gather(1, (source - 1).clamp_min(0)), 0)
        oldest = (self.head - self.count)[source]
        slot = (oldest + rank - before) % self.size
        # Whole rows by one flat index: copies, several times faster than indexing along two axes.
        flat = (source * (self.size + 1) + slot).flatten()
        return self.keys.flatten(0, 1).index_select(0, flat).view(rows, sets, n, -1), totals > 0

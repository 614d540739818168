"""What training workers exchange, over `torch.distributed`.

Every rank must make the same calls in the same order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (N, …) of all ranks as (ranks · N, …), in rank order, without gradient.

    Every rank has as many rows: asking for their numbers first would be a wait for the device in every step.
    """
    received = [torch.empty_like(rows) for _ in range(_world())]
    dist.all_gather(received, rows.detach().contiguous())
    return torch.cat(received)


def average_running_statistics(module: nn.Module) -> None:
    """Replace the batch-norm statistics (`running_mean`, `running_var`) in `module` by means over ranks."""
    statistics = [
        buffer for name, buffer in module.named_buffers() if name.rpartition(".")[2].startswith("running_")
    ]
    if not statistics:
        return
    flat = torch.cat([buffer.flatten() for buffer in statistics])
    dist.all_reduce(flat)
    flat /= _world()
    for buffer, mean in zip(statistics, flat.split([b.numel() for b in statistics]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def average(values: Tensor) -> Tensor:
    """The mean of `values` over all ranks, the same bits on each."""
    total = values.clone()
    dist.all_reduce(total)
    return total / _world()


def gather_objects(value: Any) -> list[Any]:
    """`value` of every rank, in rank order."""
    values: list[Any] = [None] * _world()
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """The `value` of rank 0."""
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def rank() -> int:
    """Which of the ranks this is, from 0."""
    return dist.get_rank()


def _world() -> int:
    return dist.get_world_size()

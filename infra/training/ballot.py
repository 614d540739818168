"""How workers agree on what they are asked to do besides training."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from arco_core.training import Request


class Ballot:
    """After every step, what the workers were asked to do by the step before: the same for all of them.

    One worker's request counts for all, and the greatest of several. The votes travel while the next step
    is computed, four bytes a worker and step, over the CPU's own group: nobody waits for them.

    Args:
        own: what this worker is asked to do; called once a step.
    """

    def __init__(self, own: Callable[[], Request]) -> None:
        self._own = own
        self._group = dist.new_group(backend="gloo")
        self._vote: Tensor | None = None
        self._travel: dist.Work | None = None

    def __call__(self) -> Request:
        """Send this worker's vote, and give the outcome of the one before."""
        outcome = self.close()
        self._vote = torch.tensor([int(self._own())], dtype=torch.int32)
        self._travel = dist.all_reduce(self._vote, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return outcome

    def close(self) -> Request:
        """The outcome of the vote under way, if any."""
        if self._vote is None or self._travel is None:
            return Request.GO_ON
        self._travel.wait()
        outcome = Request(int(self._vote))
        self._vote = self._travel = None
        return outcome

"""What a training step computes besides the weights, gathered without waiting for the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from arco_core.errors import Diverged

Values = dict[str, float | list[float]]
"""Metrics by name; a list has one entry a class."""

_MUST_BE_FINITE = ("loss", "grad_norm")


class Meter:
    """Means of metrics between two reports.

    Args:
        average: mean of a tensor over all workers; every worker calls it at the same steps, so that all of
            them see the same values and stop together.
    """

    def __init__(self, average: Callable[[Tensor], Tensor]) -> None:
        self._average = average
        self._sums: dict[str, Tensor] = {}
        self._steps = self._timed = 0
        self._wait = self._paused = 0.0
        self._since = time.perf_counter()

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Count one step's metrics, each 0-dim or a vector."""
        for name, value in metrics.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._steps += 1
        self._timed += 1

    def report(self, step: int) -> Values:
        """Means a step since the last report; also `seconds` a step, and how many of them waited for data.

        Raises `Diverged` when a value that has to be finite was not, in any of the steps.
        """
        values = self._means(step)
        now = time.perf_counter()
        values["seconds"] = (now - self._since - self._paused) / self._timed
        values["data_wait"] = self._wait / self._timed
        self._sums, self._steps, self._timed = {}, 0, 0
        self._wait, self._paused, self._since = 0.0, 0.0, now
        return values

    def check(self, step: int) -> None:
        """Raise `Diverged` as `report` would, without reporting."""
        if self._steps:
            self._means(step)

    def state(self) -> dict[str, Any]:
        """The sums so far, the same on every worker; without times."""
        if self._steps:
            mean = self._average(self._flat())
            sizes = [total.numel() for total in self._sums.values()]
            parts = mean.split(sizes)  # type: ignore[no-untyped-call]
            self._sums = {
                name: part.view_as(total).to(total.dtype)
                for (name, total), part in zip(self._sums.items(), parts, strict=True)
            }
        return {"sums": dict(self._sums), "steps": self._steps}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from the sums in `state`. Their steps' times are not known: times are of steps since."""
        self._sums = {name: total.to(device) for name, total in state["sums"].items()}
        self._steps, self._timed = state["steps"], 0
        self._since = time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time meanwhile as waiting for data."""
        start = time.perf_counter()
        yield
        self._wait += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time meanwhile."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def _flat(self) -> Tensor:
        return torch.cat([total.reshape(-1).float() for total in self._sums.values()])

    def _means(self, step: int) -> Values:
        # A sum is no longer finite once one of its terms was not: one look at it covers all steps.
        means = iter(self._average(self._flat() / self._steps).tolist())  # the only wait for the device
        values: Values = {}
        for name, total in self._sums.items():
            values[name] = [next(means) for _ in range(len(total))] if total.ndim else next(means)
        if not all(math.isfinite(_number(values, name)) for name in _MUST_BE_FINITE):
            raise Diverged(step, values)
        return values


def _number(values: Values, name: str) -> float:
    value = values.get(name, 0.0)
    return value if isinstance(value, float) else math.nan

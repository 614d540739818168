"""What people see of a training while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from arco_core.config import RunConfig
from arco_core.training import Request
from infra.progress import Progress

_SHOWN = {"loss": "loss", "validation/dice": "dice"}


@dataclass(frozen=True, kw_only=True)
class Contact:
    """How a worker is in touch with whoever watches it."""

    report: Callable[[int, Mapping[str, float]], None]
    """Tells, from rank 0, that a step is done, and the last metrics."""
    warn: Callable[[str], None]
    """Tells, from rank 0, what somebody should look at."""
    alive: Callable[[int], None]
    """Tells, from every rank and at most once a second, the steps that are done."""
    request: Callable[[], Request]
    """Asked after every step: what else to do."""


class Pulse:
    """Tells that this worker is alive, and the steps that it has done.

    Args:
        tell: whom.
        step: the step that training continues from.
    """

    _SECONDS = 1.0

    def __init__(self, tell: Callable[[int], None], step: int) -> None:
        self._tell, self._step = tell, step
        self._told = float("-inf")

    def step(self) -> None:
        """One more step is done."""
        self._step += 1
        self.beat()

    def beat(self) -> None:
        """Something else went on."""
        now = time.monotonic()
        if now - self._told >= self._SECONDS:
            self._told = now
            self._tell(self._step)


def show(progress: Progress, step: int, metrics: Mapping[str, float]) -> None:
    """Show that `step` optimiser steps are done, with the metrics worth watching."""
    progress.update(step, **{short: metrics[name] for name, short in _SHOWN.items() if name in metrics})


def tell_what_needs_a_gpu(title: str, run: RunConfig, *, on_gpu: bool) -> None:
    """Say, once before the first step, that a run on CPUs leaves its settings for GPUs aside."""
    settings = []
    if run.precision != "fp32":
        settings.append(f"run.precision = {run.precision!r}")
    if run.compile:
        settings.append("run.compile = true")
    if settings and not on_gpu:
        print(
            f"{title}: on the CPU, in float32 and not compiled: {', '.join(settings)} is for GPUs", flush=True
        )

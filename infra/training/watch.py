"""What people see of a training while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from arco_core.config import RunConfig
from infra.progress import Progress

_SHOWN = {"loss": "loss", "validation/dice": "dice"}


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

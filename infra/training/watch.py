"""What people see of a training while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from infra.progress import Progress

_SHOWN = ("loss",)


def show(progress: Progress, step: int, metrics: Mapping[str, float]) -> None:
    """Show that `step` optimiser steps are done, with the metrics worth watching."""
    progress.update(step, **{name: metrics[name] for name in _SHOWN if name in metrics})

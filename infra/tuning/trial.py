"""What Ray Tune runs for a task: the driver of its Ray Train run, in touch with the sweep."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import asdict
from typing import Any

import ray
from ray import tune

from infra.progress import Event, Progress
from infra.signals import Interrupted, SignalNote
from infra.training.ray_train import train_on_ray
from infra.training.stage_job import StageJob

EVENT, DICE, PERCENT, RESULT, WARNING = "event", "dice", "percent", "result", "warning"
_SECONDS = 1.0
"""At most one report in so long, besides those that have a validation's Dice."""


def train_task(config: dict[str, Any]) -> dict[str, Any]:
    """Train `config["job"]` on Ray Train; returns its result, or an empty one where it was asked to stop.

    Tune is told, as metrics: an `infra.progress.Event`, `percent` and, from the first validation on, `dice`.
    """
    os.environ.update(config["environment"])  # for the workers; this process may be on another node
    job = StageJob.from_json(config["job"])
    note = SignalNote()
    threading.Thread(target=_wait, args=(config["board"], note), name="wait-for-stop", daemon=True).start()
    sink = _Reports()
    with Progress(
        config["name"], job.steps, "steps", images_per_unit=job.images_per_step, sink=sink
    ) as progress:
        try:
            result = train_on_ray(job, progress, note)
        except Interrupted:
            return {**sink.last, RESULT: ""}
        except Exception as error:  # Tune tells nobody why an attempt failed that is not the last
            ray.get(config["board"].warn.remote(f"{config['name']}: {error}"))
            raise
    return {**sink.last, PERCENT: 100.0, RESULT: result.to_json()}


def _wait(board: Any, note: SignalNote) -> None:
    ray.get(board.wait_for_stop.remote())
    note.number = signal.SIGTERM


class _Reports:
    """Hands events on to Tune."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}
        self._told = float("-inf")

    def show(self, event: Event) -> None:
        """Report `event`, unless one was just before, this is not the last and tells of no new validation."""
        now, dice = time.monotonic(), event.metrics.get(DICE)
        news = dice is not None and dice != self.last.get(DICE)
        if news or event.done >= event.total or now - self._told >= _SECONDS:
            self._told = now
            self.last = {EVENT: asdict(event), PERCENT: 100.0 * event.done / max(event.total, 1)}
            if dice is not None:
                self.last[DICE] = dice
            tune.report(self.last)

    def warn(self, text: str) -> None:
        """Report a warning."""
        tune.report({**self.last, WARNING: text})

    def close(self) -> None:
        """Nothing to put away."""

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

EVENT, DICE, PERCENT, WARNING = "event", "dice", "percent", "warning"
RESULT, STOPPED = "result", "stopped"
_SECONDS = 1.0
"""At most one report in so long, besides those that have a validation's Dice."""


def train_task(config: dict[str, Any]) -> dict[str, Any]:
    """Train `config["job"]` on Ray Train; returns its result, or an empty one where it was asked to stop.

    Tune is told, as metrics: an `infra.progress.Event`, `percent` and, from the first validation on, `dice`.
    """
    os.environ.update(config["environment"])  # for the workers; this process may be on another node
    board, name = config["board"], config["name"]
    job = StageJob.from_json(config["job"])
    request = _StopRequest(board, name)
    sink = _Reports()
    try:
        with Progress(name, job.steps, "steps", images_per_unit=job.images_per_step, sink=sink) as progress:
            result = train_on_ray(job, progress, request.note)
    except Interrupted:
        return {**sink.last, RESULT: "", STOPPED: request.early}
    except Exception as error:  # Tune tells nobody why an attempt failed that is not the last
        ray.get(board.warn.remote(f"{name}: {error}"))
        raise
    finally:
        board.leave.remote(name)
    return {**sink.last, PERCENT: 100.0, RESULT: result.to_json(), STOPPED: False}


class _StopRequest:
    """Whether the trial `name` is to stop, as the sweep says on its board."""

    def __init__(self, board: Any, name: str) -> None:
        self.note = SignalNote()
        """Has a number once the trial is to stop."""
        self.early = False
        """That is because others do better."""
        threading.Thread(target=self._wait, args=(board, name), name="wait-for-stop", daemon=True).start()

    def _wait(self, board: Any, name: str) -> None:
        verdict = ray.get(board.wait.remote(name))
        if verdict:
            self.early = verdict == "trial"
            self.note.number = signal.SIGTERM


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

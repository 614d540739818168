"""What rank 0 writes while it trains: checkpoints, metrics and, at the end, the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from infra.attempts import job_attempt
from infra.checkpoints import CheckpointStore
from infra.storage import Store
from infra.training.metrics_log import MetricsLog
from infra.training.stage_job import StageJob, StageResult

Report = Callable[[int, Mapping[str, float]], None]
"""Tells whoever watches that a step is done, and its metrics."""

RESULT = "result.json"
"""Name, in the stage's folder, of the object that makes the stage finished."""
_METRICS = "metrics.jsonl"


def checkpoints_of(job: StageJob) -> CheckpointStore:
    """Where the checkpoints of `job` are."""
    return CheckpointStore(Store(job.run_url), f"{job.folder}/checkpoints")


class Recorder:
    """The pen of one attempt at a job. `start` it when everything is ready to train."""

    def __init__(self, job: StageJob, report: Report) -> None:
        self._job, self._report = job, report
        self._store = Store(job.run_url)
        self._checkpoints = checkpoints_of(job)
        self._attempt = self._checkpoints.begin_attempt(job_attempt())
        steps = self._checkpoints.steps()
        self.resume_step = steps[-1] if steps else None
        """The step to continue from, or None to begin."""

    def start(self, state: Mapping[str, Any] | None) -> None:
        """Open the metrics, and start the clock where the checkpoint `state` stopped it."""
        step = self.resume_step or 0
        self._elapsed = float(state["elapsed"]) if state else 0.0
        self._started = time.monotonic()
        self._metrics = MetricsLog(self._store, f"{self._job.folder}/{_METRICS}", resume_step=step)
        self._report(step, self._metrics.last)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Log and report the metrics of a step."""
        self._metrics.add(step, {"elapsed": round(self._seconds(), 3), **metrics})
        self._report(step, metrics)

    def save(self, step: int, state: Mapping[str, Any], feeds: list[Any]) -> None:
        """Commit a checkpoint, after the metrics that led to it; `feeds` are the positions of all ranks."""
        self._metrics.flush()
        content = {key: value for key, value in state.items() if key != "feed"}
        content |= {
            "feeds": feeds,
            "attempt": self._attempt,
            "elapsed": self._seconds(),
            "job": self._job.to_json(),
        }
        self._saved = self._checkpoints.save(step, content, self._attempt)

    def finish(self) -> None:
        """Write the result."""
        result = StageResult(
            checkpoint_url=self._saved,
            metrics_url=self._store.join(self._job.folder, _METRICS),
            steps=self._job.steps,
            seconds=round(self._seconds(), 3),
            final={key: float(value) for key, value in self._metrics.last.items()},
        )
        self._store.write_bytes(f"{self._job.folder}/{RESULT}", result.to_json().encode())

    def _seconds(self) -> float:
        """Time spent training, over all attempts."""
        return self._elapsed + time.monotonic() - self._started

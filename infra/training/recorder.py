"""What rank 0 writes while it trains: checkpoints, metrics and, at the end, the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from arco_core.errors import Diverged
from arco_core.meter import Values
from infra.attempts import job_attempt
from infra.checkpoints import CheckpointStore
from infra.storage import Store
from infra.training.metrics_log import (
    DAMAGED,
    JsonLines,
    Line,
    View,
    decode,
    encode,
    event_line,
    flatten,
    last_values,
)
from infra.training.mlflow_run import MlflowRun, open_mlflow
from infra.training.stage_job import Best, StageJob, StageResult
from infra.training.tensorboard import TensorBoard
from infra.training.validation import Validation, best_of, validations_of

Report = Callable[[int, Mapping[str, float]], None]
"""Tells whoever watches that a step is done, and the last metrics."""

RESULT = "result.json"
"""Name, in the stage's folder, of the object that makes the stage finished."""
JOB = "job.json"
"""Name, in the stage's folder, of the object that says what is trained there."""
_METRICS = "metrics.jsonl"
_TENSORBOARD = "tensorboard"


def checkpoints_of(job: StageJob) -> CheckpointStore:
    """Where the checkpoints of `job` are."""
    return CheckpointStore(Store(job.run_url), f"{job.folder}/checkpoints")


def lines_in(state: Mapping[str, Any] | None) -> list[Line]:
    """The metrics up to the checkpoint `state`."""
    return decode(state["metrics"]) if state else []


class Recorder:
    """The pen of one attempt at a job. `start` it when everything is ready to train.

    Whatever it writes, it first makes sure that no newer attempt has begun, or raises `TakenOver`.
    """

    def __init__(self, job: StageJob, report: Report, warn: Callable[[str], None]) -> None:
        self._job, self._report, self._warn = job, report, warn
        self._mlflow: MlflowRun | None = None
        self._views: list[View] = []
        self._store = Store(job.run_url)
        self._checkpoints = checkpoints_of(job)
        self._attempt = self._checkpoints.begin_attempt(job_attempt())
        self._left_out: int | None = None

    def last_checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        """The step to continue from and its state, or None to begin.

        One that is damaged is told of, and the one before it counts.

        Raises:
            Damaged: none is whole.
        """
        self._left_out = None

        def leave_out(step: int, reason: str) -> None:
            self._left_out = step if self._left_out is None else self._left_out
            self._warn(f"{reason}. Training goes on from the checkpoint before step {step}")

        return self._checkpoints.latest(leave_out)

    def start(self, step: int, state: Mapping[str, Any] | None, lines: Sequence[Line]) -> None:
        """Take up the metrics `lines`; start the clock where the checkpoint `state` of `step` stopped it.

        The lines begin with those of `state`; what an earlier start logged after them is taken back.
        """
        self._mlflow = open_mlflow(self._job, self._warn, known=len(lines_in(state)))
        self._views = [
            JsonLines(self._store, f"{self._job.folder}/{_METRICS}"),
            TensorBoard(self._store, f"{self._job.folder}/{_TENSORBOARD}"),
            *([self._mlflow] if self._mlflow else []),
        ]
        self._lines = list(lines)
        if self._left_out is not None:
            self._lines.append(event_line(step, DAMAGED, self._left_out, lines))
        self._elapsed = float(state["elapsed"]) if state else 0.0
        self._started = time.monotonic()
        self._step, self._saved = step, self._checkpoints.url(step) if state else ""
        self._show(self._lines)
        self._store.write_bytes(f"{self._job.folder}/{JOB}", self._job.to_json().encode())
        self._report(step, last_values(self._lines))

    def log(self, step: int, values: Values) -> None:
        """Log and report the metrics of training."""
        metrics = flatten(values, self._job.classes)
        self._add(step, {**metrics, "images_per_second": self._job.images_per_step / metrics["seconds"]})

    def log_validation(self, validation: Validation, seconds: float) -> None:
        """Log and report a validation that took `seconds`."""
        self._add(validation.step, {**validation.to_line(), "validation/seconds": seconds})

    def save(self, step: int, state: Mapping[str, Any], shares: Mapping[str, Any]) -> None:
        """Commit a checkpoint with the metrics that led to it, then show them.

        Args:
            step: steps done.
            state: what `arco_core.training.train` gave.
            shares: what `infra.training.shares.gather_shares` gave.
        """
        if self._saved and step == self._step:  # nothing was left to do: training went on from it
            return
        content = {key: value for key, value in state.items() if key != "feed"}
        content |= {
            **shares,
            "attempt": self._attempt,
            "elapsed": self._seconds(),
            "job": self._job.to_json(),
            "metrics": encode(self._lines),
        }
        best = self._best()
        kept = best.step if best else None
        self._saved = self._checkpoints.save(step, content, self._attempt, keep_step=kept)
        self._step = step
        self._show(self._lines)

    def show(self, diverged: Diverged | None = None) -> None:
        """Show what was logged since the last checkpoint, and what made training diverge."""
        lines = list(self._lines)
        if diverged:
            metrics = flatten(diverged.values, self._job.classes)
            lines.append({"step": diverged.step, **self._times(), **metrics})
        self._show(lines)

    def fail(self) -> None:
        """Say that training has ended for good, without a result."""
        if self._mlflow:
            self._checkpoints.check_newest(self._attempt)
            self._mlflow.end(succeeded=False)

    def finish(self) -> None:
        """Write the result."""
        result = StageResult(
            checkpoint_url=self._saved,
            metrics_url=self._store.join(self._job.folder, _METRICS),
            steps=self._job.steps,
            seconds=round(self._seconds(), 3),
            final=last_values(self._lines),
            best=self._best_checkpoint(),
        )
        self._checkpoints.check_newest(self._attempt)
        self._store.write_bytes(f"{self._job.folder}/{RESULT}", result.to_json().encode())
        if self._mlflow:
            self._mlflow.end(succeeded=True)

    def _add(self, step: int, metrics: Mapping[str, float]) -> None:
        self._lines.append({"step": step, **self._times(), **metrics})
        self._report(step, last_values(self._lines[-2:]))

    def _times(self) -> dict[str, float]:
        return {"time": round(time.time(), 3), "elapsed": round(self._seconds(), 3)}

    def _show(self, lines: Sequence[Line]) -> None:
        self._checkpoints.check_newest(self._attempt)
        for view in self._views:
            view.show(lines)

    def _best(self) -> Validation | None:
        return best_of(validations_of(self._lines, self._job.classes))

    def _best_checkpoint(self) -> Best | None:
        best = self._best()
        if best is None:
            return None
        return Best(step=best.step, dice=best.dice, checkpoint_url=self._checkpoints.url(best.step))

    def _seconds(self) -> float:
        """Time spent training, over all attempts."""
        return self._elapsed + time.monotonic() - self._started

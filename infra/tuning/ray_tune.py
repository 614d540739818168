"""Tasks on Ray Tune: each a trial that drives a Ray Train run of its own.

A trial's driver takes next to nothing; its workers have a placement group of their own, all at once or not at
all, so trials that find no place wait for others to end and none blocks another. What a sweep resumes from
is what its trainings left in the store. Tune's own state is thrown away: it knows nothing that those do not.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial

from arco_core.config import RunConfig as RunSettings
from infra.mailbox import open_board
from infra.progress import Event, Sink, default_sink
from infra.ray_session import available_cores, ray_session, starts_embedded
from infra.signals import SignalNote
from infra.training.mlflow_run import mlflow_environment, require_mlflow
from infra.training.ray_train import worker_resources
from infra.training.stage_job import StageResult
from infra.tuning.agenda import Agenda
from infra.tuning.early_stopping import stopping_scheduler
from infra.tuning.order import InOrder, NotPickled
from infra.tuning.run import Places
from infra.tuning.stopped import SweepInterrupted
from infra.tuning.trial import DICE, EVENT, PERCENT, RESULT, STOPPED, WARNING, train_task

_DRIVER = {"CPU": 0.01}
"""A placement group cannot be empty."""
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's would end the drivers before their workers have saved
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_on_tune(agenda: Agenda, places: Places) -> None:
    """Run all tasks of `agenda`, showing progress here. Raises as `infra.tuning.run_tasks`."""
    require_mlflow()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told here, with their reasons
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    runs = [task.job.settings.run for task in agenda.waiting]
    most = max(run.cores for run in runs)
    wanted = places.concurrent or max(available_cores() // most, 1)
    # An embedded Ray has a CPU more than workers, for other tasks.
    limit = wanted if starts_embedded() else None
    with ray_session(workers=wanted * most), SignalNote() as note, tempfile.TemporaryDirectory() as scratch:
        concurrent = places.concurrent or _as_many_as_fit(runs, limit)
        board, sink = open_board(), default_sink()
        try:
            tune.Tuner(
                tune.with_resources(train_task, tune.PlacementGroupFactory([_DRIVER])),
                param_space={"board": board, "environment": mlflow_environment()},
                tune_config=tune.TuneConfig(
                    search_alg=InOrder(agenda, note),
                    scheduler=stopping_scheduler(places.grace, lambda name: ray.get(board.stop.remote(name))),
                    num_samples=len(agenda.waiting),
                    max_concurrent_trials=concurrent,
                    reuse_actors=True,  # starting a driver takes seconds
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=scratch,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=places.retries),
                    callbacks=[_Watch(agenda, board, sink, note)],
                ),
            ).fit()
        finally:
            sink.close()
        if note.number is not None:
            raise SweepInterrupted(note.number)


def _name(trial: Trial) -> str:
    return f"trial_{trial.trial_id}"


def _as_many_as_fit(runs: Sequence[RunSettings], limit: int | None) -> int:
    """Trainings of the largest size that there are CPUs and GPUs for; one at least, `limit` at most."""
    have = ray.cluster_resources()
    fit = [
        int(have.get(kind, 0.0) // (run.workers * each))
        for run in runs
        for kind, each in worker_resources(run).items()
        if each
    ]
    return max(min(fit if limit is None else [*fit, limit]), 1)


class _Watch(NotPickled, tune.Callback):
    """Shows what trials report, settles how they end, and hands on a signal to stop."""

    def __init__(self, agenda: Agenda, board: Any, sink: Sink, note: SignalNote) -> None:
        self._agenda, self._board, self._sink, self._note = agenda, board, sink, note
        self._asked = False

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ask the running trials to save and end, once a signal is noted."""
        if self._note.number is not None and not self._asked:
            self._asked = True
            ray.get(self._board.stop_all.remote())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Show it."""
        self._note.begin()
        if result.get(WARNING):
            self._sink.warn(result[WARNING])
        elif EVENT in result and not result.get(RESULT):
            self._sink.show(Event(**result[EVENT]))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell of a failure that is not the last."""
        self._sink.warn(f"{trial.config['name']}: attempt {trial.num_failures} failed, and another is made")
        self._tell_failures()

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The last attempt has failed."""
        reason = _reason(trial)
        self._tell_failures()
        self._agenda.end(trial.config["name"], "failed", attempts=trial.num_failures, reason=reason)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """It is done, or was stopped."""
        name, last, attempts = trial.config["name"], trial.last_result, trial.num_failures + 1
        if last.get(RESULT):
            result = StageResult.from_json(last[RESULT])
            self._agenda.end(name, "done", attempts=attempts, result=result)
        elif last.get(STOPPED):
            reason = f"validation Dice {last[DICE]:.3f} after {last[PERCENT]:.0f} % of its steps"
            self._agenda.end(name, "stopped", attempts=attempts, reason=reason)

    def _tell_failures(self) -> None:
        for failure in ray.get(self._board.take_warnings.remote()):
            self._sink.warn(failure)


def _reason(trial: Trial) -> str:
    """The last failure's, without Ray's frames around it."""
    error: BaseException | None = trial.get_pickled_error() or trial.get_error()
    if isinstance(error, RayTaskError):
        error = error.cause
    return str(error) or type(error).__name__

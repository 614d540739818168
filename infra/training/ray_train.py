"""Training on Ray Train: `run.workers` workers that train together, on this machine or a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import ray
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util import placement_group_table

from arco_core.config import RunConfig as RunSettings
from arco_core.errors import TrainingError
from infra.losses import Losses
from infra.mailbox import open_mailbox
from infra.progress import Progress
from infra.ray_session import ray_session
from infra.signals import Interrupted, SignalNote
from infra.training.mlflow_run import mlflow_environment
from infra.training.ray_worker import train_function
from infra.training.recorder import checkpoints_of
from infra.training.stage_job import StageJob, StageResult
from infra.training.stall import kill_worker, stall_message
from infra.training.watch import show, tell_what_needs_a_gpu
from infra.training.worker import finished

_POLL_SECONDS = 0.2
_PATIENCE = 30.0
"""Seconds after which to say that workers have no places."""
_LOOK_SECONDS = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
"""The controller looks at its workers this often; its default of 2 s delays start and end."""
_WAIT_SECONDS = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
"""So long the controller waits for places, which is Ray's way to find out that elastic workers have fewer by
now; a fixed number of workers just waits. After it, training is started again, see `_Failed.no_place`."""
_DAY = "86400"


def run_on_ray(job: StageJob) -> StageResult:
    """Train `job` on Ray, showing progress here. Failed workers start again from the last checkpoint.

    Raises:
        TrainingError: training failed, `run.max_failures` times without a new checkpoint or in a way that a
            new start does not mend.
        Interrupted: this process was asked to end; the last step is saved.
    """
    with (
        ray_session(workers=job.settings.run.cores),
        Progress(job.title, job.steps, "steps", images_per_unit=job.images_per_step) as progress,
        SignalNote() as note,
    ):
        return train_on_ray(job, progress, note)


def train_on_ray(job: StageJob, progress: Progress, note: SignalNote) -> StageResult:
    """As `run_on_ray`, in a process that is connected to Ray; ends early once `note` has a number."""
    settings = job.settings.run
    _set_controller(settings)
    resources = worker_resources(settings)
    tell_what_needs_a_gpu(job.title, settings, on_gpu=resources["GPU"] > 0)
    progress.announce(f"starting {_workers(settings)} on Ray")
    while True:
        mailbox, before = open_mailbox(), _last_step(job)
        try:
            fit = _Fit(_trainer(job, settings, mailbox, resources), job, resources)
            fit.watch(mailbox, progress, note)
        except _Failed as failed:
            _try_again(job, progress, failed, before)
            continue
        result = finished(job)
        if result is not None:
            return result
        stopped = ray.get(mailbox.take_stopped.remote())
        if note.number is not None:
            raise Interrupted(_last_step(job) if stopped is None else stopped, note.number)
        if stopped is None:
            raise TrainingError(f"{job.title} ended without a result in {job.run_url}/{job.folder}")
        # Only the workers were told to end, and have saved: others take over.
        progress.warn(f"workers were told to end after step {stopped}; others start")


def _set_controller(settings: RunSettings) -> None:
    """Set what the controller takes from the environment of this process, unless somebody else did."""
    os.environ.setdefault(_LOOK_SECONDS, "0.2")
    if settings.least_workers == settings.workers:
        os.environ.setdefault(_WAIT_SECONDS, _DAY)
    elif os.environ.get(_WAIT_SECONDS) == _DAY:  # from an earlier training
        del os.environ[_WAIT_SECONDS]


def worker_resources(settings: RunSettings) -> dict[str, int]:
    """What each worker reserves: a CPU for each of its threads and, where there are enough, a GPU.

    Raises `TrainingError` when GPUs are asked for that are not there.
    """
    return {"CPU": settings.threads_per_worker, "GPU": int(_use_gpu(settings))}


class _Failed(Exception):
    """Workers failed as often as Ray Train was told to let them, or found no place."""

    def __init__(self, error: TrainingFailedError, reason: str) -> None:
        super().__init__(reason or str(error))
        # The class is Ray's own, and not for others to import.
        cause = error.controller_failure if isinstance(error, ControllerError) else None
        self.no_place = type(cause).__name__ == "WorkerGroupStartupTimeoutError"


def _try_again(job: StageJob, progress: Progress, failed: _Failed, before: int) -> None:
    """Whether a training that has `failed` may start again: with no place, or past the step `before`.

    Raises `TrainingError` when it may not.
    """
    if failed.no_place:
        return
    step, allowed = _last_step(job), job.settings.run.max_failures
    if step <= before:
        raise TrainingError(
            f"{job.title} failed, and the {allowed} retries that run.max_failures allows too, without a "
            f"checkpoint after step {step}. The last error was:\n{failed}"
        ) from failed
    progress.warn(f"failed {allowed + 1} times since step {before}, and has come to step {step}: goes on")


def _last_step(job: StageJob) -> int:
    return max(checkpoints_of(job).steps(), default=0)


def _trainer(
    job: StageJob, settings: RunSettings, mailbox: Any, resources: Mapping[str, int]
) -> TorchTrainer:
    use_gpu, fixed = resources["GPU"] > 0, settings.least_workers == settings.workers
    return TorchTrainer(
        train_function,
        train_loop_config={"job": job.to_json(), "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers if fixed else (settings.least_workers, settings.workers),
            use_gpu=use_gpu,
            resources_per_worker=dict(resources),
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=f"{job.run_url}/{job.folder}",
            worker_runtime_env={"env_vars": mlflow_environment()},
            callbacks=[Losses(mailbox)],
            failure_config=FailureConfig(
                max_failures=settings.max_failures, controller_failure_limit=settings.max_failures
            ),
        ),
    )


class _Fit:
    """One `fit`, in a thread of its own: in the main one Ray Train would handle Ctrl-C, without saving."""

    def __init__(self, trainer: TorchTrainer, job: StageJob, resources: Mapping[str, int]) -> None:
        self._job, self._resources = job, resources
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(trainer,), name="fit", daemon=True)

    def _run(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except BaseException as error:  # raised again by `watch`
            self._error = error

    def watch(self, mailbox: Any, progress: Progress, note: SignalNote) -> None:
        """Until the end, show progress, and hand on what `note` holds.

        Where nobody is there to save any more, that ends at once. Raises `_Failed` and as `run_on_ray`.
        """
        self._thread.start()
        asked, waiting = False, _Waiting(self._job.settings.run, self._resources)
        try:
            while self._thread.is_alive():
                self._thread.join(_POLL_SECONDS)
                if news := ray.get(mailbox.take.remote()):
                    note.begin()  # before the first step there is nothing to save: signals act at once
                    show(progress, *news)
                for warning in ray.get(mailbox.take_warnings.remote()):
                    progress.warn(warning)
                self._end_stall(mailbox, progress)
                alone = ray.get(mailbox.alone.remote())
                if note.number is not None and not asked:
                    asked = True
                    ray.get(mailbox.stop.remote())
                elif asked and alone is not None:
                    return
                elif words := waiting.words(alone):
                    progress.warn(words)
        finally:
            if self._thread.is_alive():  # nobody looks after it any more: its workers are to end, too
                mailbox.stop.remote()
        for warning in ray.get(mailbox.take_warnings.remote()):
            progress.warn(warning)
        self._raise_error(mailbox)

    def _raise_error(self, mailbox: Any) -> None:
        if refusal := ray.get(mailbox.refusal.remote()):
            raise TrainingError(f"{self._job.title}: {refusal}") from self._error
        if isinstance(self._error, TrainingFailedError):
            raise _Failed(self._error, ray.get(mailbox.failure.remote())) from self._error
        if self._error is not None:
            raise self._error

    def _end_stall(self, mailbox: Any, progress: Progress) -> None:
        """Where no worker takes a step any more, kill the quietest: all start again from the last checkpoint.

        That is one of the failures which `run.max_failures` allows.
        """
        limit = self._job.settings.run.stall_minutes * 60
        if not limit or ray.get(mailbox.silence.remote()) < limit:
            return
        told, quietest = ray.get(mailbox.tell_silence.remote())
        progress.warn(f"{stall_message(limit, told)}; the first of them is killed")
        if quietest is not None:
            kill_worker(*quietest)


class _Waiting:
    """Tells, once for each time, that workers have no places."""

    def __init__(self, settings: RunSettings, resources: Mapping[str, int]) -> None:
        self._settings, self._resources = settings, resources
        self._told = False

    def words(self, alone: float | None) -> str:
        """What there is to tell when there have been no workers for `alone` seconds; mostly nothing."""
        if alone is None or alone < _PATIENCE:
            self._told = self._told and alone is not None
            return ""
        if self._told or not _places_pending():
            return ""
        self._told = True
        have, free = ray.cluster_resources(), ray.available_resources()
        needs = {kind: count for kind, count in self._resources.items() if count}
        each = " and ".join(f"{count} {kind}" for kind, count in needs.items())
        state = ", ".join(f"{free.get(kind, 0):g} of {have.get(kind, 0):g} {kind} free" for kind in needs)
        return f"waiting for places of {_workers(self._settings)} with {each} each ({state} on this Ray)"


def _places_pending() -> bool:
    """Whether somebody asks this Ray for places in vain; otherwise workers have theirs, and are starting."""
    return any(group["state"] == "PENDING" for group in placement_group_table().values())


def _use_gpu(settings: RunSettings) -> bool:
    """Whether each worker gets a GPU."""
    gpus, least = int(ray.cluster_resources().get("GPU", 0)), settings.least_workers
    if settings.device == "cuda" and gpus < least:
        raise TrainingError(
            f"run.device = 'cuda': {_workers(settings)} need a GPU each, this Ray has {gpus}; "
            "set run.workers or run.device"
        )
    return settings.device != "cpu" and gpus >= least


def _workers(settings: RunSettings) -> str:
    """How many, in words."""
    if settings.least_workers < settings.workers:
        return f"{settings.least_workers} to {settings.workers} workers"
    return f"{settings.workers} worker{'s' * (settings.workers > 1)}"

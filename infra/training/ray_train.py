"""Training on Ray Train: `run.workers` workers that train together, on this machine or a cluster."""

from __future__ import annotations

import os
import threading
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from arco_core.config import RunConfig as RunSettings
from arco_core.errors import TrainingError
from infra.mailbox import open_mailbox
from infra.progress import Progress
from infra.ray_session import ray_session
from infra.signals import Interrupted, SignalNote
from infra.training.mlflow_run import mlflow_environment
from infra.training.ray_worker import train_function
from infra.training.stage_job import StageJob, StageResult
from infra.training.stall import kill_worker, stall_message
from infra.training.watch import show, tell_what_needs_a_gpu
from infra.training.worker import finished

_POLL_SECONDS = 0.2


def run_on_ray(job: StageJob) -> StageResult:
    """Train `job` on Ray, showing progress here. Failed workers start again from the last checkpoint.

    Raises:
        TrainingError: training failed, `run.max_failures` times or in a way that a new start does not mend.
        Interrupted: this process was asked to end; the last step is saved.
    """
    with (
        ray_session(workers=job.settings.run.workers),
        Progress(job.title, job.steps, "steps", images_per_unit=job.images_per_step) as progress,
        SignalNote() as note,
    ):
        return train_on_ray(job, progress, note)


def train_on_ray(job: StageJob, progress: Progress, note: SignalNote) -> StageResult:
    """As `run_on_ray`, in a process that is connected to Ray; ends early once `note` has a number."""
    # The controller looks at its workers this often; its default of 2 s delays start and end.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    settings = job.settings.run
    use_gpu = _use_gpu(settings)
    tell_what_needs_a_gpu(job.title, settings, on_gpu=use_gpu)
    progress.announce(f"starting {_workers(settings)} on Ray")
    while True:
        mailbox = open_mailbox()
        _Fit(_trainer(job, settings, mailbox, use_gpu=use_gpu), job).watch(mailbox, progress, note)
        result = finished(job)
        if result is not None:
            return result
        stopped = ray.get(mailbox.take_stopped.remote())
        if stopped is None:
            raise TrainingError(f"{job.title} ended without a result in {job.run_url}/{job.folder}")
        if note.number is not None:
            raise Interrupted(stopped, note.number)
        # Only the workers were told to end, and have saved: others take over.
        progress.announce(f"workers were told to end after step {stopped}; starting others")


def _trainer(job: StageJob, settings: RunSettings, mailbox: Any, *, use_gpu: bool) -> TorchTrainer:
    resources = {"CPU": 1, "GPU": int(use_gpu)}
    return TorchTrainer(
        train_function,
        train_loop_config={"job": job.to_json(), "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers
            if settings.least_workers == settings.workers
            else (settings.least_workers, settings.workers),
            use_gpu=use_gpu,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=f"{job.run_url}/{job.folder}",
            worker_runtime_env={"env_vars": mlflow_environment()},
            failure_config=FailureConfig(
                max_failures=settings.max_failures, controller_failure_limit=settings.max_failures
            ),
        ),
    )


class _Fit:
    """One `fit`, in a thread of its own: in the main one Ray Train would handle Ctrl-C, without saving."""

    def __init__(self, trainer: TorchTrainer, job: StageJob) -> None:
        self._job = job
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(trainer,), name="fit", daemon=True)

    def _run(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except BaseException as error:  # raised again by `watch`
            self._error = error

    def watch(self, mailbox: Any, progress: Progress, note: SignalNote) -> None:
        """Until the end, show progress, and hand on what `note` holds. Raises what `run_on_ray` raises."""
        self._thread.start()
        asked = False
        while self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
            if news := ray.get(mailbox.take.remote()):
                note.begin()  # before the first step there is nothing to save: signals act at once
                show(progress, *news)
            for warning in ray.get(mailbox.take_warnings.remote()):
                progress.warn(warning)
            self._end_stall(mailbox, progress)
            if note.number is not None and not asked:
                asked = True
                ray.get(mailbox.stop.remote())
        for warning in ray.get(mailbox.take_warnings.remote()):
            progress.warn(warning)
        if refusal := ray.get(mailbox.refusal.remote()):
            raise TrainingError(f"{self._job.title}: {refusal}") from self._error
        if isinstance(self._error, TrainingFailedError):
            failure = ray.get(mailbox.failure.remote()) or self._error
            raise TrainingError(
                f"{self._job.title} failed, and the {self._job.settings.run.max_failures} retries that "
                f"run.max_failures allows too. The last error was:\n{failure}"
            ) from self._error
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

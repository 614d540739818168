"""Training on Ray Train: `run.workers` workers that train together, on this machine or a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError

from arco_core.config import RunConfig as RunSettings
from arco_core.errors import ArcoError, TrainingError
from infra.mailbox import open_mailbox
from infra.progress import Progress
from infra.ray_session import ray_session
from infra.training.stage_job import StageJob, StageResult
from infra.training.watch import show, tell_what_needs_a_gpu
from infra.training.worker import finished, run_worker

_POLL_SECONDS = 0.3


def run_on_ray(job: StageJob) -> StageResult:
    """Train `job` on Ray, showing progress here. Failed workers start again from the last checkpoint.

    Raises:
        TrainingError: training failed, `run.max_failures` times or in a way that a new start does not mend.
    """
    # The controller looks at its workers this often; its default of 2 s delays start and end.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    settings = job.settings.run
    with (
        ray_session(workers=settings.workers),
        Progress(job.title, job.steps, "steps", images_per_unit=job.images_per_step) as progress,
    ):
        use_gpu = _use_gpu(settings)
        tell_what_needs_a_gpu(job.title, settings, on_gpu=use_gpu)
        progress.announce(f"starting {settings.workers} worker{'s' * (settings.workers > 1)} on Ray")
        mailbox = open_mailbox()
        with _watching(mailbox, progress):
            _fit(job, settings, mailbox, use_gpu=use_gpu)
        if refusal := ray.get(mailbox.refusal.remote()):
            raise TrainingError(f"{job.title}: {refusal}")
    result = finished(job)
    if result is None:
        raise TrainingError(f"{job.title} ended without a result in {job.run_url}/{job.folder}")
    return result


def _fit(job: StageJob, settings: RunSettings, mailbox: Any, *, use_gpu: bool) -> None:
    resources = {"CPU": 1, "GPU": int(use_gpu)}
    trainer = TorchTrainer(
        _train_function,
        train_loop_config={"job": job.to_json(), "mailbox": mailbox},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=f"{job.run_url}/{job.folder}",
            failure_config=FailureConfig(
                max_failures=settings.max_failures, controller_failure_limit=settings.max_failures
            ),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise TrainingError(
            f"{job.title} failed, and the {settings.max_failures} retries that run.max_failures allows too. "
            f"The last error was:\n{error}"
        ) from error


def _use_gpu(settings: RunSettings) -> bool:
    """Whether each worker gets a GPU."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if settings.device == "cuda" and gpus < settings.workers:
        raise TrainingError(
            f"run.device = 'cuda': run.workers = {settings.workers} need a GPU each, this Ray has {gpus}; "
            "set run.workers or run.device"
        )
    return settings.device != "cpu" and gpus >= settings.workers


def _train_function(arguments: dict[str, Any]) -> None:
    """Runs in every worker process."""
    mailbox = arguments["mailbox"]
    if ray.get(mailbox.refusal.remote()):
        return  # a new start would fail in the same way
    context = get_context()

    def report(step: int, metrics: Mapping[str, float]) -> None:
        mailbox.post.remote(step, dict(metrics))

    try:
        run_worker(
            StageJob.from_json(arguments["job"]),
            rank=context.get_world_rank(),
            world=context.get_world_size(),
            device=get_device(),
            report=report,
        )
    except ArcoError as error:
        ray.get(mailbox.refuse.remote(str(error)))
        raise


@contextmanager
def _watching(mailbox: Any, progress: Progress) -> Iterator[None]:
    """Show what arrives in the mailbox meanwhile."""
    done = threading.Event()

    def show_news() -> None:
        if news := ray.get(mailbox.take.remote()):
            show(progress, *news)

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            show_news()

    thread = threading.Thread(target=watch, name="watch-training", daemon=True)
    thread.start()
    try:
        yield
        show_news()
    finally:
        done.set()
        thread.join()

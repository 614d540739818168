"""Training in this process: one worker, no Ray. For tests, debugging, and machines with one GPU."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from arco_core.errors import Stopped, TrainingError
from arco_core.training import Request
from infra.progress import Progress
from infra.signals import Interrupted, SignalNote
from infra.training.stage_job import StageJob, StageResult
from infra.training.stall import StallWatch
from infra.training.watch import Contact, show, tell_what_needs_a_gpu
from infra.training.worker import finished, run_worker


def run_in_process(job: StageJob) -> StageResult:
    """Train `job` here, showing progress; the result equals that of one worker under Ray.

    Raises:
        TrainingError: the job asks for more than one worker, or training failed.
        Interrupted: this process was asked to end; the last step is saved.
        DataError, StoreError: see `run_worker`.
    """
    config = job.settings
    if config.run.workers != 1:
        raise TrainingError(
            f"run.workers = {config.run.workers}: in this process there is one worker; "
            "set run.workers=1, or train on Ray"
        )
    device = _device(config.run.device)
    tell_what_needs_a_gpu(job.title, config.run, on_gpu=device.type == "cuda")
    with (
        Progress(job.title, job.steps, "steps", images_per_unit=job.images_per_step) as progress,
        SignalNote() as note,
        StallWatch(job.title, config.run.stall_minutes * 60) as stall,
    ):

        def report(step: int, metrics: Mapping[str, float]) -> None:
            note.begin()  # before the first step there is nothing to save: signals act at once
            show(progress, step, metrics)

        def request() -> Request:
            return Request.GO_ON if note.number is None else Request.STOP

        contact = Contact(report=report, warn=progress.warn, alive=stall.beat, request=request)
        try:
            run_worker(job, rank=0, world=1, device=device, contact=contact)
        except Stopped as stopped:
            raise Interrupted(stopped.step, note.number or 0) from stopped
    result = finished(job)
    if result is None:
        raise TrainingError(f"{job.title} ended without a result in {job.run_url}/{job.folder}")
    return result


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("run.device = 'cuda': torch finds no GPU here; set run.device=cpu or auto")
    return torch.device(name)

"""Checks of the training steps."""

from __future__ import annotations

from components.checks.base import Checks, dataset_line, some, writable
from components.training_options import TrainingOptions, stage_job
from infra.datasets import DatasetVersion
from infra.resources import check_space, check_workers
from infra.storage import Store
from infra.training import StageJob, StageName
from infra.training.earlier import not_continued
from infra.training.mlflow_run import require_mlflow
from infra.training.needs import check_init, checkpoint_bytes, worker_bytes
from infra.training.recorder import checkpoints_of
from infra.training.validation import annotated_cases
from infra.training.worker import finished


def check_training(
    stage: StageName, options: TrainingOptions, *, init: str | None = None, continued: bool = False
) -> Checks:
    """What would keep `components.training_options.train` from training, and what it would do."""
    checks = Checks()
    settings = checks.value(lambda: options.settings)
    version = checks.value(lambda: DatasetVersion.open(options.dataset))
    if version is not None:
        checks.line("dataset", lambda: dataset_line(version))
    checks.line("run", lambda: writable(options.run))
    if settings is None or version is None:
        return checks
    job = checks.value(lambda: stage_job(stage, options, init=init, continued=continued))
    if job is not None:
        add_job(checks, job, version, options.backend)
    return checks


def add_job(checks: Checks, job: StageJob, version: DatasetVersion, backend: str) -> None:
    """Check everything that `job` needs, and say what it does."""
    batch = " + ".join(str(size) for size in (job.labeled_batch, job.unlabeled_batch) if size)
    patients = len(version.patients("train"))
    checks.lines.append(("training", f"{job.title}: {job.steps} steps of {batch} images"))
    checks.lines.append(
        (
            "labels",
            f"{len(job.labeled_patients)} of {patients} training patients: {some(job.labeled_patients)}",
        )
    )
    if job.init_checkpoint:
        checks.line("starts from", lambda: check_init(job))
    checks.lines.append(("validation", _validation(job, version)))
    checks.value(require_mlflow)
    run = job.settings.run
    checks.line("workers", lambda: check_workers(run, backend, memory=worker_bytes(job, version)))
    checks.line("space", lambda: check_space(Store(job.run_url), checkpoint_bytes(job)))
    checks.line("result", lambda: _state(job))


def _validation(job: StageJob, version: DatasetVersion) -> str:
    volumes = len(annotated_cases(version))
    if not job.validate_every or not volumes:
        why = "run.validate_every = 0" if volumes else "no annotated volume in the validation split"
        return f"none ({why}): no best checkpoint, and a class that collapses is not noticed"
    return f"{volumes} volumes every {job.validate_every} steps"


def _state(job: StageJob) -> str:
    place = f"{job.run_url}/{job.folder}"
    if finished(job) is not None:
        return f"{place}, done already"
    steps = checkpoints_of(job).steps()
    if steps:
        return f"{place}, continued after step {steps[-1]}"
    other = not_continued(job)
    return f"{place}; {other}" if other else place

"""Run a training stage, once."""

from __future__ import annotations

from arco_core.errors import TrainingError
from infra.training.earlier import not_continued
from infra.training.in_process import run_in_process
from infra.training.mlflow_run import require_mlflow
from infra.training.stage_job import StageJob, StageResult
from infra.training.worker import finished

BACKENDS = ("ray", "in-process")


def run_stage(job: StageJob, backend: str = "ray") -> StageResult:
    """Train `job` on a backend of `BACKENDS`, unless it is done already; an unfinished one continues.

    Raises:
        TrainingError, DataError, StoreError: see `run_worker`.
    """
    if backend not in BACKENDS:
        raise TrainingError(f"backend = {backend!r}: must be one of {', '.join(BACKENDS)}")
    result = finished(job)
    if result is not None:
        print(f"{job.title}: done already, {result.steps} steps in {result.seconds:.0f} s", flush=True)
        return result
    require_mlflow()
    if other := not_continued(job):
        print(f"{job.title}: starts from its beginning; {other}", flush=True)
    if backend == "in-process":
        return run_in_process(job)
    from infra.training.ray_train import run_on_ray  # imports Ray Train, which takes seconds

    return run_on_ray(job)

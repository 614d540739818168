"""The check of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arco_core.config import dumps
from components.checks.base import Checks
from components.local_session import check_paths
from components.plan import RunPlan, plan_run
from infra.resources import check_space, check_workers
from infra.storage import Store
from infra.training import StageJob, StageName
from infra.training.needs import WORKER_BYTES, checkpoint_bytes, state_bytes

_STAGES: tuple[StageName, ...] = ("pretrain", "finetune", "supervised")


def check_run(options: Mapping[str, Any]) -> Checks:
    """What would keep a pipeline from running with the arguments of `components.plan.plan_run`.

    Scans are listed, not read; what is in them is found out by the preparation.
    """
    checks = Checks()
    plan = checks.value(lambda: plan_run(**options, save=False))
    if plan is None:
        return checks
    checks.lines += plan.lines()
    checks.value(lambda: check_paths([plan.data, plan.run, *plan.overrides]))
    jobs = [_planned(plan, stage, seed) for seed in plan.seeds for stage in _STAGES]
    memory = max(WORKER_BYTES + 2 * state_bytes(job) for job in jobs[: len(_STAGES)])
    checks.line("workers", lambda: check_workers(plan.config.run, plan.backend, memory=memory))
    checks.line("space", lambda: check_space(Store(plan.store), sum(map(checkpoint_bytes, jobs))))
    return checks


def _planned(plan: RunPlan, stage: StageName, seed: int) -> StageJob:
    """A job of the run, as far as it is known before the scans are prepared."""
    return StageJob(
        stage=stage,
        config=dumps(plan.config),
        dataset_url="",
        labeled_patients=(),
        channels=plan.channels,
        classes=plan.classes,
        run_url=plan.run,
        seed=seed,
    )

"""What the training stages behind the models logged: curves, steps, seconds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arco_core.errors import DataError
from arco_core.stages import STATISTICS
from components.evaluate.scoring import TrainedModel
from infra.storage import Store
from infra.training.load import load_network
from infra.training.metrics_log import TIMES
from infra.training.stage_job import StageJob
from infra.training.worker import finished

STAGES = ("pretrain", "finetune", "supervised")
_NOT_LOSSES = frozenset({"step", "lr", "grad_norm", "skipped"}) | STATISTICS | TIMES

Curve = tuple[tuple[int, float], ...]
"""(step, value), in order."""


@dataclass(frozen=True, kw_only=True)
class StageLog:
    """One stage of one seed."""

    stage: str
    seed: int
    steps: int
    seconds: float
    curves: dict[str, Curve]
    """Each loss term over the steps, the total (`loss`) first."""


def read_stage_logs(models: Iterable[TrainedModel]) -> list[StageLog]:
    """Logs of the models' last stages and of the stages that those started from, in the order of `STAGES`.

    Raises:
        DataError: a stage has left no result.
    """
    jobs: dict[str, StageJob] = {}
    for model in models:
        job = model.job
        jobs[job.digest] = job
        while job.init_checkpoint:
            _, job = load_network(job.init_checkpoint)
            jobs[job.digest] = job
    return sorted((_read(job) for job in jobs.values()), key=lambda log: (STAGES.index(log.stage), log.seed))


def steps_of(logs: Sequence[StageLog]) -> dict[str, int]:
    """Optimiser steps of each stage, the same for every seed."""
    return {log.stage: log.steps for log in logs}


def seconds_of(logs: Sequence[StageLog]) -> dict[str, float]:
    """Training time of each stage, over all seeds."""
    return {
        stage: round(sum(log.seconds for log in logs if log.stage == stage), 1)
        for stage in STAGES
        if any(log.stage == stage for log in logs)
    }


def _read(job: StageJob) -> StageLog:
    result = finished(job)
    if result is None:
        raise DataError(f"{job.title}: {job.run_url}/{job.folder} holds no result: run the stage again.")
    folder, _, name = result.metrics_url.rpartition("/")
    lines = [json.loads(line) for line in Store(folder).read_bytes(name).splitlines()]
    plain = {key for line in lines for key in line if "/" not in key}
    terms = sorted(plain - _NOT_LOSSES, key=lambda key: (key != "loss", key))
    return StageLog(
        stage=job.stage,
        seed=job.seed,
        steps=result.steps,
        seconds=result.seconds,
        curves={t: tuple((int(line["step"]), float(line[t])) for line in lines if t in line) for t in terms},
    )

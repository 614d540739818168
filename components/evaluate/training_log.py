"""What the training stages behind the models logged: curves, steps, seconds; and with which settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from arco_core.errors import DataError
from arco_core.stages import STATISTICS
from components.evaluate.scoring import TrainedModel
from infra.storage import Store
from infra.training.load import load_job
from infra.training.metrics_log import EVENTS, TIMES, VALIDATION, decode
from infra.training.stage_job import StageJob
from infra.training.worker import finished

STAGES = ("pretrain", "finetune", "supervised")
VALIDATION_DICE = f"{VALIDATION}dice"
_NOT_LOSSES = frozenset({"step", "lr", "grad_norm", "skipped"}) | STATISTICS | TIMES | EVENTS
_POINTS = 200
"""Of a curve, at most."""

Curve = tuple[tuple[float, float], ...]
"""(step, value), in order."""


@dataclass(frozen=True, kw_only=True)
class StageLog:
    """One stage of one seed."""

    stage: str
    seed: int
    method: str | None
    """That it ends in; None of a stage that others go on from."""
    labeled: int
    steps: int
    seconds: float
    curves: dict[str, Curve]
    """Each loss term over the steps, the total (`loss`) first; then Dice on validation, if measured."""


def read_stage_logs(models: Iterable[TrainedModel]) -> list[StageLog]:
    """Logs of the models' last stages and of the stages that those started from, in the order of `STAGES`.

    Raises:
        DataError: a stage has left no result.
    """
    jobs: dict[str, tuple[StageJob, str | None]] = {}
    for model in models:
        last, *earlier = _chain(model.job)
        jobs[last.digest] = last, model.ref.method
        for job in earlier:
            jobs.setdefault(job.digest, (job, None))
    logs = [_read(job, method) for job, method in jobs.values()]
    return sorted(logs, key=lambda log: (STAGES.index(log.stage), log.seed))


def settings_digest(job: StageJob) -> str:
    """Fingerprint of how the model was trained: settings and code of all its stages, not labels or seed.

    Two trainings of one fingerprint are two seeds of one method.
    """
    parts = []
    for stage in _chain(job):
        config = asdict(stage.settings)
        keys = ("network", "augment", "optimizer", "inference", stage.stage)
        settings = {key: config[key] for key in keys} | stage.settings.run.result_settings
        parts.append([stage.stage, stage.steps, stage.code, settings])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def steps_of(logs: Sequence[StageLog]) -> dict[str, int]:
    """Optimiser steps of each stage, the same for every seed."""
    return {log.stage: log.steps for log in logs}


def seconds_of(logs: Sequence[StageLog]) -> dict[str, float]:
    """Training time of each stage, over all seeds and methods."""
    return {
        stage: round(sum(log.seconds for log in logs if log.stage == stage), 1)
        for stage in STAGES
        if any(log.stage == stage for log in logs)
    }


def logs_to_json(logs: Sequence[StageLog]) -> str:
    """For `logs_from_json`."""
    return json.dumps([asdict(log) for log in logs])


def logs_from_json(text: str) -> list[StageLog]:
    """The logs that `logs_to_json` wrote."""
    return [StageLog(**{**values, "curves": _curves(values["curves"])}) for values in json.loads(text)]


def _curves(values: Mapping[str, Any]) -> dict[str, Curve]:
    return {term: tuple((step, value) for step, value in curve) for term, curve in values.items()}


def _chain(job: StageJob) -> list[StageJob]:
    """The job and those that it started from, the last stage first."""
    chain = [job]
    while chain[-1].init_checkpoint:
        chain.append(_job_of(chain[-1].init_checkpoint))
    return chain


@lru_cache(maxsize=64)  # methods share a stage one
def _job_of(checkpoint_url: str) -> StageJob:
    return load_job(checkpoint_url)


def _read(job: StageJob, method: str | None) -> StageLog:
    result = finished(job)
    if result is None:
        raise DataError(f"{job.title}: {job.run_url}/{job.folder} holds no result: run the stage again.")
    folder, _, name = result.metrics_url.rpartition("/")
    lines = decode(Store(folder).read_bytes(name).decode())
    plain = {key for line in lines for key in line if "/" not in key}
    terms = sorted(plain - _NOT_LOSSES, key=lambda key: (key != "loss", key))
    curves = {
        term: tuple((line["step"], line[term]) for line in lines if line.get(term) is not None)
        for term in (*terms, VALIDATION_DICE)
    }
    return StageLog(
        stage=job.stage,
        seed=job.seed,
        method=method,
        labeled=len(job.labeled_patients),
        steps=result.steps,
        seconds=result.seconds,
        curves={term: thinned(curve) for term, curve in curves.items() if curve},
    )


def thinned(curve: Curve) -> Curve:
    """At most 200 points, each the mean of consecutive ones."""
    parts = np.array_split(np.array(curve, float), min(_POINTS, len(curve)))
    return tuple((float(step), float(value)) for step, value in (part.mean(axis=0) for part in parts))

"""Curves and settings of the stages behind a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from arco_core.config import dumps
from components.evaluate.scoring import load_models
from components.evaluate.training_log import (
    logs_from_json,
    logs_to_json,
    read_stage_logs,
    seconds_of,
    settings_digest,
    steps_of,
    thinned,
)
from infra.datasets import DatasetVersion
from tests.components.conftest import TrainedRun
from tests.infra.training.jobs import make_job


def test_of_a_real_run(trained_run: TrainedRun) -> None:
    models = load_models(trained_run.models, DatasetVersion.open(trained_run.dataset), "validation")
    logs = read_stage_logs(models)
    assert [(log.stage, log.seed, log.method) for log in logs] == [
        (stage, seed, method)
        for stage, method in (("pretrain", None), ("finetune", "arco-sg"), ("supervised", "supervised"))
        for seed in (0, 1)
    ]
    assert all(next(iter(log.curves)) == "loss" and log.labeled == 2 for log in logs)
    assert set(logs[0].curves) == {"loss", "supervised", "global", "local", "validation/dice"}
    assert steps_of(logs)["finetune"] == logs[2].steps
    assert seconds_of(logs)["pretrain"] == pytest.approx(logs[0].seconds + logs[1].seconds, abs=0.06)
    assert logs_from_json(logs_to_json(logs)) == logs


def test_thinned_curves_keep_their_mean() -> None:
    curve = tuple((float(step), float(step % 7)) for step in range(1000))
    thin = thinned(curve)
    assert len(thin) == 200
    assert sum(v for _, v in thin) / 200 == pytest.approx(sum(v for _, v in curve) / 1000)
    assert thinned(curve[:5]) == curve[:5]


def test_settings_of_two_seeds_are_one_and_other_settings_are_not(tiny_dataset: str, tmp_path: Path) -> None:
    job = make_job(tiny_dataset, tmp_path, "supervised")
    digest = settings_digest(job)
    assert settings_digest(make_job(tiny_dataset, tmp_path / "other", "supervised", seed=3)) == digest
    assert (
        settings_digest(make_job(tiny_dataset, tmp_path, "supervised", settings=["run.log_every=7"]))
        == digest
    )
    config = dataclasses.replace(job.settings, optimizer=dataclasses.replace(job.settings.optimizer, lr=0.5))
    assert settings_digest(dataclasses.replace(job, config=dumps(config))) != digest
    assert settings_digest(dataclasses.replace(job, code="another")) != digest

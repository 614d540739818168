"""A small run that is trained: both methods, two seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from components.model_ref import ModelRef
from infra.training.in_process import run_in_process
from tests.infra.training.jobs import make_job


@dataclass(frozen=True)
class TrainedRun:
    dataset: str
    run: Path
    models: tuple[ModelRef, ...]

    def options(self) -> list[str]:
        """For the steps' command lines."""
        models = [part for m in self.models for part in ("--model", m.method, str(m.seed), m.checkpoint)]
        return ["--dataset", self.dataset, "--run", str(self.run), *models]


@pytest.fixture(scope="session")
def trained_run(tiny_dataset: str, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    run = tmp_path_factory.mktemp("runs") / "tiny"
    models = []
    for seed in (0, 1):
        first = run_in_process(make_job(tiny_dataset, run, "pretrain", seed=seed))
        second = make_job(tiny_dataset, run, "finetune", seed=seed, init=first.checkpoint_url)
        baseline = make_job(tiny_dataset, run, "supervised", seed=seed)
        for method, job in (("arco-sg", second), ("supervised", baseline)):
            checkpoint = run_in_process(job).checkpoint_url
            models.append(ModelRef(method=method, seed=seed, checkpoint=checkpoint))
    return TrainedRun(dataset=tiny_dataset, run=run, models=tuple(models))

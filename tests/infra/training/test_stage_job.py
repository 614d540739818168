from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from infra.training import StageJob, StageResult
from infra.training.stage_job import Best
from tests.infra.training.jobs import make_job


def test_job_and_result_survive_json(tiny_dataset: str, tmp_path: Path) -> None:
    job = make_job(tiny_dataset, tmp_path, "finetune", init="somewhere.pt")
    assert StageJob.from_json(job.to_json()) == job
    result = StageResult(checkpoint_url="c", metrics_url="m", steps=3, seconds=1.5, final={"loss": 0.5})
    assert StageResult.from_json(result.to_json()) == result
    best = dataclasses.replace(result, best=Best(step=2, dice=0.5, checkpoint_url="b"))
    assert StageResult.from_json(best.to_json()) == best


@pytest.mark.parametrize(
    ("setting", "matters"),
    [
        ("optimizer.lr=0.5", True),
        ("network.dropout=[0.3,0.3]", True),
        ("pretrain.ema=0.5", True),
        ("run.workers=2", True),
        ("run.banks=local", True),
        ("run.precision=bf16", True),
        ("run.compile=true", True),
        ("run.validate_every=3", True),
        ("finetune.ema=0.5", False),
        ("run.log_every=7", False),
        ("run.checkpoint_every=7", False),
    ],
)
def test_the_digest_covers_what_determines_the_result(
    tiny_dataset: str, tmp_path: Path, setting: str, matters: bool
) -> None:
    job = make_job(tiny_dataset, tmp_path)
    other = make_job(tiny_dataset, tmp_path, settings=[setting])
    assert (job.digest != other.digest) is matters


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"labeled_patients": ("case_000",)}, {"code": "0"}, {"init_checkpoint": "x"}]
)
def test_the_digest_covers_the_inputs(tiny_dataset: str, tmp_path: Path, change: dict[str, object]) -> None:
    job = make_job(tiny_dataset, tmp_path)
    assert dataclasses.replace(job, **change).digest != job.digest  # type: ignore[arg-type]


def test_the_run_folder_does_not_matter(tiny_dataset: str, tmp_path: Path) -> None:
    assert make_job(tiny_dataset, tmp_path / "a").digest == make_job(tiny_dataset, tmp_path / "b").digest


def test_the_baseline_takes_the_steps_of_both_stages(tiny_dataset: str, tmp_path: Path) -> None:
    settings = ["pretrain.steps=3", "finetune.steps=5", "supervised.steps=0"]
    steps = {
        stage: make_job(tiny_dataset, tmp_path, stage, settings=settings).steps
        for stage in ("pretrain", "finetune", "supervised")
    }
    assert steps == {"pretrain": 3, "finetune": 5, "supervised": 8}
    assert make_job(tiny_dataset, tmp_path, "supervised").unlabeled_batch == 0

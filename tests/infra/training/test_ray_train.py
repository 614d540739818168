"""The same jobs on Ray Train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arco_core.errors import TrainingError
from infra.checkpoints import read_checkpoint
from infra.training import StageResult, run_stage
from infra.training.metrics_log import TIMES, Line, decode
from tests.infra.training.jobs import make_job

pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.usefixtures("ray_address")]


def curve(result: StageResult) -> list[Line]:
    lines = decode(Path(result.metrics_url).read_text())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def test_one_worker_gives_the_loss_curve_of_the_plain_loop(tiny_dataset: str, tmp_path: Path) -> None:
    plain, on_ray = (
        run_stage(make_job(tiny_dataset, tmp_path / backend, "finetune"), backend)
        for backend in ("in-process", "ray")
    )
    assert curve(on_ray) == curve(plain)
    states = [read_checkpoint(result.checkpoint_url)["stage"] for result in (plain, on_ray)]
    tensors = {name: value for name, value in states[0].items() if torch.is_tensor(value)}
    assert all(torch.equal(value, states[1][name]) for name, value in tensors.items())


def test_two_workers_train_and_report(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_stage(make_job(tiny_dataset, tmp_path, settings=["run.workers=2"]), "ray")
    assert len(read_checkpoint(result.checkpoint_url)["feeds"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pretrain, seed 0  0/4 steps  starting 2 workers on Ray"
    assert lines[-1].startswith("pretrain, seed 0  4/4 steps  loss ")


def test_what_the_user_has_to_mend_is_told_without_retries(tiny_dataset: str, tmp_path: Path) -> None:
    settings = ["run.workers=2", "optimizer.lr=1e30", "run.max_failures=3"]
    job = make_job(tiny_dataset, tmp_path, "supervised", settings=settings)
    with pytest.raises(TrainingError, match=r"^supervised, seed 0: training diverged"):
        run_stage(job, "ray")
    attempts = list((tmp_path / job.folder / "checkpoints/attempts").iterdir())
    assert len(attempts) == 1

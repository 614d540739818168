"""Two workers over gloo, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from arco_core.training import Loop, train
from infra.checkpoints import read_checkpoint
from infra.training import StageJob
from infra.training.collectives import (
    average,
    average_running_statistics,
    gather_objects,
    gather_rows,
)
from infra.training.feed import open_feed
from infra.training.seeds import derived_seed
from infra.training.worker import build, finished
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import run_on_two, train_group

pytestmark = pytest.mark.dist

WORLD = 2


def _exchange(rank: int) -> None:
    rows = torch.arange(3.0).view(-1, 3) + 10 * rank
    assert torch.equal(gather_rows(rows), torch.tensor([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]]))
    assert torch.equal(average(rows), torch.tensor([[5.0, 6.0, 7.0]]))
    flags = gather_rows(torch.full((2, 2), rank == 1))
    assert torch.equal(flags, torch.tensor([[False, False], [False, False], [True, True], [True, True]]))
    assert gather_objects({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    module = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(3))
    for layer in module:
        layer.running_mean.fill_(float(rank))
        layer.running_var.fill_(1.0 + rank)
    average_running_statistics(module)
    for layer in module:
        assert torch.equal(layer.running_mean, torch.full_like(layer.running_mean, 0.5))
        assert torch.equal(layer.running_var, torch.full_like(layer.running_var, 1.5))


@pytest.mark.slow
def test_what_workers_exchange() -> None:
    run_on_two(_exchange)


@pytest.mark.slow
def test_two_workers_train_one_model_and_resume_exactly(tiny_dataset: str, tmp_path: Path) -> None:
    job = make_job(tiny_dataset, tmp_path, "finetune", settings=["run.workers=2"])
    undisturbed = _train_on_two(job)
    assert [feed["labeled"] for feed in undisturbed["feeds"]] == [4, 4]  # one slice a step and rank
    folder = tmp_path / job.folder
    (folder / "result.json").unlink()
    (folder / "checkpoints/COMMITTED-00000004-a1.json").unlink()  # as if it had ended after step 2
    resumed = _train_on_two(job)
    assert (undisturbed["attempt"], resumed["attempt"]) == (1, 2)
    tensors = {name: value for name, value in undisturbed["stage"].items() if torch.is_tensor(value)}
    assert all(torch.equal(value, resumed["stage"][name]) for name, value in tensors.items())


@pytest.mark.slow
def test_a_step_of_two_workers_is_the_mean_of_their_own_steps(tiny_dataset: str, tmp_path: Path) -> None:
    settings = ["run.workers=2", "supervised.steps=1"]
    job = make_job(tiny_dataset, tmp_path, "supervised", settings=settings)
    together = _train_on_two(job)["stage"]
    alone = [_one_step_alone(job, rank) for rank in range(WORLD)]
    for name in (name for name in together if name.startswith("student.") and "batches" not in name):
        torch.testing.assert_close(together[name], (alone[0][name] + alone[1][name]) / 2)


def _one_step_alone(job: StageJob, rank: int) -> dict[str, Any]:
    """What a worker would have made of its own share of the batch."""
    stage = build(job, 1, torch.device("cpu"))
    loop = Loop(steps=1, seed=derived_seed(job.seed, job.stage), rank=rank)
    return dict(train(stage, open_feed(job, rank=rank, world=WORLD), job.settings.optimizer, loop)["stage"])


def _train_on_two(job: StageJob) -> dict[str, Any]:
    assert train_group(job, WORLD) == [0] * WORLD
    result = finished(job)
    assert result is not None
    return read_checkpoint(result.checkpoint_url)

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arco_core.errors import TrainingError
from infra.training.feed import open_feed
from infra.training.metrics_log import decode
from infra.training.recorder import checkpoints_of
from infra.training.shares import redeal, training_workers
from infra.training.worker import finished
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import Death, train_group


@pytest.mark.parametrize(("places", "workers"), [(1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (7, 4), (8, 4)])
def test_as_many_workers_train_as_divide_both_batches(
    tiny_dataset: str, tmp_path: Path, places: int, workers: int
) -> None:
    batches = ["finetune.labeled_batch=4", "finetune.unlabeled_batch=12"]
    job = make_job(tiny_dataset, tmp_path, "finetune", settings=batches)
    assert training_workers(job, places) == workers


def test_the_baseline_has_one_batch_to_divide(tiny_dataset: str, tmp_path: Path) -> None:
    job = make_job(tiny_dataset, tmp_path, "supervised", settings=["supervised.labeled_batch=6"])
    assert [training_workers(job, places) for places in (3, 4, 5, 6)] == [3, 3, 3, 6]


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (4, 1), (1, 2)])
def test_other_workers_draw_what_the_first_ones_would_have(
    tiny_dataset: str, tmp_path: Path, before: int, after: int
) -> None:
    settings = ["pretrain.labeled_batch=4", "pretrain.unlabeled_batch=4"]
    job = make_job(tiny_dataset, tmp_path, "pretrain", settings=settings)
    feeds = [open_feed(job, rank=rank, world=before) for rank in range(before)]
    for feed in feeds:
        for _ in range(3):
            feed.next()
    cursors = redeal([feed.state_dict() for feed in feeds], after)
    expected = torch.stack([feed.next()["unlabeled_image"] for feed in feeds], 1).flatten(0, 1)
    found = []
    for rank in range(after):
        feed = open_feed(job, rank=rank, world=after)
        feed.load_state_dict(cursors)
        found.append(feed.next()["unlabeled_image"])
    assert torch.equal(torch.stack(found, 1).flatten(0, 1), expected)


def test_samples_that_cannot_be_divided_are_told() -> None:
    with pytest.raises(TrainingError, match=r"2 workers have drawn .*'labeled': 14.* 3 workers cannot"):
        redeal([{"labeled": 7}, {"labeled": 7}], 3)


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("banks", ["shared", "local"])
def test_workers_come_and_go(tiny_dataset: str, tmp_path: Path, banks: str) -> None:
    batches = [f"{key}=4" for key in ("finetune.labeled_batch", "finetune.unlabeled_batch")]
    steps = ["finetune.steps=8", "run.workers=2", "run.min_workers=1", f"run.banks={banks}"]
    job = make_job(tiny_dataset, tmp_path, "finetune", settings=[*batches, *steps])
    for world, death in ((2, Death("step", 3)), (1, Death("step", 5)), (4, None)):
        train_group(job, world, death)
    assert finished(job) is not None
    step, state = checkpoints_of(job).latest() or (0, {})
    assert step == 8
    assert state["feeds"] == [{"labeled": 8, "unlabeled": 8}] * 4  # of 32
    assert len(state.get("banks", [])) == (4 if banks == "local" else 0)
    lines = [line["step"] for line in decode(state["metrics"]) if "loss" in line]
    assert lines == list(range(1, 9))

"""Tasks on Ray Tune: that train, fail at every attempt, had to start from those, or are stopped early."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from infra.training.recorder import checkpoints_of
from infra.training.worker import finished
from infra.tuning import Agenda, Outcome, Places, Task, run_tasks
from tests.infra.ray_cluster import wait_until
from tests.infra.training.jobs import make_job

pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.usefixtures("ray_address")]


def test_what_fails_is_retried_and_told_and_all_else_is_trained(
    tiny_dataset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = make_job(tiny_dataset, tmp_path, "pretrain", settings=["optimizer.lr=1e30"])
    tasks = [
        Task(name="good", job=make_job(tiny_dataset, tmp_path, "supervised"), group="all"),
        Task(name="bad", job=bad),
        Task(name="next", job=make_job(tiny_dataset, tmp_path, "finetune"), after="bad", group="all"),
    ]
    told: list[Outcome] = []
    agenda = Agenda(tasks, on_outcome=told.append)
    run_tasks(agenda, Places(concurrent=2, retries=1, grace=0.5))

    assert {name: (o.state, o.attempts) for name, o in agenda.outcomes.items()} == {
        "good": ("done", 1),
        "bad": ("failed", 2),
        "next": ("left out", 0),
    }
    assert told == list(agenda.outcomes.values())
    good, failed, left_out = (agenda.outcomes[task.name] for task in tasks)
    assert good.result == finished(good.task.job)
    assert failed.reason.startswith("pretrain, seed 0: training diverged")
    assert left_out.reason == f"bad failed: {failed.reason}"
    out = capfd.readouterr().out
    assert out.count("bad: pretrain, seed 0: training diverged") == 2
    assert "bad: attempt 1 failed, and another is made" in out
    assert "good  8/8 steps  loss " in out


def competitor(dataset: str, run: Path, name: str, *, rate: float, steps: int) -> Task:
    settings = [f"optimizer.lr={rate}", f"supervised.steps={steps}", "run.validate_every=16"]
    settings += ["run.checkpoint_every=10000", "run.log_every=16"]
    return Task(name=name, job=make_job(dataset, run, "supervised", settings=settings), group="all")


def test_what_is_stopped_early_gives_its_place_to_others(tiny_dataset: str, tmp_path: Path) -> None:
    tasks = [
        competitor(tiny_dataset, tmp_path, "good", rate=0.05, steps=160),
        competitor(tiny_dataset, tmp_path, "idle", rate=1e-8, steps=1600),  # weights stay as they were
        competitor(tiny_dataset, tmp_path, "lame", rate=1e-9, steps=1600),
    ]
    places = ray.cluster_resources()["CPU"]
    agenda = Agenda(tasks, on_outcome=lambda outcome: None)
    run_tasks(agenda, Places(concurrent=1, retries=0, grace=0.1))

    assert {name: o.state for name, o in agenda.outcomes.items()} == {
        "good": "done",
        "idle": "stopped",
        "lame": "stopped",
    }
    for task in tasks[1:]:
        assert finished(task.job) is None
        assert 0 < max(checkpoints_of(task.job).steps()) < 1600  # saved when it was asked to stop
    wait_until(lambda: round(ray.available_resources()["CPU"], 3) == places, 60)  # and no worker goes on

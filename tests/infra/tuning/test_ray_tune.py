"""Tasks on Ray Tune: one that trains, one that fails at every attempt, and one that had to start from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.training.worker import finished
from infra.tuning import Agenda, Outcome, Places, Task, run_tasks
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

"""The order of tasks, what one hands on to the next, and what was done before; without training anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra.training import StageJob, StageResult
from infra.tuning import Agenda, Outcome, Task, agenda
from tests.infra.training.jobs import make_job


def result_of(name: str) -> StageResult:
    return StageResult(checkpoint_url=f"{name}.pt", metrics_url="", steps=4, seconds=1.0, final={})


@pytest.fixture
def tasks(tiny_dataset: str, tmp_path: Path) -> list[Task]:
    first, second, baseline = (
        make_job(tiny_dataset, tmp_path, stage) for stage in ("pretrain", "finetune", "supervised")
    )
    return [
        Task(name="first", job=first),
        Task(name="second", job=second, after="first"),
        Task(name="third", job=replace(second, seed=1), after="first"),
        Task(name="baseline", job=baseline),
    ]


@pytest.fixture
def done_before(monkeypatch: pytest.MonkeyPatch) -> dict[str, StageResult]:
    """Results by the jobs' digests, to be filled."""
    results: dict[str, StageResult] = {}
    monkeypatch.setattr(agenda, "finished", lambda job: results.get(job.digest))
    return results


def names(tasks: list[Task | None]) -> list[str]:
    return [task.name for task in tasks if task is not None]


def started_from(job: StageJob, checkpoint: str) -> str:
    return replace(job, init_checkpoint=checkpoint).digest


def test_a_task_waits_for_what_it_starts_from_and_gets_its_checkpoint(
    tasks: list[Task], done_before: dict[str, StageResult]
) -> None:
    told: list[Outcome] = []
    plan = Agenda(tasks, on_outcome=told.append)
    assert names([plan.take(), plan.take(), plan.take()]) == ["first", "baseline"]
    plan.end("first", "done", attempts=1, result=result_of("first"))
    second = plan.take()
    assert second is not None
    assert (second.name, second.job.init_checkpoint) == ("second", "first.pt")
    assert names([plan.take()]) == ["third"]
    assert (plan.take(), list(plan.waiting)) == (None, [])
    assert [outcome.task.name for outcome in told] == ["first"]


def test_nothing_starts_from_what_failed(tasks: list[Task], done_before: dict[str, StageResult]) -> None:
    plan = Agenda(tasks[:3], on_outcome=lambda outcome: None)
    plan.take()
    plan.end("first", "failed", attempts=2, reason="no space left")
    assert plan.take() is None
    assert not plan.waiting
    states = {name: (o.state, o.attempts, o.reason) for name, o in plan.outcomes.items()}
    assert states["first"] == ("failed", 2, "no space left")
    assert states["second"] == states["third"] == ("left out", 0, "first failed: no space left")


def test_what_was_done_or_stopped_before_is_not_trained_again(
    tasks: list[Task], done_before: dict[str, StageResult]
) -> None:
    first, second, third, baseline = (task.job for task in tasks)
    done_before[first.digest] = result_of("first")
    done_before[started_from(second, "first.pt")] = result_of("second")
    stopped = {started_from(third, "first.pt"): "Dice 0.1", baseline.digest: "Dice 0.2"}
    plan = Agenda(tasks, stopped=stopped, on_outcome=lambda outcome: None)
    plan.settle()
    assert not plan.waiting
    assert [(o.state, o.attempts) for o in plan.outcomes.values()] == [("done", 0)] * 2 + [("stopped", 0)] * 2
    assert plan.outcomes["baseline"].reason == "Dice 0.2"


def test_what_was_stopped_stays_so_though_it_was_trained_to_its_end_elsewhere(
    tasks: list[Task], done_before: dict[str, StageResult]
) -> None:
    baseline = tasks[3]
    done_before[baseline.job.digest] = result_of("baseline")
    plan = Agenda([baseline], stopped={baseline.job.digest: "Dice 0.2"}, on_outcome=lambda outcome: None)
    plan.settle()
    assert plan.outcomes["baseline"].state == "stopped"


def test_a_checkpoint_of_another_stage_one_is_another_training(
    tasks: list[Task], done_before: dict[str, StageResult]
) -> None:
    done_before[started_from(tasks[1].job, "other.pt")] = result_of("second")
    plan = Agenda(tasks[:2], on_outcome=lambda outcome: None)
    plan.take()
    plan.end("first", "done", attempts=1, result=result_of("first"))
    assert names([plan.take()]) == ["second"]

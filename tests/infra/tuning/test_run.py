"""Tasks one after another in this process, without training anything."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from infra.signals import Interrupted
from infra.training import StageJob, StageResult
from infra.tuning import Agenda, Places, Task, run, run_tasks
from tests.infra.training.jobs import make_job

DONE = StageResult(checkpoint_url="a.pt", metrics_url="", steps=4, seconds=1.0, final={})


@pytest.fixture
def agenda(tiny_dataset: str, tmp_path: Path) -> Agenda:
    stages = {"bad": "pretrain", "good": "supervised"}
    tasks = [Task(name=name, job=make_job(tiny_dataset, tmp_path, stage)) for name, stage in stages.items()]
    return Agenda(tasks, on_outcome=lambda outcome: None)


def train_with(monkeypatch: pytest.MonkeyPatch, failures: list[Exception]) -> None:
    def train(job: StageJob, backend: str) -> StageResult:
        if failures:
            raise failures.pop(0)
        return DONE

    monkeypatch.setattr(run, "run_stage", train)


def test_whatever_goes_wrong_in_one_training_the_others_are_trained(
    agenda: Agenda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_with(monkeypatch, [RuntimeError("CUDA out of memory"), MemoryError()])
    run_tasks(agenda, Places(retries=1), "in-process")
    outcomes = {name: (o.state, o.attempts, o.reason) for name, o in agenda.outcomes.items()}
    assert outcomes == {"bad": ("failed", 2, "MemoryError"), "good": ("done", 1, "")}
    assert "bad: attempt 1 failed: CUDA out of memory" in capsys.readouterr().out


def test_a_signal_ends_them_all(agenda: Agenda, monkeypatch: pytest.MonkeyPatch) -> None:
    train_with(monkeypatch, [Interrupted(2, signal.SIGTERM)])
    with pytest.raises(Interrupted):
        run_tasks(agenda, Places(retries=1), "in-process")
    assert not agenda.outcomes

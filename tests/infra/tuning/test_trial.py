"""The driver of a trial, without Ray: how it learns that it has to stop, and what it says then."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.progress import Progress
from infra.signals import Interrupted, SignalNote
from infra.training import StageJob, StageResult
from infra.tuning import trial
from tests.infra.training.jobs import make_job

DONE = StageResult(checkpoint_url="a.pt", metrics_url="", steps=4, seconds=1.0, final={})


@pytest.fixture
def run(tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a trial whose board says `verdict`."""

    def run(verdict: str) -> tuple[dict[str, Any], list[str]]:
        left: list[str] = []

        def train(job: StageJob, progress: Progress, note: SignalNote) -> StageResult:
            progress.update(2, dice=0.5)
            deadline = time.monotonic() + (10 if verdict else 0)
            while time.monotonic() < deadline and note.number is None:
                time.sleep(0.01)
            if note.number is not None:
                raise Interrupted(2, note.number)
            return DONE

        board = SimpleNamespace(
            wait=SimpleNamespace(remote=lambda name: verdict), leave=SimpleNamespace(remote=left.append)
        )
        job = make_job(tiny_dataset, tmp_path)
        monkeypatch.setattr(trial.ray, "get", lambda value: value)
        monkeypatch.setattr(trial.tune, "report", lambda metrics: None)
        monkeypatch.setattr(trial, "train_on_ray", train)
        config = {"name": "a", "job": job.to_json(), "board": board, "environment": {}}
        return trial.train_task(config), left

    return run


def test_a_trial_that_is_let_go_on_is_done(run: Any) -> None:
    result, left = run("")
    assert StageResult.from_json(result[trial.RESULT]) == DONE
    assert (result[trial.STOPPED], result[trial.PERCENT], left) == (False, 100.0, ["a"])


@pytest.mark.parametrize(("verdict", "early"), [("trial", True), ("sweep", False)])
def test_a_trial_says_for_whose_sake_it_stopped(run: Any, verdict: str, early: bool) -> None:
    result, left = run(verdict)
    assert (result[trial.RESULT], result[trial.STOPPED], left) == ("", early, ["a"])
    assert (result[trial.DICE], result[trial.PERCENT]) == (0.5, 50.0)

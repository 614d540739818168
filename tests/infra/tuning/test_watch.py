"""What the owner of a sweep is shown of its trials."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from infra.progress import Event, Lines, Progress
from infra.signals import SignalNote
from infra.tuning import Agenda
from infra.tuning.ray_tune import _Watch
from infra.tuning.trial import EVENT, RESULT, _Reports


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a trial in this process reports to Tune."""
    results: list[dict[str, Any]] = []
    monkeypatch.setattr("infra.tuning.trial.tune.report", results.append)
    return results


def test_a_trial_is_shown_as_a_training_by_itself_is(
    reported: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each warning once, with the trial's name once, and each event."""

    def train(progress: Progress) -> None:
        progress.announce("starting")
        progress.warn("step 1: lost the class 'ring'")
        progress.update(10, loss=0.5)

    trial: Any = SimpleNamespace(config={"name": "supervised, seed 0"})
    train(Progress(trial.config["name"], 10, "steps", sink=_Reports()))
    watch = _Watch(Agenda([], on_outcome=lambda outcome: None), None, Lines(sys.stdout), SignalNote())
    for result in [*reported, {**reported[-1], RESULT: "the job's", EVENT: vars(event(99))}]:
        watch.on_trial_result(1, [trial], trial, result)
    in_sweep = capsys.readouterr().out
    train(Progress(trial.config["name"], 10, "steps", sink=Lines(sys.stdout)))
    assert in_sweep == capsys.readouterr().out
    assert in_sweep.count("supervised, seed 0") == 3


def event(done: int) -> Event:
    return Event(title="again", done=done, total=100, unit="steps", text="", seconds_left=None)

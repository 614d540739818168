"""Rules for trainings that go wrong, and injected faults: what is not finite, and classes that are lost."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from arco_core.errors import Diverged, TrainingError
from arco_core.session import Session
from arco_core.training import Request
from infra.checkpoints import read_checkpoint
from infra.training import StageJob, StageResult
from infra.training.health import Collapsed, check_classes, lost_classes, rollback_line
from infra.training.in_process import run_in_process
from infra.training.metrics_log import decode
from infra.training.recorder import checkpoints_of
from infra.training.validation import Validation, Validator
from infra.training.watch import Contact
from infra.training.worker import finished, run_worker
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import run_on_two


def validations(*dice: tuple[float, float], predicted: int = 3) -> list[Validation]:
    return [
        Validation(step=10 * i, dice=(a + b) / 2, per_class={"ring": a, "core": b}, predicted=predicted)
        for i, (a, b) in enumerate(dice, start=1)
    ]


def test_a_class_is_lost_that_had_been_learnt() -> None:
    assert lost_classes([]) == {}
    assert lost_classes(validations((0.6, 0.1), (0.7, 0.0))) == {}, "never learnt"
    assert lost_classes(validations((0.5, 0.1), (0.6, 0.1), (0.04, 0.6))) == {"ring": 0.6}
    assert lost_classes(validations((0.6, 0.1), (0.5, 0.1), (0.1, 0.1), (0.04, 0.6))) == {"ring": 0.6}
    assert lost_classes(validations((0.5, 0.1), (0.6, 0.1), (0.06, 0.6))) == {}, "bad, but not lost"
    took_turns = validations((0.3, 0.2), (0.6, 0.1), (0.04, 0.6), (0.6, 0.04), (0.04, 0.6))
    assert lost_classes(took_turns) == {}, "never twice in a row"


def test_a_class_that_is_lost_once_is_told_and_twice_ends_training() -> None:
    before = (0.5, 0.4), (0.6, 0.5), (0.6, 0.5)
    once = validations(*before, (0.0, 0.5))
    warning = check_classes(once)
    assert warning and "step 40: lost the class 'ring' (Dice 0.000, was 0.600)" in warning
    with pytest.raises(Collapsed, match=r"'ring' collapsed: .* was 0\.600, .* at the steps 40 and 50"):
        check_classes(validations(*before, (0.0, 0.5), (0.01, 0.5)))
    assert check_classes(validations(*before, (0.0, 0.5), (0.4, 0.5))) is None, "it came back"
    other = check_classes(validations(*before, (0.0, 0.5), (0.6, 0.0)))
    assert other and "'core'" in other


def test_a_single_class_everywhere_is_told() -> None:
    nothing_yet = validations((0.05, 0.05), predicted=1)
    assert check_classes(validations((0.06, 0.06)) + nothing_yet) is None
    warning = check_classes(validations((0.2, 0.2)) + nothing_yet)
    assert warning and "one class" in warning


def test_the_second_return_is_refused() -> None:
    diverged = Diverged(7, {"loss": float("nan"), "grad_norm": 1.0})
    line = rollback_line(4, diverged, [{"step": 4, "elapsed": 2.0, "loss": 1.0}])
    assert (line["step"], line["elapsed"], line["rollback"]) == (4, 2.0, 7)
    with pytest.raises(TrainingError, match=r"not finite at step 7 .*loss nan.*once: it stops"):
        rollback_line(4, diverged, [line])


class Faults:
    """Makes the loss NaN at the given optimiser steps of this process, counted from 1, over rollbacks too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
        descend, count = Session.descend, itertools.count(1)

        def faulty(session: Session, loss: torch.Tensor, lr: float) -> dict[str, torch.Tensor]:
            return descend(session, loss * float("nan") if next(count) in calls else loss, lr)

        monkeypatch.setattr(Session, "descend", faulty)


def run(dataset: str, folder: Path, *settings: str) -> tuple[StageJob, StageResult]:
    job = make_job(
        dataset, folder, "supervised", settings=["supervised.steps=6", "run.checkpoint_every=2", *settings]
    )
    return job, run_in_process(job)


def weights(result: StageResult) -> list[torch.Tensor]:
    state = read_checkpoint(result.checkpoint_url)["stage"]
    return [value for value in state.values() if torch.is_tensor(value)]


def same(one: StageResult, other: StageResult) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.mark.parametrize("log_every", [1, 100])
def test_what_is_not_finite_sends_training_back_once(
    tiny_dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    log_every: int,
) -> None:
    """At step 3, found at once or at the checkpoint of step 4; back to that of step 2."""
    settings = (f"run.log_every={log_every}", "run.validate_every=0")
    results = []
    for attempt in ("a", "b"):
        with monkeypatch.context() as patch:
            Faults(patch, 3)
            results.append(run(tiny_dataset, tmp_path / attempt, *settings)[1])
    found = 3 if log_every == 1 else 4
    told = capsys.readouterr().out
    assert "warning: supervised, seed 0: training diverged: the loss or" in told
    assert f"is not finite at step {found} " in told
    lines = decode(Path(results[0].metrics_url).read_text())
    assert [line["step"] for line in lines if "rollback" in line] == [2]
    assert results[0].final["rollback"] == found
    expected = [1, 2, 3, 4, 5, 6] if log_every == 1 else [6]
    assert [line["step"] for line in lines if "loss" in line] == expected
    assert same(*results), "the way after a rollback is as determined as the way before"
    assert not same(results[0], run(tiny_dataset, tmp_path / "c", *settings)[1]), "other random numbers"


def test_without_a_checkpoint_it_starts_again(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Faults(monkeypatch, 1)
    _, result = run(tiny_dataset, tmp_path)
    lines = decode(Path(result.metrics_url).read_text())
    assert (lines[0]["step"], lines[0]["rollback"]) == (0, 1)


@pytest.mark.parametrize("second", [4, 7], ids=["before the next checkpoint", "after it"])
def test_the_second_time_it_stops_and_keeps_what_is_good(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: int
) -> None:
    Faults(monkeypatch, 3, second)
    with pytest.raises(TrainingError, match="once: it stops"):
        run(tiny_dataset, tmp_path, "run.validate_every=0")
    settings = ["supervised.steps=6", "run.validate_every=0"]
    job = make_job(tiny_dataset, tmp_path, "supervised", settings=settings)
    step, state = checkpoints_of(job).latest() or (0, {})
    assert step == (2 if second == 4 else 4)
    assert all(value.isfinite().all() for value in state["stage"].values() if torch.is_tensor(value))
    shown = decode((tmp_path / job.folder / "metrics.jsonl").read_text())
    assert shown[-1]["grad_norm"] is None, "what was not finite can be seen"


def test_a_rollback_is_remembered_by_later_attempts(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Faults(patch, 3)
        _, undisturbed = run(tiny_dataset, tmp_path / "a", "run.validate_every=0")
    descend, calls = Session.descend, itertools.count(1)

    def faulty(session: Session, loss: torch.Tensor, lr: float) -> dict[str, torch.Tensor]:
        call = next(calls)
        if call == 6:  # step 5, with the checkpoint of step 4 behind it
            raise KeyboardInterrupt
        return descend(session, loss * float("nan") if call == 3 else loss, lr)

    monkeypatch.setattr(Session, "descend", faulty)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_dataset, tmp_path / "b", "run.validate_every=0")
    _, resumed = run(tiny_dataset, tmp_path / "b", "run.validate_every=0")
    assert same(resumed, undisturbed)
    assert resumed.final["rollback"] == 3


def test_a_collapsed_class_ends_training_and_the_best_checkpoint_stays(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = iter([0.6, 0.7, 0.0, 0.0])

    def scripted(self: Validator, network: Any, step: int) -> Validation:
        dice = next(script)
        return Validation(step=step, dice=dice, per_class={"ring": dice, "core": 0.4}, predicted=3)

    monkeypatch.setattr(Validator, "__call__", scripted)
    with pytest.raises(TrainingError, match="'ring' collapsed"):
        run(tiny_dataset, tmp_path, "run.validate_every=1", "run.checkpoint_every=100")
    assert "warning: supervised, seed 0: step 3: lost the class 'ring'" in capsys.readouterr().out
    job = make_job(
        tiny_dataset, tmp_path, "supervised", settings=["supervised.steps=6", "run.validate_every=1"]
    )
    assert checkpoints_of(job).steps() == [1, 2]
    shown = decode((tmp_path / job.folder / "metrics.jsonl").read_text())
    assert [line["validation/dice"] for line in shown if "validation/dice" in line] == [0.6, 0.7, 0.0, 0.0]


def _train_with_a_fault_on_one_rank(rank: int, *, job: str) -> None:
    descend, calls = Session.descend, itertools.count(1)

    def faulty(session: Session, loss: torch.Tensor, lr: float) -> dict[str, torch.Tensor]:
        return descend(session, loss * float("nan") if next(calls) == 3 and rank == 1 else loss, lr)

    Session.descend = faulty  # type: ignore[method-assign]
    contact = Contact(
        report=lambda step, metrics: None,
        warn=lambda text: None,
        alive=lambda step: None,
        request=lambda: Request.GO_ON,
    )
    run_worker(StageJob.from_json(job), rank=rank, world=2, device=torch.device("cpu"), contact=contact)


@pytest.mark.dist
@pytest.mark.slow
def test_what_is_not_finite_on_one_worker_sends_both_back(tiny_dataset: str, tmp_path: Path) -> None:
    settings = ["supervised.steps=6", "run.checkpoint_every=2", "run.workers=2"]
    job = make_job(tiny_dataset, tmp_path, "supervised", settings=settings)
    run_on_two(partial(_train_with_a_fault_on_one_rank, job=job.to_json()))
    result = finished(job)
    assert result and result.final["rollback"] == 3
    assert all(value.isfinite().all() for value in weights(result))

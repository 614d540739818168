"""What a sweep's evaluation is asked for, and what of it is not done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.evaluate.options import Scoring
from components.sweep import __main__ as command
from components.sweep import report
from components.sweep.record import SweepRecord

RELEASED = Scoring(convention="released", tolerance_mm=1.0)


def made_up_record(run: Path) -> SweepRecord:
    """One method with 1 and 7 labelled patients."""
    trials = [
        {"method": "arco-sg", "labeled": n, "seed": 0, "state": "done", "checkpoint": f"c{n}"} for n in (1, 7)
    ]
    return SweepRecord(str(run), {"dataset": "store/datasets/toy/0", "trials": trials})


def test_only_amounts_that_were_not_evaluated_in_this_way_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[dict[str, Any]] = []

    def evaluated(**asked: Any) -> str | None:
        return "found" if asked["run"].endswith("labeled-1") else None

    def evaluate(**asked: Any) -> str:
        done.append(asked)
        return "made"

    monkeypatch.setattr(report, "evaluated", evaluated)
    monkeypatch.setattr(report, "evaluate", evaluate)
    results: list[Any] = report.evaluate_sweep(made_up_record(tmp_path), split="test", scoring=RELEASED)
    assert results == ["found", "made"]
    (asked,) = done
    assert asked["run"] == f"{tmp_path}/labeled-7"
    assert (asked["split"], asked["convention"], asked["tolerance_mm"]) == ("test", "released", 1.0)


def test_the_convention_of_the_command_line_reaches_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(command, "sweep", lambda _: made_up_record(tmp_path))
    monkeypatch.setattr(command, "evaluate_sweep", lambda _, **options: asked.update(options))
    monkeypatch.setattr(command, "report_sweep", lambda _: None)
    monkeypatch.setattr(command, "print_comparison", lambda _: None)
    given = ["--dataset", "store/datasets/toy/0", "--run", str(tmp_path), "--backend", "in-process"]
    command.main([*given, "--convention", "released", "--tolerance-mm", "1"])
    assert asked == {"split": "validation", "scoring": RELEASED}


def test_an_impossible_tolerance_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "sweep", lambda _: pytest.fail("trained"))
    with pytest.raises(SystemExit) as stop:
        command.main(["--dataset", "d", "--run", str(tmp_path), "--tolerance-mm", "-1"])
    assert stop.value.code == 2
    assert "tolerance -1 mm" in capsys.readouterr().err

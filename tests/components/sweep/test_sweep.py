"""A sweep from its command line to its report: killed on the way, and with trials that fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from arco_core.errors import TrainingError
from components.cli import main
from components.compare import compare
from components.sweep.report import evaluate_sweep, report_sweep
from components.sweep.settings import SweepConfig
from components.sweep.step import SweepOptions, sweep
from infra.training import StageJob, StageResult, run_stage
from infra.tuning import run as tuning
from tests.conftest import TINY_SETTINGS
from tests.infra.ray_cluster import wait_until

SETTINGS = [argument for setting in TINY_SETTINGS for argument in ("--set", setting)]


def arguments(dataset: str, run: Path, *more: str) -> list[str]:
    grid = ["--labeled", "1", "2", "--methods", "supervised", "arco-sg", "--seeds", "0"]
    return [*grid, "--dataset", dataset, "--run", str(run), "--backend", "in-process", *SETTINGS, *more]


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "sweep.json").read_text()))


def attempts(run: Path) -> dict[str, int]:
    """How often each training has started, by the name of its folder."""
    folders = (run / "trainings").iterdir()
    return {f.name: len(list((f / "checkpoints/attempts").iterdir())) for f in folders}


def finished(run: Path) -> set[str]:
    return {path.parent.name for path in run.glob("trainings/*/result.json")}


KILLED = """
import os, signal, sys
from pathlib import Path
from components.cli import main
from infra.training.recorder import Recorder

run, save = Path(sys.argv[1]), Recorder.save

def save_and_die(self, *arguments):
    save(self, *arguments)
    if len(list(run.glob("trainings/*/result.json"))) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Recorder.save = save_and_die
main(["sweep", *sys.argv[2:]])
"""
"""A sweep that is killed in its third training, after that one's first checkpoint."""


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_repeats_nothing_that_was_done(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "sweep"
    given = arguments(tiny_dataset, run)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(run), *given], capture_output=True, timeout=500
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    before = finished(run)
    assert len(before) == 2 and set(attempts(run).values()) == {1}
    assert not (run / "report.html").exists()

    main(["sweep", *given])
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("sweep  ")]
    assert [line.endswith(" left") for line in shown] == [False] * 2 + [True] * 3 + [False]
    started = attempts(run)
    assert finished(run) == started.keys()
    assert len(started) == 4 + 2  # two methods with two amounts of labels; two stages one
    assert {started[name] for name in before} == {1}
    assert sorted(started.values()) == [1] * 5 + [2]  # the one that was killed went on
    assert [trial["state"] for trial in record(run)["trials"]] == ["done"] * 4
    report = (run / "report.html").read_text()
    assert "have not ended" not in report and "ARCO-SG" in report
    comparison = json.loads((run / "comparison.json").read_text())
    assert [amount["labeled"] for amount in comparison["amounts"]] == [1, 2]
    assert comparison["notes"] == []


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.cluster  # only on request, until it was seen to be quick and steady
def test_a_killed_sweep_on_ray_goes_on_and_repeats_nothing_that_was_done(
    tiny_dataset: str, tmp_path: Path, ray_address: str
) -> None:
    run, log = tmp_path / "sweep", tmp_path / "log"
    given = arguments(tiny_dataset, run, "--labeled", "1", "--backend", "ray", "--concurrent", "1")
    with log.open("w") as out:
        command = [sys.executable, "-m", "components.sweep", *given]
        killed = subprocess.Popen(command, stdout=out, stderr=out)
    wait_until(lambda: killed.poll() is not None or len(list(run.glob("trainings/*/checkpoints"))) == 2)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL, log.read_text()
    cpus = ray.cluster_resources()["CPU"]
    wait_until(lambda: round(ray.available_resources()["CPU"], 3) == cpus, 60)  # its workers are gone, too
    before = finished(run)
    assert before

    main(["sweep", *given])
    started = attempts(run)
    assert finished(run) == started.keys()
    assert len(started) == 2 + 1  # two methods; a stage one
    assert {started[name] for name in before} == {1}
    assert [trial["state"] for trial in record(run)["trials"]] == ["done"] * 2
    assert (run / "report.html").exists()


def options(dataset: str, run: Path, methods: Sequence[str]) -> SweepOptions:
    config = SweepConfig(labeled=(2,), methods=tuple(methods), seeds=(0,))
    return SweepOptions(
        sweep=config, dataset=dataset, run=str(run), overrides=TINY_SETTINGS, backend="in-process"
    )


@pytest.mark.slow
def test_a_trial_that_fails_is_retried_then_told_in_the_report(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[str] = []
    broken = {"arco-sg": 9, "supervised": 1}  # attempts that fail

    def train(job: StageJob, backend: str) -> StageResult:
        contrast = job.settings.finetune.weights.contrast
        method = {"pretrain": "stage one", "supervised": "supervised"}.get(job.stage) or (
            "arco-sg" if contrast else "mean-teacher"
        )
        starts.append(method)
        if starts.count(method) <= broken.get(method, 0):
            raise TrainingError("the disk is full")
        return run_stage(job, backend)

    monkeypatch.setattr(tuning, "run_stage", train)
    asked = options(tiny_dataset, tmp_path / "a", ["supervised", "mean-teacher", "arco-sg"])
    made = sweep(asked)
    assert [starts.count(m) for m in ("stage one", "supervised", "mean-teacher", "arco-sg")] == [1, 2, 1, 2]
    states = {t["method"]: (t["state"], t["attempts"]) for t in record(tmp_path / "a")["trials"]}
    assert states == {"supervised": ("done", 2), "mean-teacher": ("done", 1), "arco-sg": ("failed", 2)}
    told = "arco-sg, 2 labelled, seed 0: failed, at attempt 2: the disk is full; it is in no table."
    assert (made.failures, made.notes) == (1, [told])
    evaluate_sweep(made)
    report_sweep(made)
    assert told in (tmp_path / "a/report.html").read_text()

    other = sweep(options(tiny_dataset, tmp_path / "b", ["supervised"]))  # compared with a sweep
    evaluate_sweep(other)
    both = compare(runs=[made.run, other.run], output=str(tmp_path / "both")).comparison
    assert told in both.notes
    assert both.methods == ["supervised", "mean-teacher"]

    broken.clear()  # once the cause is gone, the same sweep trains what failed, and only that
    starts.clear()
    assert sweep(asked).failures == 0
    assert starts == ["arco-sg"]


@pytest.mark.slow
def test_where_a_stage_one_fails_its_trials_are_left_out(
    tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["--labeled", "2", "--methods", "arco-sg", "mean-teacher", "--seeds", "0", "--retries", "0"]
    common = ["--dataset", tiny_dataset, "--run", str(tmp_path), "--backend", "in-process", *SETTINGS]
    with pytest.raises(SystemExit) as end:
        main(["sweep", *grid, *common, "--set", "optimizer.lr=1e30"])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert "no trial is done, so there is nothing to evaluate" in err
    assert "arco-sg, 2 labelled, seed 0: not trained, because stage one " in err
    assert "training diverged" in err
    assert {trial["state"] for trial in record(tmp_path)["trials"]} == {"left out"}

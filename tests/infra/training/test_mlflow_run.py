"""MLflow's own client reads what was logged."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from arco_core.errors import TrainingError
from infra.training import StageJob, mlflow_run
from infra.training.mlflow_run import MlflowRun, mlflow_environment, open_mlflow, require_mlflow
from infra.training.run import run_stage
from tests.infra.training.jobs import make_job
from tests.infra.training.test_health import Faults

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracking store in a folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture
def job(tiny_dataset: str, tmp_path: Path) -> StageJob:
    return make_job(tiny_dataset, tmp_path / "run", "supervised", settings=["run.log_every=2"])


def only_run() -> Any:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("arco")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def history(name: str) -> list[tuple[int, float]]:
    run_id = only_run().info.run_id
    return [(m.step, m.value) for m in mlflow.MlflowClient().get_metric_history(run_id, name)]


def lines(*steps: int) -> list[dict[str, Any]]:
    return [{"step": s, "time": 1e9 + s, "loss": 1 / s, "candidates/a&b": 2.0, "lost": None} for s in steps]


def test_a_stage_is_a_run(job: StageJob) -> None:
    run_stage(job, "in-process")
    run = only_run()
    assert run.info.status == "FINISHED" and run.info.run_name == job.title
    assert run.data.tags["arco.folder"].endswith(job.folder)
    assert run.data.params["stage"] == "supervised" and run.data.params["labeled_patients"] == "2"
    assert run.data.params["run.log_every"] == "2"
    assert [step for step, _ in history("loss")] == list(range(2, job.steps + 1, 2))
    assert history("validation/dice") and history("validation/dice.ring")


def test_an_attempt_that_goes_on_continues_the_run(job: StageJob, warnings: list[str]) -> None:
    first = MlflowRun(job, warnings.append)
    first.show(lines(1))
    first.show(lines(1, 2))
    second = MlflowRun(job, warnings.append, known=2)
    second.show(lines(1, 2))
    second.show(lines(1, 2, 4))
    second.end(succeeded=False)
    assert history("loss") == [(1, 1.0), (2, 0.5), (4, 0.25)]
    assert history("candidates.a_b") == [(1, 2.0), (2, 2.0), (4, 2.0)]
    assert only_run().info.status == "FAILED" and warnings == []


def test_steps_that_were_taken_back_are_logged_again(job: StageJob, warnings: list[str]) -> None:
    MlflowRun(job, warnings.append).show(lines(1, 2, 3))
    second = MlflowRun(job, warnings.append, known=1)
    second.show(lines(1))
    second.show(lines(1, 2))
    assert sorted(history("loss")) == [(1, 1.0), (2, 0.5), (2, 0.5), (3, 1 / 3)]


def test_what_is_told_after_a_checkpoint_is_sent(job: StageJob, warnings: list[str]) -> None:
    """The line of an event stands where the run may have had another one, which was taken back."""
    MlflowRun(job, warnings.append).show(lines(1, 2, 3))
    event = {"step": 1, "time": 1e9, "elapsed": 1.0, "rollback": 3}
    MlflowRun(job, warnings.append, known=1).show([*lines(1), event])
    assert history("rollback") == [(1, 3.0)] and history("loss")[-1] == (3, 1 / 3)


def test_a_run_goes_on_after_a_rollback_and_ends_once(job: StageJob, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    close = MlflowRun._close

    def noted(run: MlflowRun, status: str) -> None:
        ended.append(status)
        close(run, status)

    monkeypatch.setattr(MlflowRun, "_close", noted)
    with monkeypatch.context() as patch:
        Faults(patch, 3)
        run_stage(job, "in-process")
    assert ended == ["FINISHED"] and only_run().info.status == "FINISHED"
    assert history("rollback") == [(2, 3.0)]
    assert [step for step, _ in history("loss")] == [2, 3, 4, 6, 8]


def test_the_run_of_a_training_that_diverges_twice_has_failed(
    job: StageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    Faults(monkeypatch, 1, 2)
    with pytest.raises(TrainingError, match="once: it stops"):
        run_stage(job, "in-process")
    assert only_run().info.status == "FAILED"


def test_a_server_that_fails_stops_nothing(
    job: StageJob, warnings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    view = MlflowRun(job, warnings.append)
    view.show(lines(1))
    assert len(warnings) == 1 and warnings[0].startswith(
        "MLflow at http://127.0.0.1:1 did not take the metrics"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlflow")
    view.show(lines(1, 2))
    assert history("loss") == [(1, 1.0), (2, 0.5)] and len(warnings) == 1


def test_without_a_server_there_is_no_run(
    job: StageJob, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(mlflow_environment()) == ["MLFLOW_TRACKING_URI"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert open_mlflow(job, warnings.append, known=0) is None and mlflow_environment() == {}
    require_mlflow()


def test_a_missing_client_is_told_before_anything_starts(
    job: StageJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        TrainingError, match=r"MLFLOW_TRACKING_URI is set, .*: pip install mlflow-skinny, or unset"
    ):
        run_stage(job, "in-process")
    assert importlib.util is mlflow_run.importlib.util and not (tmp_path / "run").exists()

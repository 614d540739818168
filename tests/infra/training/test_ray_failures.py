"""How often a training on Ray may fail, and what Ray's own names have to be for that; without Ray."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from arco_core.config import RunConfig
from arco_core.errors import TrainingError
from infra.progress import Progress
from infra.signals import Interrupted, SignalNote
from infra.training import StageJob, StageResult, ray_train
from tests.infra.training.jobs import make_job

RESULT = StageResult(checkpoint_url="a.pt", metrics_url="", steps=4, seconds=1.0, final={})
CRASH = ray.train.WorkerGroupError("a worker died", {0: RuntimeError("it died")})
NO_PLACE = ray.train.ControllerError(WorkerGroupStartupTimeoutError(2))


class Fits:
    """What the fits of a training come to: errors, or a result; and the step that each of them commits."""

    def __init__(self, *ends: tuple[int, Exception | None]) -> None:
        self.left = list(ends)
        self.step = 0

    def watch(self, *arguments: object) -> None:
        self.step, error = self.left.pop(0)
        if error is not None:
            raise ray_train._Failed(error, "")


@pytest.fixture
def train(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Fits], StageResult]:
    class Empty:
        def __getattr__(self, name: str) -> Any:
            return self

        def remote(self) -> None:
            return None

    def run(fits: Fits, note: SignalNote | None = None) -> StageResult:
        job = make_job(tiny_dataset, tmp_path, settings=["run.max_failures=3"])
        monkeypatch.setattr(ray_train, "_Fit", lambda *arguments: fits)
        monkeypatch.setattr(ray_train, "_trainer", lambda *arguments: None)
        monkeypatch.setattr(ray_train, "_last_step", lambda job: fits.step)
        monkeypatch.setattr(ray_train, "finished", lambda job: RESULT if fits.step == job.steps else None)
        monkeypatch.setattr(ray_train, "open_mailbox", Empty)
        monkeypatch.setattr(ray_train, "worker_resources", lambda settings: {"CPU": 1, "GPU": 0})
        monkeypatch.setattr(ray, "get", lambda value: value)
        with Progress(job.title, job.steps, "steps") as progress:
            return ray_train.train_on_ray(job, progress, note or SignalNote())

    return run


def test_failures_are_counted_anew_once_a_checkpoint_was_written(
    train: Callable[[Fits], StageResult], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(Fits((1, CRASH), (3, CRASH), (4, None))) == RESULT
    assert "failed 4 times since step 1, and has come to step 3: goes on" in capsys.readouterr().out
    fits = Fits((1, CRASH), (1, CRASH), (4, None))
    with pytest.raises(
        TrainingError, match=r"run\.max_failures allows too, without a checkpoint after step 1"
    ):
        train(fits)
    assert len(fits.left) == 1


def test_to_find_no_place_is_no_failure(train: Callable[[Fits], StageResult]) -> None:
    assert train(Fits(*[(0, NO_PLACE)] * 9, (4, None))) == RESULT


def test_who_is_asked_to_end_while_waiting_for_a_place_ends(train: Callable[..., StageResult]) -> None:
    note = SignalNote()
    note.number = 15
    with pytest.raises(Interrupted, match="stopped after step 2"):
        train(Fits((2, None)), note)


@pytest.mark.parametrize(("more", "waits"), [([], "86400"), (["run.min_workers=1"], None)])
def test_a_fixed_number_of_workers_waits_and_an_elastic_one_looks_again(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], waits: str | None
) -> None:
    job: StageJob = make_job(tiny_dataset, tmp_path, settings=["run.workers=2", *more])
    monkeypatch.delenv(ray_train._WAIT_SECONDS, raising=False)
    fixed = make_job(tiny_dataset, tmp_path, settings=["run.workers=2"])
    ray_train._set_controller(fixed.settings.run)  # an earlier training in this process
    ray_train._set_controller(job.settings.run)
    assert os.environ.get(ray_train._WAIT_SECONDS) == waits


def test_ray_still_hands_these_variables_on_to_its_controller() -> None:
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    assert {ray_train._WAIT_SECONDS, ray_train._LOOK_SECONDS} <= ENV_VARS_TO_PROPAGATE


def test_ray_still_tells_workers_of_nodes_that_are_about_to_go() -> None:
    """`infra.training.ray_worker` reads this: Ray's public function waits for all workers at each call."""
    from ray.train.v2._internal.execution.context import TrainContext, get_train_context
    from ray.train.v2._internal.execution.preemption import PreemptionContext

    assert callable(get_train_context)
    assert "preemption_context" in TrainContext.__annotations__
    assert PreemptionContext().preemption_info is None
    info = ray.train.PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"node": [0]})
    assert info.preempted_node_ids == ["node"]


@pytest.mark.parametrize(("state", "told"), [("PENDING", True), ("CREATED", False)])
def test_only_workers_that_have_no_places_are_told_to_wait(
    monkeypatch: pytest.MonkeyPatch, state: str, told: bool
) -> None:
    monkeypatch.setattr(ray_train, "placement_group_table", lambda: {"a": {"state": state}})
    monkeypatch.setattr(ray_train.ray, "cluster_resources", lambda: {"CPU": 3.0})
    monkeypatch.setattr(ray_train.ray, "available_resources", lambda: {"CPU": 1.0})
    waiting = ray_train._Waiting(RunConfig(workers=2), {"CPU": 1, "GPU": 0})
    assert waiting.words(None) == waiting.words(1.0) == ""
    assert ("waiting for places of 2 workers" in waiting.words(60.0)) is told
    assert waiting.words(61.0) == ""

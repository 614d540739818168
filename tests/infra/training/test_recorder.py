"""What an attempt writes, and no longer writes once a newer one has begun."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from arco_core.errors import Diverged
from arco_core.session import Session
from infra.checkpoints import TakenOver, read_checkpoint
from infra.training import StageJob, StageResult
from infra.training.in_process import run_in_process
from infra.training.metrics_log import decode
from infra.training.recorder import Recorder, checkpoints_of
from infra.training.worker import finished
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import assert_equal_states


@pytest.fixture
def job(tiny_dataset: str, tmp_path: Path) -> StageJob:
    return make_job(tiny_dataset, tmp_path, "supervised", settings=["supervised.steps=6"])


def recorder_of(job: StageJob) -> Recorder:
    recorder = Recorder(job, lambda step, metrics: None, print)
    recorder.start(0, None, [])
    return recorder


@pytest.mark.parametrize(
    "write",
    [
        lambda recorder: recorder.start(0, None, []),
        lambda recorder: recorder.save(2, {"stage": {}}, {}),
        lambda recorder: recorder.show(Diverged(1, {"loss": float("nan")})),
        lambda recorder: recorder.finish(),
    ],
    ids=["start", "save", "show", "finish"],
)
def test_an_attempt_that_was_followed_writes_nothing(job: StageJob, tmp_path: Path, write: Any) -> None:
    old = recorder_of(job)
    new = recorder_of(job)
    new.log(1, {"loss": 1.0, "seconds": 1.0})
    new.save(1, {"stage": {}}, {})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TakenOver):
        write(old)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def computed(result: StageResult) -> dict[str, Any]:
    """The last checkpoint but for times, attempts and metrics."""
    left_out = ("attempt", "elapsed", "job", "metrics")
    return {key: v for key, v in read_checkpoint(result.checkpoint_url).items() if key not in left_out}


def test_training_goes_on_exactly_from_the_checkpoint_before_a_damaged_one(
    tiny_dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ["supervised.steps=6", "run.validate_every=0"]
    undisturbed = run_in_process(make_job(tiny_dataset, tmp_path / "a", "supervised", settings=settings))
    job = make_job(tiny_dataset, tmp_path / "b", "supervised", settings=settings)
    descend, calls = Session.descend, itertools.count(1)

    def power_fails(session: Session, loss: torch.Tensor, lr: float) -> dict[str, torch.Tensor]:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return descend(session, loss, lr)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Session, "descend", power_fails)
        run_in_process(job)
    checkpoints = checkpoints_of(job)
    assert checkpoints.steps() == [2, 4]
    newest = Path(checkpoints.url(4))
    newest.write_bytes(newest.read_bytes()[:-1] + b"!")
    capsys.readouterr()
    result = run_in_process(job)
    told = capsys.readouterr().out
    assert "warning: supervised, seed 0: checkpoint" in told and "damaged" in told
    assert "Training goes on from the checkpoint before step 4" in told
    lines = decode(Path(result.metrics_url).read_text())
    assert [(line["step"], line["damaged_checkpoint"]) for line in lines if "damaged_checkpoint" in line] == [
        (2, 4)
    ]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert_equal_states(computed(result), computed(undisturbed))
    assert not newest.exists() and checkpoints.steps() == [4, 6]


def test_the_last_checkpoint_is_not_written_twice(job: StageJob, tmp_path: Path) -> None:
    result = run_in_process(job)
    (tmp_path / job.folder / "result.json").unlink()
    again = run_in_process(job)
    assert again.checkpoint_url == result.checkpoint_url and finished(job) == again

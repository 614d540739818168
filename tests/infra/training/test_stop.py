"""Signals that announce the end: the last step is saved, and the next attempt goes on from there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from components.pretrain.__main__ import main as pretrain
from infra.training import StageJob, run_stage
from infra.training.recorder import checkpoints_of
from infra.training.worker import finished
from tests.conftest import TINY_SETTINGS
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import Death, assert_equal_states, exit_code_of, train_group

pytestmark = [pytest.mark.dist, pytest.mark.slow]

LONG = ["finetune.steps=8", "pretrain.steps=8", "run.checkpoint_every=100", "run.validate_every=0"]


def last_stage(job: StageJob) -> object:
    step, state = checkpoints_of(job).latest() or (0, {})
    assert step == job.steps
    return {key: state[key] for key in ("stage", "optimizer", "feeds")}


def test_a_notice_to_one_worker_saves_what_all_have_done(tiny_dataset: str, tmp_path: Path) -> None:
    settings = [*LONG, "run.workers=2"]
    undisturbed = make_job(tiny_dataset, tmp_path / "undisturbed", "finetune", settings=settings)
    assert train_group(undisturbed, 2) == [0, 0]
    job = make_job(tiny_dataset, tmp_path / "stopped", "finetune", settings=settings)
    assert train_group(job, 2, Death("step", 3, rank=1, signal=signal.SIGTERM)) == [1, 1]
    assert checkpoints_of(job).steps() == [4]  # votes arrive a step later
    assert train_group(job, 2) == [0, 0]
    assert_equal_states(last_stage(job), last_stage(undisturbed))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_exit_code_of_a_step_tells_the_signal(
    tiny_dataset: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    settings = [argument for setting in (*TINY_SETTINGS, *LONG) for argument in ("--set", setting)]
    arguments = ["--dataset", tiny_dataset, "--run", str(tmp_path), "--labeled", "2"]
    arguments += ["--backend", "in-process", *settings]
    assert exit_code_of(pretrain, arguments, Death("step", 3, signal=number)) == code
    job = make_job(tiny_dataset, tmp_path, settings=LONG)
    assert finished(job) is None
    assert checkpoints_of(job).steps() == [3]
    result = run_stage(job, "in-process")
    assert result.steps == 8
    assert checkpoints_of(job).steps() == [3, 8]

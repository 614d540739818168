"""Trainings whose processes are killed end in the same bits as one that nobody disturbed."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from infra.checkpoints import read_checkpoint
from infra.training import StageJob, StageName
from infra.training.metrics_log import TIMES, decode
from infra.training.worker import finished
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import (
    Death,
    assert_equal_states,
    exit_codes,
    start_training,
    train_group,
)

pytestmark = [pytest.mark.dist, pytest.mark.slow]

SETTINGS = (
    *(f"{stage}.{key}" for stage in ("pretrain", "finetune") for key in ("steps=7", "labeled_batch=3")),
    *(f"{stage}.unlabeled_batch=3" for stage in ("pretrain", "finetune")),
    "supervised.labeled_batch=3",
    "run.log_every=3",  # so that checkpoints hold metrics that were not logged yet
    "run.validate_every=5",
    "finetune.weak_threshold=0.0",  # so that banks fill and terms count from the first steps on
    "finetune.contrast.query_threshold=1.0",
    "finetune.contrast.queries=32",
    "finetune.contrast.queries_per_negative_set=8",
    "finetune.contrast.negatives=16",
)
DEATHS = (
    Death("step", 1),  # before the first checkpoint
    Death("state", 2),  # in the middle of the first
    Death("commit", 2),  # after the first, before it counts
    Death("step", 3, rank=-1),  # the last worker, between checkpoints
    Death("state", 4),
    Death("step", 4),  # between the optimiser's step and its checkpoint
    Death("commit", 7),  # nothing was left to do but to say so
)


def last_state(job: StageJob) -> dict[str, Any]:
    """The final checkpoint, without what differs between attempts and without times."""
    result = finished(job)
    assert result is not None
    state = read_checkpoint(result.checkpoint_url)
    metrics = [{key: v for key, v in line.items() if key not in TIMES} for line in decode(state["metrics"])]
    kept = {key: value for key, value in state.items() if key not in ("attempt", "elapsed", "job")}
    return {**kept, "metrics": metrics}


@pytest.mark.parametrize(
    ("stage", "world", "where", "banks"),
    [
        ("pretrain", 1, "local", "shared"),
        ("finetune", 1, "s3", "shared"),
        ("pretrain", 3, "s3", "local"),
        ("finetune", 3, "local", "shared"),
    ],
)
def test_killed_processes_leave_no_trace(
    tiny_dataset: str,
    tmp_path: Path,
    stage: StageName,
    world: int,
    where: str,
    banks: str,
    request: pytest.FixtureRequest,
) -> None:
    settings = [*SETTINGS, f"run.workers={world}", f"run.banks={banks}"]
    undisturbed = make_job(tiny_dataset, tmp_path / "undisturbed", stage, settings=settings)
    assert train_group(undisturbed, world) == [0] * world
    expected = last_state(undisturbed)
    if where == "s3":
        request.getfixturevalue("aws")
    run = f"s3://arco/{uuid.uuid4().hex}" if where == "s3" else str(tmp_path / "killed")
    job = make_job(tiny_dataset, run, stage, settings=settings)
    for death in DEATHS:
        rank = death.rank % world
        codes = train_group(job, world, Death(death.place, death.step, rank))
        assert codes[rank] == -signal.SIGKILL, death
        assert finished(job) is None
    assert train_group(job, world) == [0] * world
    found = last_state(job)
    assert [line["step"] for line in found["metrics"] if "loss" in line] == [3, 6, 7]
    assert_equal_states(found, expected)


@pytest.mark.parametrize(
    "death",
    [
        Death("step", 3, signal=signal.SIGSTOP),
        Death("state", 2, signal=signal.SIGSTOP),
        Death("commit", 2, signal=signal.SIGSTOP),
        Death("metrics", 2, signal=signal.SIGSTOP),
        Death("result", 4, signal=signal.SIGSTOP),
    ],
    ids=lambda death: death.place,
)
def test_an_attempt_that_sleeps_through_its_successor_spoils_nothing(
    tiny_dataset: str, tmp_path: Path, death: Death
) -> None:
    job = make_job(tiny_dataset, tmp_path, "supervised", settings=["supervised.steps=4"])
    sleeper = start_training(job, 1, death)
    while not is_stopped(sleeper[0].pid or 0):
        time.sleep(0.02)
    assert train_group(job, 1) == [0]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    os.kill(sleeper[0].pid or 0, signal.SIGCONT)
    assert exit_codes(sleeper) == [1]
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if death.place == "commit":  # between its last look for others and its commit, which is then its own
        own = [path for path in after if path.name == f"COMMITTED-{death.step:08d}-a1.json"]
        after = {path: data for path, data in after.items() if path not in own}
    assert after == before
    assert last_state(job)["step"] == 4


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

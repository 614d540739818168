"""Training on a Ray cluster whose workers, nodes and drivers are killed ends in an undisturbed one's bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.checkpoints import CheckpointStore
from infra.training import StageJob, StageName
from infra.training.recorder import checkpoints_of
from infra.training.worker import finished
from tests.conftest import TINY_SETTINGS
from tests.infra.ray_cluster import REPOSITORY, RayCluster, wait_until
from tests.infra.ray_hosts import RayHosts
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import assert_equal_states, train_group

pytestmark = [
    pytest.mark.dist,
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
    pytest.mark.usefixtures("aws"),
]

SETTINGS = [
    "pretrain.steps=600",
    "finetune.steps=600",
    "run.checkpoint_every=40",
    "run.log_every=20",
    "run.validate_every=0",
    "run.workers=2",
]


class Driver:
    """`python -m components.<stage>` as a user starts it, on the cluster."""

    def __init__(
        self, cluster: RayCluster | RayHosts, job: StageJob, log: Path, more: Sequence[str] = ()
    ) -> None:
        """`more` settings than `SETTINGS`, as `job` has them."""
        settings = [part for setting in (*TINY_SETTINGS, *SETTINGS, *more) for part in ("--set", setting)]
        command = [sys.executable, "-m", f"components.{job.stage}", "--dataset", job.dataset_url]
        command += ["--run", job.run_url, "--labeled", "2", *settings]
        if job.init_checkpoint:
            command += ["--init", job.init_checkpoint]
        self._log = log
        if isinstance(cluster, RayHosts):
            command = cluster.command(0, command)
        with log.open("a") as out:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=dict(cluster.environment), stdout=out, stderr=out
            )
        self._checkpoints = checkpoints_of(job)

    def wait_for_step(self, step: int) -> None:
        """Wait until a checkpoint of `step` or a later one is committed, and training goes on."""
        wait_until(
            lambda: self.process.poll() is not None or max(self._checkpoints.steps(), default=0) >= step
        )
        assert self.process.poll() is None, self._log.read_text()

    def wait(self) -> None:
        """Wait for success."""
        assert self.process.wait(300) == 0, self._log.read_text()


def last_state(job: StageJob) -> dict[str, object]:
    assert finished(job) is not None
    checkpoints: CheckpointStore = checkpoints_of(job)
    step, state = checkpoints.latest() or (0, {})
    assert step == job.steps
    return {key: state[key] for key in ("stage", "optimizer", "scaler", "feeds", "step")}


def undisturbed(job: StageJob) -> dict[str, object]:
    """What the same workers compute elsewhere, without Ray."""
    assert train_group(job, 2) == [0, 0]
    return last_state(job)


def test_a_worker_and_the_driver_are_killed(cluster: RayCluster, tiny_dataset: str, tmp_path: Path) -> None:
    stage: StageName = "pretrain"
    expected = undisturbed(make_job(tiny_dataset, tmp_path / "undisturbed", stage, settings=SETTINGS))
    job = make_job(tiny_dataset, tmp_path / "killed", stage, settings=SETTINGS)
    driver = Driver(cluster, job, tmp_path / "log")
    driver.wait_for_step(40)
    worker = min(cluster.training_workers())
    os.kill(worker, signal.SIGKILL)
    driver.wait_for_step(240)
    assert worker not in cluster.training_workers()
    driver.process.kill()
    driver.process.wait()
    Driver(cluster, job, tmp_path / "log").wait()
    assert_equal_states(last_state(job), expected)
    _, state = checkpoints_of(job).latest() or (0, {})
    assert state["attempt"] >= 3


def test_a_node_is_killed(cluster: RayCluster, tiny_dataset: str, tmp_path: Path) -> None:
    """Checkpoints in S3; the second stage, from a first one."""
    first = make_job(tiny_dataset, tmp_path, "pretrain")
    assert train_group(first, 1) == [0]
    result = finished(first)
    assert result is not None
    init = result.checkpoint_url
    local = make_job(tiny_dataset, tmp_path, "finetune", settings=SETTINGS, init=init)
    expected = undisturbed(local)
    job = make_job(tiny_dataset, f"s3://arco/{uuid.uuid4().hex}", "finetune", settings=SETTINGS, init=init)
    driver = Driver(cluster, job, tmp_path / "log")
    driver.wait_for_step(40)
    nodes = cluster.training_workers()
    assert len(set(nodes.values())) == 2
    os.kill(max(nodes.values()), signal.SIGKILL)  # the raylet, and so its workers
    driver.wait()
    cluster.add_node()
    assert_equal_states(last_state(job), expected)

"""On a cluster, nodes come and go, workers are told to end, and trainings wait for each other."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from infra.training import StageJob
from infra.training.recorder import checkpoints_of
from tests.infra.ray_cluster import RayCluster, start_cluster, wait_until
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import assert_equal_states
from tests.infra.training.test_cluster_resume import SETTINGS, Driver, last_state, undisturbed

pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[RayCluster]:
    """A cluster with two CPUs, each on a node of its own."""
    with start_cluster({}, nodes=2) as cluster:
        yield cluster


def job_with(dataset: str, run: Path, more: Sequence[str]) -> StageJob:
    return make_job(dataset, run, "pretrain", settings=[*SETTINGS, *more])


def test_two_trainings_wait_for_each_other(two_nodes: RayCluster, tiny_dataset: str, tmp_path: Path) -> None:
    jobs = [job_with(tiny_dataset, tmp_path / name, []) for name in ("a", "b")]
    drivers = [Driver(two_nodes, job, tmp_path / f"log{n}") for n, job in enumerate(jobs)]
    for driver in drivers:
        driver.wait()
    assert_equal_states(last_state(jobs[0]), last_state(jobs[1]))


def test_a_worker_that_is_told_to_end_saves_and_others_take_over(
    two_nodes: RayCluster, tiny_dataset: str, tmp_path: Path
) -> None:
    more, log = ["run.checkpoint_every=400"], tmp_path / "log"
    expected = undisturbed(job_with(tiny_dataset, tmp_path / "undisturbed", more))
    job = job_with(tiny_dataset, tmp_path / "told", more)
    driver = Driver(two_nodes, job, log, more)
    wait_until(
        lambda: driver.process.poll() is not None or re.search(r" [1-9]\d*/600 steps", log.read_text())
    )
    os.kill(max(two_nodes.training_workers()), signal.SIGTERM)
    driver.wait()
    told = re.search(r"workers were told to end after step (\d+); others start", log.read_text())
    assert told is not None and 0 < int(told[1]) < 400, log.read_text()
    assert_equal_states(last_state(job), expected)
    _, state = checkpoints_of(job).latest() or (0, {})
    assert state["attempt"] == 2


def test_with_fewer_nodes_and_with_more(two_nodes: RayCluster, tiny_dataset: str, tmp_path: Path) -> None:
    """The last of this file: it kills a node."""
    more = ["run.min_workers=1", "pretrain.steps=1000000"]
    job = job_with(tiny_dataset, tmp_path, more)
    checkpoints = checkpoints_of(job)

    def workers() -> int:
        _, state = checkpoints.latest(lambda step, reason: None) or (0, {"feeds": []})
        return len(state["feeds"])

    driver = Driver(two_nodes, job, tmp_path / "log", more)
    wait_until(lambda: workers() == 2)
    os.kill(max(two_nodes.training_workers().values()), signal.SIGKILL)  # a raylet, and so its worker
    wait_until(lambda: workers() == 1)
    two_nodes.add_node()
    wait_until(lambda: workers() == 2)
    driver.process.send_signal(signal.SIGTERM)
    assert driver.process.wait(120) == 128 + signal.SIGTERM

"""A cut network ends in recovery: other hosts take over, and end in an undisturbed training's bits."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from infra.training.recorder import checkpoints_of
from tests.infra.ray_hosts import start_hosts, why_not
from tests.infra.training.jobs import make_job
from tests.infra.training.processes import assert_equal_states
from tests.infra.training.test_cluster_resume import SETTINGS, Driver, last_state, undisturbed

pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]

RECOVERY_SECONDS = 240.0
"""No measurement: gloo, left alone, waits for a silent peer for half an hour."""


def test_a_host_is_cut_off(tiny_dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := why_not():
        pytest.skip(f"no network namespaces here: {reason}")
    expected = undisturbed(make_job(tiny_dataset, tmp_path / "undisturbed", "pretrain", settings=SETTINGS))
    job = make_job(tiny_dataset, tmp_path / "cut", "pretrain", settings=SETTINGS)
    checkpoints = checkpoints_of(job)
    with start_hosts(4) as hosts:
        driver = Driver(hosts, job, tmp_path / "log")
        driver.wait_for_step(40)
        cut_off = max(hosts.training_hosts())
        hosts.cut(cut_off)
        start, last = time.monotonic(), max(checkpoints.steps())
        time.sleep(1)  # a checkpoint that was under way when the cable was cut
        driver.wait_for_step(max(last, *checkpoints.steps()) + 1)
        seconds = time.monotonic() - start
        with capsys.disabled():
            print(f"recovered after {seconds:.0f} s")
        assert seconds < RECOVERY_SECONDS
        assert len(hosts.training_hosts() - {cut_off}) == 2
        driver.wait()
    assert_equal_states(last_state(job), expected)
    _, state = checkpoints.latest() or (0, {})
    assert state["attempt"] >= 2

"""Faults at every request: the job runs once, ends as it would have, and nothing stays behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from infra.kuberay import RayJobCancelled, RayJobFailed, RayJobSpec
from tests.infra.kuberay.api_server import ApiServer
from tests.infra.kuberay.faults import LOST, PASSING, Fault
from tests.infra.kuberay.operator import JobHandle, Operator, succeed
from tests.infra.kuberay.runner import Runner

pytestmark = pytest.mark.k8s

_MOST_CALLS = 60

Check = Callable[[Runner, RayJobSpec], None]


def fail(job: JobHandle) -> None:
    job.begin()
    job.log("no scans")
    job.end("Failed", "FAILED", "AppFailed", "exit code 1")


def be_cancelled(job: JobHandle) -> None:
    job.begin()
    os.kill(os.getpid(), signal.SIGTERM)


def succeeds(run: Runner, spec: RayJobSpec) -> None:
    assert run(spec, restarts=0).attempt == 1
    assert run.driver_log == ["step 1 of 2", "step 2 of 2"]


def fails(run: Runner, spec: RayJobSpec) -> None:
    with pytest.raises(RayJobFailed, match="AppFailed: exit code 1\nlast lines of its log:\nno scans"):
        run(spec, restarts=0)


def is_cancelled(run: Runner, spec: RayJobSpec) -> None:
    with pytest.raises(RayJobCancelled):
        run(spec, restarts=0)


SCENARIOS = [
    *(pytest.param(fault, succeed, succeeds, id=f"success, {name}") for name, fault in PASSING.items()),
    *(pytest.param(PASSING[name], fail, fails, id=f"failure, {name}") for name in ("503", LOST)),
    *(
        pytest.param(PASSING[name], be_cancelled, is_cancelled, id=f"cancelled, {name}")
        for name in ("503", LOST)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "script", "check"), SCENARIOS)
def test_a_fault_at_any_request_changes_nothing(
    spec: RayJobSpec,
    fault: Fault,
    script: Callable[[JobHandle], None],
    check: Check,
    subtests: pytest.Subtests,
) -> None:
    """Which request comes when depends on threads, so runs go on until one has no such request any more."""
    for index in range(_MOST_CALLS):
        with ApiServer() as server:
            server.faults[index] = fault
            operator = Operator(server, script)
            run = Runner(server)
            with subtests.test(request=index):
                check(run, spec)
                assert len(server.rayjobs.created) == 1
                operator.wait_until_idle()
                assert server.rayjobs.names() == [] and server.pods.names() == []
                assert not operator.errors
            if len(server.calls) <= index:
                return
    pytest.fail(f"more than {_MOST_CALLS} requests for one job")

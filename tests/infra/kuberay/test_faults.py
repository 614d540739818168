"""Faults at every request: the job runs once, ends as it would have, and nothing stays behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from infra.kuberay import RayJobCancelled, RayJobFailed, RayJobSpec, delete_run_jobs
from infra.kuberay.manifest import ray_job
from tests.infra.kuberay.api_server import NAMESPACE, PIPELINE, ApiServer
from tests.infra.kuberay.client import QUICK, client_of
from tests.infra.kuberay.faults import LOST, PASSING, Fault
from tests.infra.kuberay.operator import JobHandle, Operator, Script, succeed
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


def lose_the_head(job: JobHandle) -> None:
    job.begin()
    job.wait_for("get pods", 2)
    job.server.pods.delete(job.head)


def is_made_again(run: Runner, spec: RayJobSpec) -> None:
    assert run(spec).attempt == 2


def is_adopted(run: Runner, spec: RayJobSpec) -> None:
    assert run(spec, restarts=0).attempt == 7
    assert next(run.attempts) == 1, "no attempt was claimed"


@dataclass(frozen=True)
class Scenario:
    """What happens to a job without faults, and so with them."""

    scripts: tuple[Script, ...]
    check: Check
    created: int = 1
    attempt_before: int | None = None
    """Of a job that is there already."""


SUCCESS = Scenario((succeed,), succeeds)
OTHERS = {
    "failure": Scenario((fail,), fails),
    "cancelled": Scenario((be_cancelled,), is_cancelled),
    "adopted": Scenario((succeed,), is_adopted, attempt_before=7),
    "head lost": Scenario((lose_the_head, succeed), is_made_again, created=2),
}
SCENARIOS = [
    *(pytest.param(fault, SUCCESS, id=f"success, {name}") for name, fault in PASSING.items()),
    *(
        pytest.param(PASSING[name], scenario, id=f"{what}, {name}")
        for what, scenario in OTHERS.items()
        for name in ("503", LOST)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "scenario"), SCENARIOS)
def test_a_fault_at_any_request_changes_nothing(
    spec: RayJobSpec, fault: Fault, scenario: Scenario, subtests: pytest.Subtests
) -> None:
    """Which request comes when depends on threads, so runs go on until one has no such request any more."""
    for index in range(_MOST_CALLS):
        with ApiServer() as server:
            server.faults[index] = fault
            operator = Operator(server, *scenario.scripts)
            if scenario.attempt_before is not None:
                server.rayjobs.create(ray_job(spec, scenario.attempt_before))
            run = Runner(server)
            with subtests.test(request=index):
                scenario.check(run, spec)
                assert len(server.rayjobs.created) == scenario.created
                operator.wait_until_idle()
                assert server.rayjobs.names() == [] and server.pods.names() == []
                assert not operator.errors
            if len(server.calls) <= index:
                return
    pytest.fail(f"more than {_MOST_CALLS} requests for one job")


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_at_any_request_leaves_no_job_of_the_run(
    spec: RayJobSpec, name: str, subtests: pytest.Subtests
) -> None:
    for index in range(_MOST_CALLS):
        with ApiServer() as server:
            for step in ("pretrain", "finetune"):
                server.rayjobs.create(ray_job(replace(spec, step=step), 1))
            server.rayjobs.create(ray_job(replace(spec, run_id="another"), 1))
            server.faults[index] = PASSING[name]
            with subtests.test(request=index):
                api = client_of(server, PIPELINE)
                removed = delete_run_jobs(spec.run_id, namespace=NAMESPACE, api=api, timing=QUICK)
                assert len(removed) == 2 and len(server.rayjobs.names()) == 1
            if len(server.calls) <= index:
                return
    pytest.fail(f"more than {_MOST_CALLS} requests for two jobs")

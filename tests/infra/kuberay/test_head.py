"""A Ray head that dies while KubeRay leaves the job Running."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra.kuberay import RayClusterLost, RayJobFailed, RayJobSpec
from tests.infra.kuberay.api_server import ApiServer
from tests.infra.kuberay.conftest import StartOperator
from tests.infra.kuberay.operator import JobHandle, succeed
from tests.infra.kuberay.runner import Runner

pytestmark = pytest.mark.k8s

Harm = Callable[[JobHandle], None]


def vanish(job: JobHandle) -> None:
    job.server.pods.delete(job.head)


def be_evicted(job: JobHandle) -> None:
    job.server.pods.change(job.head, lambda pod: pod["metadata"].update(finalizers=["node"]))
    job.server.pods.delete(job.head)


def run_out_of_memory(job: JobHandle) -> None:
    job.head_status("Failed", restarts=0)


def restart(job: JobHandle) -> None:
    job.head_status("Running", restarts=1)


def be_replaced(job: JobHandle) -> None:
    job.server.pods.delete(job.head)
    job.start_head()


def be_replaced_under_another_name(job: JobHandle) -> None:
    job.server.pods.delete(job.head)
    job.head += "-2"
    job.start_head()
    job.running()


def not_answer(job: JobHandle) -> None:
    job.running(jobStatusCheckFailureStartTime="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("harm", "sign"),
    [
        (vanish, "is gone"),
        (be_evicted, "is being deleted"),
        (run_out_of_memory, "has ended: Failed"),
        (restart, "has restarted"),
        (be_replaced, "was replaced"),
        (be_replaced_under_another_name, "is gone"),
        (not_answer, "KubeRay could not ask Ray"),
    ],
)
def test_a_job_whose_head_is_lost_is_made_again(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, harm: Harm, sign: str
) -> None:
    def lose_the_head(job: JobHandle) -> None:
        job.begin()
        job.wait_for("get pods", 2)
        harm(job)

    operator(lose_the_head, succeed)
    assert run(spec).attempt == 2
    (line,) = (line for line in run.shown if "starting again" in line)
    assert sign in line
    environment = [
        {one["name"]: one.get("value") for one in group["template"]["spec"]["containers"][0]["env"]}
        for job in server.rayjobs.created
        for group in (
            job["spec"]["rayClusterSpec"]["headGroupSpec"],
            *job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
        )
    ]
    assert [one["ARCO_ATTEMPT"] for one in environment] == ["1", "1", "2", "2"]


def test_a_head_that_is_lost_for_good_is_an_error(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def lose_the_head(job: JobHandle) -> None:
        job.begin()
        job.wait_for("get pods")
        vanish(job)

    operator(lose_the_head)
    with pytest.raises(RayClusterLost, match=r"head pod .* is gone, and KubeRay has left the job Running"):
        run(spec, restarts=0)
    assert server.rayjobs.names() == []


def test_what_kuberay_says_in_time_is_the_reason(
    operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def fail(job: JobHandle) -> None:
        job.begin()
        job.wait_for("get pods")
        job.remove_pods()
        job.end("Failed", "FAILED", "AppFailed", "exit code 137")

    operator(fail)
    with pytest.raises(RayJobFailed, match="AppFailed: exit code 137"):
        run(spec)


def test_a_head_that_cannot_be_looked_at_is_not_lost(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    from tests.infra.kuberay.faults import refused

    def script(job: JobHandle) -> None:
        job.begin()
        job.wait_for("get pods", 12)
        job.end("Complete", "SUCCEEDED")

    for number in range(1, 10):
        server.fault_of["get pods", number] = refused(503, "ServiceUnavailable")
    operator(script)
    assert run(spec).attempt == 1

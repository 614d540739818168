"""What becomes of a job that runs, waits or fails, with nothing wrong in between."""

from __future__ import annotations

import threading

import pytest

from infra.kuberay import (
    Deadlines,
    RayClusterLost,
    RayJobDeleted,
    RayJobFailed,
    RayJobSpec,
    RayJobTimeout,
)
from infra.kuberay.manifest import job_name
from tests.infra.kuberay.api_server import ApiServer
from tests.infra.kuberay.conftest import StartOperator, with_cluster
from tests.infra.kuberay.operator import JobHandle, Script, succeed
from tests.infra.kuberay.runner import Runner

pytestmark = pytest.mark.k8s


def nothing_is_left(server: ApiServer) -> bool:
    return server.rayjobs.names() == [] and server.pods.names() == []


def fail(reason: str, driver: str, message: str, deployment: str = "Failed") -> Script:
    def script(job: JobHandle) -> None:
        job.begin()
        job.log("reading scans", "ValueError: no scans")
        job.end(deployment, driver, reason, message)

    return script


def test_a_job_runs_is_followed_and_removed(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def watched(job: JobHandle) -> None:
        job.wait_for("watch")
        succeed(job)

    operator(watched)
    outcome = run(spec)
    assert (outcome.name, outcome.attempt) == (job_name(spec), 1)
    assert len(server.rayjobs.created) == 1
    assert nothing_is_left(server)
    assert run.driver_log == ["step 1 of 2", "step 2 of 2"]
    assert "submitted, attempt 1" in run.shown[0]
    assert any("Initializing" in line for line in run.shown)
    assert "Complete, driver succeeded" in "\n".join(run.shown)


@pytest.mark.parametrize(
    ("deployment", "driver", "reason", "message"),
    [
        ("Failed", "FAILED", "AppFailed", "Job entrypoint command failed with exit code 1"),
        ("Complete", "FAILED", "", "Job entrypoint command failed with exit code 1"),
        ("Complete", "STOPPED", "", "Job was intentionally stopped."),
        ("ValidationFailed", "", "ValidationFailed", "RayJob name should be no more than 47 characters"),
    ],
)
def test_a_failed_program_is_an_error_with_its_reason_and_is_not_started_again(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, deployment: str, driver: str,
    reason: str, message: str,
) -> None:  # fmt: skip
    operator(fail(reason, driver, message, deployment))
    with pytest.raises(RayJobFailed) as error:
        run(spec, restarts=3)
    assert message in str(error.value) and (reason or driver) in str(error.value)
    assert str(error.value).endswith("last lines of its log:\nreading scans\nValueError: no scans")
    assert len(server.rayjobs.created) == 1
    assert nothing_is_left(server)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("SubmissionFailed", "container ray-job-submitter terminated with exit code 1: Error"),
        ("AppFailed", "Ray head pod not found."),
        ("JobStatusCheckTimeoutExceeded", "Job status checks have been failing"),
    ],
)
def test_a_failed_cluster_is_replaced_by_a_new_attempt(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, reason: str, message: str
) -> None:
    operator(fail(reason, "RUNNING", message), succeed)
    assert run(spec).attempt == 2
    attempts = [job["metadata"]["annotations"]["arco/attempt"] for job in server.rayjobs.created]
    assert attempts == ["1", "2"]
    assert f"{message}; starting again on a new cluster, 0 more tries" in "\n".join(run.shown)
    assert nothing_is_left(server)


def test_clusters_that_keep_failing_are_an_error(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    operator(fail("SubmissionFailed", "RUNNING", "no route to host"))
    with pytest.raises(RayClusterLost, match="SubmissionFailed: no route to host"):
        run(spec, restarts=2)
    assert len(server.rayjobs.created) == 3
    assert nothing_is_left(server)


@pytest.mark.parametrize("reason", ["DeadlineExceeded", "PreRunningDeadlineExceeded"])
def test_a_deadline_that_kuberay_keeps_is_a_timeout(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, reason: str
) -> None:
    def too_late(job: JobHandle) -> None:
        condition = {
            "type": "HeadPodReady", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            "lastTransitionTime": "2026-11-01T10:00:00Z",
        }  # fmt: skip
        job.status("Failed", reason=reason, message="too late", rayClusterStatus={"conditions": [condition]})

    operator(too_late)
    with pytest.raises(RayJobTimeout, match=rf"{reason}: too late .*3 Insufficient nvidia.com/gpu"):
        run(spec, restarts=3)
    assert len(server.rayjobs.created) == 1
    assert nothing_is_left(server)


def admitted(job: JobHandle, evicted: bool = False) -> None:
    """What Kueue does with a job: it lifts `suspend`."""
    assert job.job["spec"]["suspend"]
    job.status("Initializing")
    job.status("Suspending")
    job.status("Suspended")
    if evicted:
        job.begin()
        job.log("lost step")
        job.status("Suspending", "RUNNING")
        job.remove_pods()
        job.new_cluster()
        job.status("Suspended")
    job.server.rayjobs.change(job.name, lambda one: one["spec"].update(suspend=False))
    succeed(job)


def test_a_job_waits_in_its_queue(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    operator(admitted)
    run(with_cluster(spec, queue="research"))
    assert server.rayjobs.created[0]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert "Suspended" in "\n".join(run.shown)
    assert run.driver_log == ["step 1 of 2", "step 2 of 2"]


def test_a_job_that_kueue_evicts_is_followed_on_its_next_cluster(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    operator(lambda job: admitted(job, evicted=True))
    run(with_cluster(spec, queue="research"), restarts=0)
    assert run.driver_log[-2:] == ["step 1 of 2", "step 2 of 2"]
    assert len(server.rayjobs.created) == 1
    assert nothing_is_left(server)


@pytest.mark.parametrize(
    ("status", "deadlines", "text"),
    [
        ("Suspended", Deadlines(queue=1, start=60, active=60), "waiting for 1 s, more than 1 s"),
        ("Initializing", Deadlines(queue=60, start=1, active=60), "starting for 1 s, more than 1 s"),
        ("Running", Deadlines(queue=60, start=1, active=1), "active for 1 s, more than 1 s"),
    ],
)
def test_deadlines_are_kept_when_nobody_else_keeps_them(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, status: str,
    deadlines: Deadlines, text: str,
) -> None:  # fmt: skip
    operator(lambda job: job.status(status))
    with pytest.raises(RayJobTimeout, match=text):
        run(with_cluster(spec, deadlines=deadlines))
    assert nothing_is_left(server)


@pytest.mark.parametrize(("driver", "error"), [("SUCCEEDED", None), ("FAILED", RayJobFailed)])
def test_a_driver_that_has_ended_counts_though_kuberay_never_says_so(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, driver: str,
    error: type[Exception] | None,
) -> None:  # fmt: skip
    def stuck(job: JobHandle) -> None:
        job.begin()
        server.logs.end(job.head)
        job.running(driver, message="exit code 1")

    operator(stuck)
    if error:
        with pytest.raises(error, match="the driver has failed: exit code 1"):
            run(spec)
    else:
        run(spec)
    assert nothing_is_left(server)


def test_a_job_that_somebody_deletes_is_an_error_that_says_so(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def deleted(job: JobHandle) -> None:
        job.begin()
        server.rayjobs.delete(job.name)

    operator(deleted)
    with pytest.raises(RayJobDeleted, match="deleted by somebody else while it was: Running, driver running"):
        run(spec, restarts=3)
    assert len(server.rayjobs.created) == 1


def test_a_job_that_somebody_replaces_is_left_to_them(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    replaced = threading.Event()

    def by_another(job: JobHandle) -> None:
        if replaced.is_set():
            return
        replaced.set()
        job.begin()
        old = job.job
        server.rayjobs.change(job.name, lambda one: one["metadata"].update(finalizers=[]))
        server.rayjobs.delete(job.name)
        server.rayjobs.create({**old, "metadata": {**old["metadata"], "finalizers": []}})

    operator(by_another)
    with pytest.raises(RayJobDeleted):
        run(spec)
    assert server.rayjobs.names() == [job_name(spec)]

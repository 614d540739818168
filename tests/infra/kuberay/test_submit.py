"""A job is made once, found again by whoever asks for the same, and removed by whoever followed it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from infra.kuberay import (
    RayJobCancelled,
    RayJobConflict,
    RayJobDeleted,
    RayJobFailed,
    RayJobSpec,
    RayJobTimeout,
    delete_run_jobs,
)
from infra.kuberay.manifest import DIGEST_ANNOTATION, job_name, ray_job
from tests.infra.kuberay.api_server import ADMIN, NAMESPACE, PIPELINE, ApiServer
from tests.infra.kuberay.client import QUICK, client_of
from tests.infra.kuberay.conftest import StartOperator
from tests.infra.kuberay.faults import Fault, refused
from tests.infra.kuberay.operator import JobHandle, Operator, succeed
from tests.infra.kuberay.runner import Runner

pytestmark = pytest.mark.k8s


def begin_only(job: JobHandle) -> None:
    job.begin()


def made_before(server: ApiServer, spec: RayJobSpec, attempt: int = 7) -> None:
    """A job that a submitter left which is no more."""
    server.rayjobs.create(ray_job(spec, attempt))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_job_that_runs_already_is_adopted(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    operator(succeed)
    made_before(server, spec)
    assert run(spec).attempt == 7
    assert len(server.rayjobs.created) == 1
    assert next(run.attempts) == 1, "no attempt was claimed"
    assert server.rayjobs.names() == []


def test_a_job_that_ended_well_counts(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    operator(succeed)
    made_before(server, spec)
    wait_until(lambda: server.rayjobs.get(job_name(spec)).get("status", {}).get("jobStatus") == "SUCCEEDED")
    assert run(spec).attempt == 7
    assert server.rayjobs.names() == []


def test_a_job_that_failed_before_is_replaced(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def fail(job: JobHandle) -> None:
        job.status("Failed", "FAILED", reason="AppFailed")

    operator(fail, succeed)
    made_before(server, spec)
    wait_until(lambda: server.rayjobs.get(job_name(spec)).get("status", {}).get("jobStatus") == "FAILED")
    assert run(spec).attempt == 1
    assert len(server.rayjobs.created) == 2


def test_a_job_of_another_spec_is_neither_adopted_nor_removed(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    operator(begin_only)
    other = ray_job(spec, 1)
    other["metadata"]["annotations"][DIGEST_ANNOTATION] = "0" * 64
    server.rayjobs.create(other)
    with pytest.raises(RayJobConflict, match=f"another one has this name .* is {'0' * 64}"):
        run(spec)
    assert server.rayjobs.names() == [job_name(spec)]


def test_several_submitters_of_the_same_make_one_job(
    server: ApiServer, operator: StartOperator, spec: RayJobSpec
) -> None:
    def slowly(job: JobHandle) -> None:
        job.wait_for("watch", 4)
        succeed(job)

    operator(slowly)
    runs = [Runner(server).start(spec) for _ in range(4)]
    errors = [future.exception(timeout=30) for future in runs]
    assert len(server.rayjobs.created) == 1
    assert server.rayjobs.names() == []
    assert errors.count(None) >= 1
    # The first to finish removes the job; one that has not seen its end by then cannot know how it was.
    assert all(error is None or isinstance(error, RayJobDeleted) for error in errors)


def test_different_specs_have_jobs_of_their_own(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    operator(succeed)
    first, second = run(spec), run(replace(spec, command=(*spec.command, "--seed", "1")))
    assert first.name != second.name


def test_an_operator_that_is_down_delays_neither_success_nor_hides_what_is_left(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    operator(succeed).removes = False
    timing = replace(QUICK, removal=0.1)
    run(spec, timing=timing)
    assert "still there after 0 s: is the KubeRay operator running?" in run.shown[-1]
    assert server.rayjobs.get(job_name(spec))["metadata"]["deletionTimestamp"]
    with pytest.raises(RayJobTimeout, match="deleted, but still there"):
        run(spec, timing=timing)
    assert len(server.rayjobs.created) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["before the head", "while it runs", "while the server is down"])
def test_a_signal_cancels_the_job(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, number: int, phase: str
) -> None:
    def cancel(job: JobHandle) -> None:
        job.wait_for("watch")
        if phase != "before the head":
            job.begin()
        if phase == "while the server is down":
            server.down.set()
        os.kill(os.getpid(), number)
        time.sleep(0.1)
        server.down.clear()

    before = signal.getsignal(number)
    started = operator(cancel)
    with pytest.raises(RayJobCancelled):
        run(spec, restarts=3)
    started.wait_until_idle()
    assert server.rayjobs.names() == [] and server.pods.names() == []
    assert len(server.rayjobs.created) == 1
    assert signal.getsignal(number) is before


def test_a_signal_while_a_request_to_create_is_on_its_way(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    """The answer is lost, the request takes effect after the submitter has looked for the job in vain."""
    server.faults[1] = Fault(delay=0.5, signal=signal.SIGTERM)
    started = operator(begin_only)
    with pytest.raises(RayJobCancelled):
        run(spec, timing=replace(QUICK, request=0.2, late=0.8))
    assert len(server.rayjobs.created) == 1
    started.wait_until_idle()
    assert server.rayjobs.names() == []


def test_a_signal_before_anything_was_submitted(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    server.faults[0] = Fault(reset="before", signal=signal.SIGTERM)
    operator(begin_only)
    with pytest.raises(RayJobCancelled):
        run(spec)
    assert server.rayjobs.created == []


@pytest.mark.slow
def test_a_pod_that_is_terminated_removes_its_job(server: ApiServer, tmp_path: Path) -> None:
    """The same in a process of its own, as Kubernetes ends one."""
    operator = Operator(server, begin_only)
    script = tmp_path / "submitter.py"
    script.write_text(
        "from infra.kuberay import RayJobSpec, run_ray_job\n"
        "from tests.infra.kuberay.api_server import NAMESPACE\n"
        "from tests.infra.kuberay.client import QUICK, address_client\n"
        "spec = RayJobSpec(run_id='run-1', step='pretrain', command=('/bin/true',), image='arco:1')\n"
        f"run_ray_job(spec, namespace=NAMESPACE, claim_attempt=lambda: 1, timing=QUICK,\n"
        f"            api=address_client({server.url!r}, {PIPELINE!r}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: any(call.verb == "watch" for call in server.calls))
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "RayJobCancelled" in output
    operator.wait_until_idle()
    assert len(server.rayjobs.created) == 1 and server.rayjobs.names() == []


def test_the_exit_handler_removes_the_jobs_of_its_run_only(server: ApiServer, spec: RayJobSpec) -> None:
    for one in (spec, replace(spec, step="pretrain"), replace(spec, run_id="run-2")):
        made_before(server, one)
    server.faults[0] = refused(503, "ServiceUnavailable")
    removed = delete_run_jobs("run-1", namespace=NAMESPACE, api=client_of(server, PIPELINE))
    assert removed == sorted([job_name(spec), job_name(replace(spec, step="pretrain"))])
    assert server.rayjobs.names() == [job_name(replace(spec, run_id="run-2"))]


def test_a_name_that_is_taken_while_submitting(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    """Another submitter is faster between the look and the request to create."""
    operator(succeed)
    server.before[1] = lambda: made_before(server, spec)
    assert run(spec).attempt == 7
    assert len(server.rayjobs.created) == 1


def test_a_failed_program_removes_its_job_though_another_client_did_before(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def fail(job: JobHandle) -> None:
        job.status("Failed", "FAILED", reason="AppFailed", message="exit code 1")
        job.server.rayjobs.delete(job.name)

    operator(fail)
    with pytest.raises((RayJobFailed, RayJobDeleted)):
        run(spec)
    assert server.rayjobs.names() == []


def test_an_admin_may_do_what_the_pipeline_may_not(server: ApiServer, spec: RayJobSpec) -> None:
    made_before(server, spec)
    path = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs/{job_name(spec)}"
    for token, status in ((ADMIN, 200), (PIPELINE, 403), ("another", 401)):
        response = client_of(server, token).rest_client.pool_manager.request(
            "PATCH",
            server.url + path,
            headers={"Authorization": f"Bearer {token}"},
            body=b'{"spec": {"suspend": true}}',
        )
        assert response.status == status
    assert server.rayjobs.get(job_name(spec))["spec"]["suspend"] is True

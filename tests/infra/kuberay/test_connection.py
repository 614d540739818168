"""A connection that fails in the ways connections to API servers do."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from infra.kuberay import KubernetesError, KubernetesUnavailable, RayJobSpec
from tests.infra.kuberay.api_server import ApiServer
from tests.infra.kuberay.client import QUICK
from tests.infra.kuberay.conftest import StartOperator
from tests.infra.kuberay.faults import Fault, refused
from tests.infra.kuberay.objects import Refusal
from tests.infra.kuberay.operator import JobHandle, succeed
from tests.infra.kuberay.runner import Runner

pytestmark = pytest.mark.k8s


def test_the_server_is_left_alone_for_as_long_as_it_asks(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    server.faults[1] = refused(429, "TooManyRequests", retry_after="1")
    operator(succeed)
    start = time.monotonic()
    run(spec)
    assert [call.verb for call in server.calls[:3]] == ["get", "create", "create"]
    assert server.call_times[2] - server.call_times[1] >= 1.0
    assert server.call_times[1] - start < 1.0


def test_a_server_that_is_down_for_a_while_delays_the_job_only(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def outage(job: JobHandle) -> None:
        job.begin()
        job.log("before")
        job.wait_for("watch")
        server.down.set()
        job.log("meanwhile")
        time.sleep(0.3)
        job.running("SUCCEEDED")
        server.down.clear()
        job.log("after")
        job.end("Complete", "SUCCEEDED")

    operator(outage)
    run(spec)
    assert run.driver_log == ["before", "meanwhile", "after"]
    assert len(server.rayjobs.created) == 1


def test_a_server_that_stays_away_is_an_error_at_last(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def outage(job: JobHandle) -> None:
        job.begin()
        job.wait_for("watch")
        server.down.set()

    operator(outage)
    timing = replace(QUICK, patience=0.3, patience_at_end=0.3)
    with pytest.raises(KubernetesUnavailable, match=r"GET .*rayjobs/finetune-.*: no answer.*gave up after"):
        run(spec, timing=timing)
    assert "could not see the job removed" in run.shown[-1]


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (
            Refusal(403, "Forbidden", "exceeded quota: arco"),
            "403 exceeded quota: arco; see the roles in k8s/",
        ),
        (Refusal(422, "Invalid", "spec.entrypoint: Required"), "422 spec.entrypoint: Required"),
        (Refusal(400, "BadRequest", "unknown field"), "400 unknown field"),
        (Refusal(401, "Unauthorized", "Unauthorized"), "401 Unauthorized"),
    ],
)
def test_a_request_that_is_refused_is_not_repeated(
    server: ApiServer, run: Runner, spec: RayJobSpec, refusal: Refusal, text: str
) -> None:
    server.faults[1] = Fault(refusal=refusal)
    with pytest.raises(KubernetesError, match=text):
        run(spec, restarts=3)
    assert [call.verb for call in server.calls].count("create") == 1


def test_a_conflict_that_is_no_taken_name_is_tried_again(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    server.faults[1] = refused(409, "Conflict")  # the quota's usage was being written
    operator(succeed)
    assert run(spec).attempt == 1


def test_an_answer_that_never_comes_is_given_up(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    server.faults[0] = Fault(delay=2.0)
    operator(succeed)
    run(spec, timing=replace(QUICK, request=0.3))
    assert len(server.rayjobs.created) == 1


def test_a_watch_goes_on_from_its_last_event(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    def script(job: JobHandle) -> None:
        job.wait_for("watch")
        for _ in range(5):
            job.status("Initializing")
        job.wait_for("watch", 2)
        succeed(job)

    server.fault_of["watch", 0] = Fault(cut_after=9000)  # after the first event
    operator(script)
    run(spec)
    first, second = [int(call.query["resourceVersion"]) for call in server.calls if call.verb == "watch"][:2]
    assert second > first
    verbs = [call.verb for call in server.calls if call.resource == "rayjobs"]
    assert verbs[:5] == ["get", "create", "get", "watch", "watch"], "the job is not read again for that"


@pytest.mark.parametrize("as_event", [True, False])
def test_a_watch_whose_version_has_expired_starts_anew(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, as_event: bool
) -> None:
    def script(job: JobHandle) -> None:
        job.wait_for("watch")
        job.begin()
        job.wait_for("watch", 3)
        job.log("still there")
        job.end("Complete", "SUCCEEDED")

    server.fault_of["watch", 0] = Fault(cut_after=0)
    if as_event:
        server.fault_of["watch", 1] = Fault(forget=True)
    else:
        server.fault_of["watch", 1] = refused(410, "Expired")
    operator(script)
    run(spec)
    assert run.driver_log == ["still there"]


def test_a_watch_that_is_silent_is_replaced_in_time(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    """A connection may die without a word; the next reading of the job finds what was missed."""

    def script(job: JobHandle) -> None:
        job.wait_for("watch")
        succeed(job)

    server.fault_of["watch", 0] = Fault(delay=30)
    operator(script)
    run(spec, timing=replace(QUICK, watch=0.2, request=0.3))
    assert len(server.rayjobs.created) == 1


@pytest.mark.parametrize("cut", [0, 10, 31, 40, 90, 200])
def test_a_log_that_breaks_off_is_shown_whole_and_once(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec, cut: int
) -> None:
    texts = [f"step {number}" for number in range(20)] + ["", "Δ loss 0.5", "@progress {}"]

    def script(job: JobHandle) -> None:
        job.begin()
        job.log(*texts[:10])
        job.wait_for("get", 5)
        job.log(*texts[10:])
        job.end("Complete", "SUCCEEDED")

    for number in range(3):
        server.fault_of["get pods/log", number] = Fault(cut_after=cut)
    operator(script)
    run(spec)
    assert run.driver_log == texts


def test_a_log_that_may_not_be_read_does_not_fail_the_job(
    server: ApiServer, operator: StartOperator, run: Runner, spec: RayJobSpec
) -> None:
    for number in range(20):
        server.fault_of["get pods/log", number] = refused(403, "Forbidden")
    operator(succeed)
    run(spec)
    assert sum("the driver's log cannot be had: " in line for line in run.shown) == 1

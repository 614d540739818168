"""The double of the API server does what the real one does."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from infra.kuberay import RayJobSpec
from infra.kuberay.manifest import job_name, ray_job
from tests.infra.kuberay.api_server import ADMIN, NAMESPACE, PIPELINE, ApiServer
from tests.infra.kuberay.client import client_of

pytestmark = pytest.mark.k8s

PATH = f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayjobs"


class Http:
    def __init__(self, server: ApiServer, token: str = ADMIN) -> None:
        self._server, self._token = server, token
        self._pool = client_of(server, token).rest_client.pool_manager

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        response = self._pool.request(
            method,
            self._server.url + path,
            headers={"Authorization": f"Bearer {self._token}"},
            body=json.dumps(body) if body is not None else None,
        )
        text = response.data.decode()
        return response.status, [json.loads(line) for line in text.splitlines()]

    def create(self, job: Any) -> tuple[int, Any]:
        status, (answer,) = self("POST", f"{PATH}?fieldValidation=Strict", job)
        return status, answer


@pytest.fixture
def http(server: ApiServer) -> Http:
    return Http(server)


@pytest.fixture
def job(spec: RayJobSpec) -> Any:
    return ray_job(spec, 1)


def test_objects_get_what_the_server_gives(http: Http, job: Any) -> None:
    status, created = http.create({**job, "status": {"jobStatus": "SUCCEEDED"}})
    assert status == 201 and "status" not in created
    metadata = created["metadata"]
    assert metadata["uid"] and metadata["resourceVersion"] and metadata["generation"] == 1
    assert http("GET", f"{PATH}/{metadata['name']}") == (200, [created])
    status, (listed,) = http("GET", f"{PATH}?labelSelector=app.kubernetes.io/instance=run-1")
    assert listed["items"] == [created]
    assert listed["metadata"]["resourceVersion"] >= metadata["resourceVersion"]
    assert http("GET", f"{PATH}?labelSelector=app.kubernetes.io/instance=run-2")[1][0]["items"] == []


def test_refusals(http: Http, server: ApiServer, job: Any) -> None:
    http.create(job)
    status, answer = http.create(job)
    assert (status, answer["kind"], answer["reason"]) == (409, "Status", "AlreadyExists")
    assert http("GET", f"{PATH}/nobody")[0] == 404
    assert http("GET", "/apis/ray.io/v1/namespaces/elsewhere/rayjobs/a")[0] == 404
    assert Http(server, "another")("GET", PATH)[0] == 401
    assert Http(server, PIPELINE)("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")[0] == 403, "get, not list"
    assert http("POST", PATH, job)[0] == 400, "strict validation has to be asked for"


@pytest.mark.parametrize(
    "edit",
    [
        {"backoffLimit": "0"},
        {"backofLimit": 0},
        {"preRunningDeadlineSeconds": 0},
        {"rayClusterSpec": {}},
        {"rayClusterSpec": {"authOptions": {"mode": "none"}}},
    ],
)
def test_what_the_crd_forbids_is_refused(http: Http, job: Any, edit: Any, needs_schemas: None) -> None:
    status, answer = http.create({**job, "spec": {**job["spec"], **edit}})
    assert (status, answer["reason"]) == (422, "Invalid")


def test_defaults_of_the_crd_are_filled_in(http: Http, job: Any, needs_schemas: None) -> None:
    del job["spec"]["submissionMode"]
    assert http.create(job)[1]["spec"]["submissionMode"] == "K8sJobMode"


def test_a_finalizer_delays_removal(http: Http, server: ApiServer, job: Any) -> None:
    job["metadata"]["finalizers"] = ["ray.io/rayjob-finalizer"]
    uid = http.create(job)[1]["metadata"]["uid"]
    path = f"{PATH}/{job['metadata']['name']}"
    assert http("DELETE", path, {"preconditions": {"uid": "another"}})[0] == 409
    assert http("DELETE", path, {"preconditions": {"uid": uid}})[0] == 200
    assert http("GET", path)[1][0]["metadata"]["deletionTimestamp"]
    assert http.create(job)[0] == 409, "the name is taken until it is gone"
    http("PATCH", path, {"metadata": {"finalizers": None}})
    assert http("GET", path)[0] == 404


def test_a_patch_of_an_old_version_is_a_conflict(http: Http, job: Any) -> None:
    old = http.create(job)[1]
    path = f"{PATH}/{job['metadata']['name']}"
    assert http("PATCH", path, {"spec": {"suspend": True}})[0] == 200
    stale = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "spec": {"suspend": None}}
    status, (answer,) = http("PATCH", path, stale)
    assert (status, answer["reason"]) == (409, "Conflict")
    assert http("GET", path)[1][0]["spec"]["suspend"] is True


def test_a_watch_tells_everything_after_its_version(
    http: Http, server: ApiServer, spec: RayJobSpec, job: Any
) -> None:
    version = http.create(job)[1]["metadata"]["resourceVersion"]
    name = job_name(spec)
    threading.Timer(0.2, lambda: server.rayjobs.delete(name)).start()
    server.rayjobs.change(name, lambda one: one["spec"].update(suspend=True))
    query = f"watch=true&fieldSelector=metadata.name={name}&timeoutSeconds=1&allowWatchBookmarks=true"
    events = http("GET", f"{PATH}?{query}&resourceVersion={version}")[1]
    assert [event["type"] for event in events] == ["MODIFIED", "DELETED", "BOOKMARK"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(versions) and versions[0] > int(version)
    assert (
        http("GET", f"{PATH}?{query.replace(name, 'other')}&resourceVersion={version}")[1][0]["type"]
        == "BOOKMARK"
    )
    server.rayjobs.forget()
    (event,) = http("GET", f"{PATH}?{query}&resourceVersion={version}")[1]
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
